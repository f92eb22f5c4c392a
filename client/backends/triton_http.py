"""Triton over HTTP: the KServe v2 protocol in JSON, spoken through urllib3.

Not through tritonclient.http: one of its clients serves one thread and has one timeout for all requests, so a pool of them
could not give each call its own deadline; and its only gain, binary tensors, is none for texts.
"""

from __future__ import annotations

import json
import re
import socket
import ssl
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import HTTPError, NewConnectionError, SSLError
from urllib3.exceptions import TimeoutError as HTTPTimeoutError

from bertrec.errors import InvalidAnswer, InvalidInput, Overloaded, Transient, Unavailable
from bertrec.questions import Question

from ..settings import Tls
from . import NO_HEADERS, REQUEST_ID
from .triton import TritonReader, inputs_of, output_of

if TYPE_CHECKING:
    from typing_extensions import Buffer  # in collections.abc from Python 3.12 on

KEPT_CONNECTIONS = 64
"""Idle connections kept; more threads than that open further ones for as long as they need them."""

TOO_MANY, NOT_NOW = 429, 503
_SECONDS = re.compile(r"[0-9]{1,6}")  # the other form of Retry-After, a date, would ask the two machines' clocks to agree


class HttpBackend(TritonReader):
    """One pool of connections, shared by all threads."""

    def __init__(self, host: str, port: int, tls: Tls | None = None) -> None:
        super().__init__("http" if tls is None else "https", host, port)
        self._pool: urllib3.HTTPConnectionPool
        if tls is None:
            self._pool = _Pool(host, port, maxsize=KEPT_CONNECTIONS, retries=False)
        else:
            self._pool = _TlsPool(host, port, maxsize=KEPT_CONNECTIONS, retries=False, ssl_context=_context(tls))

    def answer(
        self, texts: Sequence[str], question: Question, *, timeout_s: float, headers: Mapping[str, str] = NO_HEADERS
    ) -> list[Any]:
        """See :class:`Backend`."""
        try:
            response = self._pool.urlopen(
                "POST",
                f"/v2/models/{question.model.name}/infer",
                body=_request(texts, question, headers.get(REQUEST_ID)),
                headers={**headers, "content-type": "application/json"},
                timeout=urllib3.Timeout(total=timeout_s),
            )
        except HTTPError as error:
            raise self._translated(error, timeout_s) from None
        if response.status != 200:
            raise self._refusal(response.status, response.data, response.headers.get("retry-after"), question)
        return self._read(self._rows(response.data, question), len(texts), question)

    def close(self) -> None:
        """Close the idle connections."""
        self._pool.close()

    def _rows(self, body: bytes, question: Question) -> list[Any] | None:
        wanted = output_of(question)
        try:
            output = next((one for one in json.loads(body)["outputs"] if one["name"] == wanted.name), None)
            if output is None:
                return None
            rows = list(output["data"])
            if wanted.dtype == "BYTES":
                return rows
            width = int(output["shape"][1])  # numbers come flat
            return [rows[start : start + width] for start in range(0, len(rows), max(width, 1))]
        except (ValueError, KeyError, TypeError, IndexError, OverflowError, RecursionError) as error:
            raise InvalidAnswer(f"{self._url} answered with what cannot be read ({type(error).__name__}: {error})") from None

    def _translated(self, error: HTTPError, timeout_s: float) -> Unavailable:
        # urllib3 counts a refused connection among the timeouts.
        if isinstance(error, HTTPTimeoutError) and not isinstance(error, NewConnectionError):
            return self._late(timeout_s)
        kind = Unavailable if isinstance(error, SSLError) else Transient  # a certificate will not be better a moment later
        return kind(f"{self._url} cannot answer: {error.__cause__ or error}")

    def _refusal(self, status: int, body: bytes, retry_after: str | None, question: Question) -> InvalidInput | Unavailable:
        """Triton's 400 is the input's fault; so is no other status, nor a 400 that is not Triton's."""
        what = f"HTTP {status}"
        try:
            message = str(json.loads(body)["error"])
        except (ValueError, KeyError, TypeError, RecursionError):
            pass
        else:
            if status == 400:
                return InvalidInput(message)
            what += f", {message}"
        if status == TOO_MANY or (status == NOT_NOW and retry_after is not None):
            wait_s = float(retry_after) if retry_after and _SECONDS.fullmatch(retry_after) else 0.0
            return Overloaded(f"{self._url} cannot answer: {what}", retry_after_s=wait_s)
        return self._cannot(what) if status == NOT_NOW else self._failed(what, question)


