"""A TCP proxy on loopback that refuses connections and cuts them half-way."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from types import TracebackType

LOOPBACK = "127.0.0.1"
CHUNK_BYTES = 1 << 14
RESET = struct.pack("ii", 1, 0)
"""SO_LINGER for an end by RST instead of FIN."""


class Proxy:
    """Passes bytes on to a server. ``cut_after`` bytes of an answer it ends the connection, where that is set."""

    def __init__(self, port: int) -> None:
        self._server = port
        self.cut_after: int | None = None
        self.refuses = False
        self.cuts = self.refusals = 0
        self._open: set[socket.socket] = set()
        self._listener = socket.create_server((LOOPBACK, 0), backlog=512)
        self.port = int(self._listener.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    def drop(self) -> None:
        """End every connection that is open, by RST."""
        for one in list(self._open):
            _reset(one)

    def close(self) -> None:
        """Accept no more, and end what is open."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.drop()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client = self._listener.accept()[0]
                if self.refuses:
                    self.refusals += 1
                    _reset(client)
                else:
                    self._connect(client)

    def _connect(self, client: socket.socket) -> None:
        try:
            server = socket.create_connection((LOOPBACK, self._server), timeout=5)
        except OSError:
            _reset(client)
            return
        server.settimeout(None)
        self._open |= {client, server}
        for source, sink, answers in ((client, server, False), (server, client, True)):
            with contextlib.suppress(OSError):  # dropped already; the threads see it, and others are accepted on
                source.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=self._pass_on, args=(source, sink, answers), daemon=True).start()

    def _pass_on(self, source: socket.socket, sink: socket.socket, answers: bool) -> None:
        passed = 0
        with contextlib.suppress(OSError):
            while data := source.recv(CHUNK_BYTES):
                left = None if self.cut_after is None or not answers else self.cut_after - passed
                if left is not None and left < len(data):
                    sink.sendall(data[: max(left, 0)])
                    self.cuts += 1
                    break
                sink.sendall(data)
                passed += len(data)
        for one in (source, sink):
            self._open.discard(one)
            _reset(one)

    def __enter__(self) -> Proxy:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def _reset(one: socket.socket) -> None:
    with contextlib.suppress(OSError):
        one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        one.shutdown(socket.SHUT_RD)  # wakes the thread that reads from it
    one.close()
