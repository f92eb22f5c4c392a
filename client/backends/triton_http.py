"""Triton over HTTP: the KServe v2 protocol in JSON, spoken through urllib3.

Not through tritonclient.http: one of its clients serves one thread and has one timeout for all requests, so a pool of them
could not give each call its own deadline; and its only gain, binary tensors, is none for texts.
"""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import urllib3
from urllib3.connection import HTTPConnection
from urllib3.exceptions import HTTPError, NewConnectionError
from urllib3.exceptions import TimeoutError as HTTPTimeoutError

from bertrec.errors import DeadlineExceeded, InvalidAnswer, InvalidInput, Unavailable
from bertrec.tensors import ANSWER, OPTIONS, RECOMMEND, TEXT

from .triton import TritonBackend

if TYPE_CHECKING:
    from typing_extensions import Buffer  # in collections.abc from Python 3.12 on

KEPT_CONNECTIONS = 64
"""Idle connections kept; more threads than that open further ones for as long as they need them."""


class HttpBackend(TritonBackend):
    """One pool of connections, shared by all threads."""

    def __init__(self, host: str, port: int) -> None:
        authority = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        super().__init__(f"http://{authority}")
        self._pool = _Pool(host, port, maxsize=KEPT_CONNECTIONS, retries=False)

    def close(self) -> None:
        """Close the idle connections."""
        self._pool.close()

    def _infer(self, texts: Sequence[str], options: str, *, timeout_s: float) -> list[str | bytes] | None:
        try:
            response = self._pool.urlopen(
                "POST",
                f"/v2/models/{RECOMMEND.name}/infer",
                body=_request(texts, options),
                headers={"Content-Type": "application/json"},
                timeout=urllib3.Timeout(total=timeout_s),
            )
        except HTTPError as error:
            raise self._translated(error) from None
        if response.status != 200:
            raise self._refusal(response.status, response.data)
        return self._rows(response.data)

    def _rows(self, body: bytes) -> list[str | bytes] | None:
        try:
            outputs = json.loads(body)["outputs"]
            return next((list(output["data"]) for output in outputs if output["name"] == ANSWER.name), None)
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise InvalidAnswer(f"{self._url} answered with what cannot be read ({type(error).__name__}: {error})") from None

    def _translated(self, error: HTTPError) -> Unavailable:
        # urllib3 counts a refused connection among the timeouts.
        late = isinstance(error, HTTPTimeoutError) and not isinstance(error, NewConnectionError)
        return DeadlineExceeded(self._url) if late else Unavailable(f"{self._url} cannot answer: {error.__cause__ or error}")

    def _refusal(self, status: int, body: bytes) -> InvalidInput | Unavailable:
        """Triton's 400 is the input's fault; so is no other status, nor a 400 that is not Triton's."""
        try:
            message = str(json.loads(body)["error"])
        except (ValueError, KeyError, TypeError, RecursionError):
            return Unavailable(f"{self._url} cannot answer: HTTP {status}")
        return InvalidInput(message) if status == 400 else Unavailable(f"{self._url} cannot answer: HTTP {status}, {message}")


def _request(texts: Sequence[str], options: str) -> bytes:
    """The inputs TEXT and OPTIONS, both BYTES of shape (batch, 1)."""
    rows = {TEXT: list(texts), OPTIONS: [options] * len(texts)}
    inputs = [
        {"name": spec.name, "datatype": spec.dtype, "shape": [len(texts), 1], "data": values} for spec, values in rows.items()
    ]
    return json.dumps({"inputs": inputs}, ensure_ascii=False).encode()


class _DeadlineSocket(socket.socket):
    """A socket whose reads and writes share one deadline.

    A plain timeout starts anew with each read, so a server that sends a byte now and then would hold a call for ever.
    """

    deadline: float  # time.monotonic()

    def recv_into(self, buffer: Buffer, nbytes: int = 0, flags: int = 0) -> int:
        self._keep_deadline()
        return super().recv_into(buffer, nbytes, flags)

    def sendall(self, data: Buffer, flags: int = 0) -> None:
        self._keep_deadline()
        super().sendall(data, flags)

    def _keep_deadline(self) -> None:
        remaining_s = self.deadline - time.monotonic()
        if remaining_s <= 0:
            raise TimeoutError("timed out")
        self.settimeout(remaining_s)


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
        super().connect()
        sock = _DeadlineSocket(fileno=self.sock.detach())
        sock.deadline = self._deadline
        self.sock = sock


class _Pool(urllib3.HTTPConnectionPool):
    ConnectionCls = _Connection
