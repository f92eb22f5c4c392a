"""Real servers on loopback that do what a Triton in trouble does: refuse, hang, drip, and answer with something broken."""

from __future__ import annotations

import json
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from types import MappingProxyType
from typing import Any

import grpc  # type: ignore[import-untyped]  # its stubs are a package of their own
import numpy as np
from tritonclient.grpc import service_pb2, service_pb2_grpc
from tritonclient.utils import serialize_byte_tensor

from bertrec.tensors import ANSWER
from tests.client.fakes import recommendation

LOOPBACK = "127.0.0.1"


def closed_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as listener:
        listener.bind((LOOPBACK, 0))
        return int(listener.getsockname()[1])


@contextmanager
def tcp_server(handle: Callable[[socket.socket], None]) -> Iterator[int]:
    """Runs ``handle`` on each connection in a thread of its own; gives the port. Connections are closed at the end only."""
    connections: list[socket.socket] = []
    with socket.create_server((LOOPBACK, 0)) as listener:

        def accept() -> None:
            with suppress(OSError):
                while True:
                    connections.append(listener.accept()[0])
                    threading.Thread(target=_quietly, args=(handle, connections[-1]), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
    for connection in connections:
        connection.close()


def _quietly(handle: Callable[[socket.socket], None], connection: socket.socket) -> None:
    with suppress(OSError):
        handle(connection)


def hang(connection: socket.socket) -> None:
    """Read nothing, say nothing."""


def hang_up(connection: socket.socket) -> None:
    """Read the request, then close the connection instead of answering."""
    connection.recv(1 << 16)
    connection.close()


def drip_headers(connection: socket.socket) -> None:
    """A byte now and then, so that no single read ever times out."""
    connection.sendall(b"HTTP/1.1 200 OK\r\nX-Slow: ")
    _drip(connection)


def drip_body(connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
    _drip(connection)


def _drip(connection: socket.socket) -> None:
    while True:
        connection.sendall(b".")
        time.sleep(0.02)


@contextmanager
def http_server(
    answer: Callable[[int], tuple[int, bytes]],
    *,
    delay_s: float = 0.0,
    seen: list[dict[str, str]] | None = None,
    tls: ssl.SSLContext | None = None,
    headers: Mapping[str, str] = MappingProxyType({}),
) -> Iterator[str]:
    """Answers each POST with the status and body that ``answer`` gives for its number of texts; gives the url.

    seen: gets each request's headers, and its id under ``id``. headers: of each answer.
    """

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if seen is not None:
                seen.append({**{name.lower(): value for name, value in self.headers.items()}, "id": request.get("id", "")})
            time.sleep(delay_s)
            status, body = answer(request["inputs"][0]["shape"][0])
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = _QuietServer((LOOPBACK, 0), Handler)
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield f"{'http' if tls is None else 'https'}://{LOOPBACK}:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


class _QuietServer(ThreadingHTTPServer):
    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that does not wait for its answer is what some tests are about."""


def http_answer(rows: Sequence[object], name: str = ANSWER.name) -> bytes:
    """A KServe v2 response with one output."""
    output = {"name": name, "datatype": "BYTES", "shape": [len(rows), 1], "data": list(rows)}
    return json.dumps({"model_name": "recommend", "outputs": [output]}).encode()


Respond = Callable[[int, grpc.ServicerContext], service_pb2.ModelInferResponse]


@contextmanager
def grpc_server(
    respond: Respond,
    *,
    delay_s: float = 0.0,
    seen: list[dict[str, str]] | None = None,
    tls: grpc.ServerCredentials | None = None,
) -> Iterator[str]:
    """Answers each request with what ``respond`` gives for its number of texts; gives the url. seen: as of http_server."""

    class Service(service_pb2_grpc.GRPCInferenceServiceServicer):  # type: ignore[misc]  # tritonclient has no types
        def ModelInfer(self, request: Any, context: grpc.ServicerContext) -> service_pb2.ModelInferResponse:
            if seen is not None:
                seen.append({**dict(context.invocation_metadata()), "id": request.id})
            time.sleep(delay_s)
            return respond(request.inputs[0].shape[0], context)

    server = grpc.server(ThreadPoolExecutor(4))
    service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(Service(), server)
    at = f"{LOOPBACK}:0"
    port = server.add_insecure_port(at) if tls is None else server.add_secure_port(at, tls)
    server.start()
    yield f"{'grpc' if tls is None else 'grpcs'}://{LOOPBACK}:{port}"
    server.stop(grace=0.2).wait()


def grpc_answer(rows: Sequence[str], *, name: str = ANSWER.name, shape: Sequence[int] | None = None) -> Any:
    """A ModelInferResponse with one output."""
    response = service_pb2.ModelInferResponse(model_name="recommend")
    output = response.outputs.add()
    output.name, output.datatype = name, "BYTES"
    output.shape.extend([len(rows), 1] if shape is None else shape)
    raw = serialize_byte_tensor(np.asarray([[row.encode()] for row in rows], object))
    response.raw_output_contents.append(raw.item() if raw.size else b"")
    return response


@contextmanager
def server(
    scheme: str, outcomes: Callable[[int], str | None], *, delay_s: float = 0.0, seen: list[dict[str, str]] | None = None
) -> Iterator[str]:
    """A server for either scheme. ``outcomes`` gives, for the number of the request from 0 on, None or the way it fails.

    The ways: unavailable, overloaded (both worth a retry), broken (an error that is not) and refused (bad input).
    """
    numbers = count()

    def http(texts: int) -> tuple[int, bytes]:
        failure = outcomes(next(numbers))
        if failure is None:
            return 200, http_answer([GOOD] * texts)
        return HTTP_FAILURES[failure], b'{"error": "so it is"}'

    def over_grpc(texts: int, context: grpc.ServicerContext) -> Any:
        failure = outcomes(next(numbers))
        if failure is not None:
            context.abort(GRPC_FAILURES[failure], "so it is")
        return grpc_answer([GOOD] * texts)

    if scheme == "grpc":
        with grpc_server(over_grpc, delay_s=delay_s, seen=seen) as url:
            yield url
    else:
        with http_server(http, delay_s=delay_s, seen=seen) as url:
            yield url


GOOD = recommendation().to_json()
HTTP_FAILURES = {"unavailable": 503, "overloaded": 429, "broken": 500, "refused": 400}
GRPC_FAILURES = {
    "unavailable": grpc.StatusCode.UNAVAILABLE,
    "overloaded": grpc.StatusCode.RESOURCE_EXHAUSTED,
    "broken": grpc.StatusCode.INTERNAL,
    "refused": grpc.StatusCode.INVALID_ARGUMENT,
}
