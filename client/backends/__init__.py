"""Who can answer: a backend has two methods and knows nothing of retries or fallback, which are the recommender's."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable
from urllib.parse import urlsplit

from bertrec.answers import Options, Recommendation
from bertrec.errors import InvalidInput

GRPC_PORT = 8001
HTTP_PORT = 8000


@runtime_checkable
class Backend(Protocol):
    """Answers texts. Thread-safe."""

    def recommend(self, texts: Sequence[str], options: Options, *, timeout_s: float) -> list[Recommendation]:
        """One recommendation for each of the cleaned texts, in their order.

        Raises InvalidInput for what cannot be answered, and Unavailable where no usable answer came within ``timeout_s``.
        """

    def close(self) -> None:
        """Let go of connections. The backend is not used afterwards; closing twice is allowed."""


# The backends are imported where they are chosen: ONNX Runtime and gRPC take 0.3 s each to load, which only their users pay.


def open_edge(bundle: str | Path, *, engine: str | None, threads: int) -> Backend:
    """The backend that answers in this process; see :class:`EdgeBackend`."""
    from .edge import EdgeBackend

    return EdgeBackend(bundle, engine=engine, threads=threads)


def connect(url: str) -> Backend:
    """The backend for a server's address. Connects with the first request, so the server may still be down.

    Raises InvalidInput for an address that is not ``grpc://HOST[:PORT]`` or ``http://HOST[:PORT]``.
    """
    scheme, host, port = _parse(url)
    if scheme == "grpc":
        from .triton_grpc import GrpcBackend

        return GrpcBackend(host, GRPC_PORT if port is None else port)
    from .triton_http import HttpBackend

    return HttpBackend(host, HTTP_PORT if port is None else port)


def _parse(url: object) -> tuple[str, str, int | None]:
    """Scheme, host (an IPv6 address without its brackets) and port."""
    wanted = "accepted are grpc://HOST[:PORT] and http://HOST[:PORT], such as grpc://127.0.0.1:8001"
    if not isinstance(url, str):
        raise InvalidInput(f"url is of type {type(url).__name__}; {wanted}")
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise InvalidInput(f"url is {url!r} ({error}); {wanted}") from None
    more = parts.path.strip("/") or parts.query or parts.fragment or parts.username
    if parts.scheme not in ("grpc", "http") or not host or more:
        raise InvalidInput(f"url is {url!r}; {wanted}")
    return parts.scheme, host, port
