"""Who can answer: a backend has two methods and knows nothing of retries or fallback, which are the recommender's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol, runtime_checkable
from urllib.parse import urlsplit

from bertrec.errors import InvalidInput
from bertrec.questions import Question
from bertrec.session_options import SessionOptions

from ..settings import Tls

PORTS = {"grpc": 8001, "grpcs": 8001, "http": 8000, "https": 443}
"""The schemes, and the port that each means where none is given; HTTPS is spoken by a proxy before Triton."""

NO_HEADERS: Mapping[str, str] = MappingProxyType({})
REQUEST_ID = "x-request-id"
"""The header whose value is sent as the inference request's own id, too, which Triton's log and trace name."""


@runtime_checkable
class Backend(Protocol):
    """Answers texts. Thread-safe."""

    def answer(
        self, texts: Sequence[str], question: Question, *, timeout_s: float, headers: Mapping[str, str] = NO_HEADERS
    ) -> list[Any]:
        """One answer for each of the cleaned texts, in their order. A server gets at most ``MAX_BATCH_SIZE`` of them.

        question: what is asked of each text, and so what an answer is; see :mod:`bertrec.questions`.
        headers: what the request carries beside its tensors, names in lower case.
        Raises InvalidInput for what cannot be answered, Transient where asking again may help, DeadlineExceeded after
        ``timeout_s``, and Unavailable for everything else that is no usable answer.
        """

    def close(self) -> None:
        """Let go of connections. The backend is not used afterwards; closing twice is allowed."""


class AsyncBackend(Protocol):
    """The same for asyncio. Used by one event loop."""

    async def answer(
        self, texts: Sequence[str], question: Question, *, timeout_s: float, headers: Mapping[str, str] = NO_HEADERS
    ) -> list[Any]:
        """See :class:`Backend`."""

    async def close(self) -> None:
        """See :class:`Backend`."""


# The backends are imported where they are chosen: ONNX Runtime and gRPC take 0.3 s each to load, which only their users pay.


def open_edge(bundle: str | Path, *, engine: str | None, session: SessionOptions) -> Backend:
    """The backend that answers in this process; see :class:`EdgeBackend`."""
    from .edge import EdgeBackend

    return EdgeBackend(bundle, engine=engine, session=session)


def connect(url: str, tls: Tls | None = None) -> Backend:
    """The backend for a server's address. Connects with the first request, so the server may still be down.

    Raises InvalidInput for an address that is not ``grpc://HOST[:PORT]`` or ``http://HOST[:PORT]``, or the same with TLS.
    """
    scheme, host, port = _parse(url)
    encryption = _encryption(url, scheme, tls)
    if scheme.startswith("grpc"):
        from .triton_grpc import GrpcBackend

        return GrpcBackend(host, port, encryption)
    from .triton_http import HttpBackend

    return HttpBackend(host, port, encryption)


def connect_async(url: str, tls: Tls | None = None) -> AsyncBackend:
    """The same for asyncio: gRPC through grpc.aio; HTTP in threads, each of which its deadline ends."""
    scheme, host, port = _parse(url)
    if scheme.startswith("grpc"):
        from .triton_grpc import AsyncGrpcBackend

        return AsyncGrpcBackend(host, port, _encryption(url, scheme, tls))
    return in_threads(connect(url, tls))


def in_threads(backend: Backend) -> AsyncBackend:
    """A backend that blocks, for asyncio."""
    from .threaded import ThreadedBackend

    return ThreadedBackend(backend)


def _encryption(url: str, scheme: str, tls: Tls | None) -> Tls | None:
    if scheme in ("grpcs", "https"):
        return tls or Tls()
    if tls is not None:
        raise InvalidInput(f"url is {url!r}, which is not encrypted, and tls is given; write grpcs:// or https://")
    return None


def _parse(url: object) -> tuple[str, str, int]:
    """Scheme, host (an IPv6 address without its brackets) and port."""
    wanted = "accepted are grpc://HOST[:PORT] and http://HOST[:PORT], such as grpc://127.0.0.1:8001, and grpcs:// and https://"
    if not isinstance(url, str):
        raise InvalidInput(f"url is of type {type(url).__name__}; {wanted}")
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise InvalidInput(f"url is {url!r} ({error}); {wanted}") from None
    more = parts.path.strip("/") or parts.query or parts.fragment or parts.username
    if parts.scheme not in PORTS or not host or more:
        raise InvalidInput(f"url is {url!r}; {wanted}")
    return parts.scheme, host, PORTS[parts.scheme] if port is None else port