def _request(texts: Sequence[str], question: Question, request_id: str | None) -> bytes:
    """The inputs, all BYTES of shape (batch, 1)."""
    inputs = [
        {"name": spec.name, "datatype": spec.dtype, "shape": [len(values), 1], "data": values}
        for spec, values in inputs_of(question, list(texts)).items()
    ]
    request = {"inputs": inputs} if request_id is None else {"id": request_id, "inputs": inputs}
    return json.dumps(request, ensure_ascii=False).encode()


class _Deadline:
    """What makes all reads and writes of a socket share one deadline.

    A plain timeout starts anew with each read, so a server that sends a byte now and then would hold a call for ever.
    """

    deadline: float  # time.monotonic()

    def recv_into(self, buffer: Buffer, nbytes: int | None = 0, flags: int = 0) -> int:
        """As the socket's, within what is left of the deadline. Raises TimeoutError behind it."""
        self._keep_deadline()
        received: int = super().recv_into(buffer, nbytes, flags)  # type: ignore[misc]  # the socket's
        return received

    def sendall(self, data: Buffer, flags: int = 0) -> None:
        """As the socket's, within what is left of the deadline. Raises TimeoutError behind it."""
        self._keep_deadline()
        super().sendall(data, flags)  # type: ignore[misc]

    def _keep_deadline(self) -> None:
        remaining_s = self.deadline - time.monotonic()
        if remaining_s <= 0:
            raise TimeoutError("timed out")
        self.settimeout(remaining_s)  # type: ignore[attr-defined]


class _DeadlineSocket(_Deadline, socket.socket):
    """Without TLS."""


class _DeadlineTlsSocket(_Deadline, ssl.SSLSocket):
    """With TLS; made by the context, whose handshake has one timeout as a whole."""

    deadline = float("inf")  # until the connection sets it

    def _keep_deadline(self) -> None:
        if self.deadline < float("inf"):
            super()._keep_deadline()


def _context(tls: Tls) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=tls.path("ca"))
        if tls.certificate is not None:
            context.load_cert_chain(tls.certificate, tls.key)
    except (ssl.SSLError, OSError) as error:
        raise InvalidInput(f"tls cannot be used ({error}); accepted are PEM files: ca, and certificate with its key") from None
    context.sslsocket_class = _DeadlineTlsSocket
    return context


class _Connection(HTTPConnection):
    """A connection over a _DeadlineSocket."""

    _deadline = 0.0

    def putrequest(self, method: str, url: str, skip_host: bool = False, skip_accept_encoding: bool = False) -> None:
        """Starts the clock: the pool has set ``timeout`` to what is left of the call's."""
        self._deadline = time.monotonic() + float(self.timeout or 0)
        if isinstance(self.sock, _DeadlineSocket):
            self.sock.deadline = self._deadline
        super().putrequest(method, url, skip_host, skip_accept_encoding)

    def connect(self) -> None:
        """Connects, and puts the socket under the deadline of the request that asked for it."""
        super().connect()
        sock = _DeadlineSocket(fileno=self.sock.detach())
        sock.deadline = self._deadline
        self.sock = sock


class _TlsConnection(HTTPSConnection):
    """A connection over a _DeadlineTlsSocket. The pool connects it before it puts the request, so the clock starts there."""

    _deadline: float | None = None

    def connect(self) -> None:
        """Starts the clock, and connects: the context makes the socket."""
        self._deadline = time.monotonic() + float(self.timeout or 0)
        super().connect()

    def putrequest(self, method: str, url: str, skip_host: bool = False, skip_accept_encoding: bool = False) -> None:
        """The first request of a connection has what connecting left of its time."""
        deadline, self._deadline = self._deadline, None
        if isinstance(self.sock, _DeadlineTlsSocket):
            self.sock.deadline = time.monotonic() + float(self.timeout or 0) if deadline is None else deadline
        super().putrequest(method, url, skip_host, skip_accept_encoding)


class _Pool(urllib3.HTTPConnectionPool):
    ConnectionCls = _Connection


class _TlsPool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _TlsConnection
