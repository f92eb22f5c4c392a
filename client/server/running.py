"""Runs the server until it is told to stop."""

from __future__ import annotations

import signal
import socket
from collections.abc import Callable

import uvicorn

from bertrec.errors import InvalidInput

from .app import create_app
from .limits import Limits
from .model import EdgeModel

LOOPBACK = "127.0.0.1"
GRACE_S = 5
"""How long requests in flight may keep a stopping server."""

BACKLOG = 1024
MAX_HEADER_BYTES = 64 * 1024


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens; port 0 has a free one chosen. Raises InvalidInput where the address cannot be used."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        bound = socket.create_server((host, port), family=family, backlog=BACKLOG)
    except (OSError, OverflowError) as error:
        raise InvalidInput(f"port {port} on {host} cannot be used ({error}); choose another, or 0 for a free one") from None
    # asyncio turns Nagle's algorithm off only where the protocol is said; with it, each answer waits 40 ms for the client's ACK.
    return socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP, fileno=bound.detach())


def make_server(model: EdgeModel, limits: Limits) -> uvicorn.Server:
    """A uvicorn server that was not started."""
    return uvicorn.Server(
        uvicorn.Config(
            create_app(model, limits),
            loop="asyncio",
            http="h11",
            ws="none",
            lifespan="on",
            log_level="warning",
            access_log=False,
            server_header=False,
            proxy_headers=False,
            limit_concurrency=limits.connections,
            h11_max_incomplete_event_size=MAX_HEADER_BYTES,
            timeout_graceful_shutdown=GRACE_S,
        )
    )


def serve(
    model: EdgeModel,
    *,
    host: str = LOOPBACK,
    port: int = 8000,
    limits: Limits | None = None,
    tell: Callable[[str], None] = lambda url: None,
) -> None:
    """Serve ``model`` until SIGINT or SIGTERM; requests in flight are answered first. Call it in the main thread.

    host: this machine alone, unless told otherwise; there is neither TLS nor a password, so a proxy must bring them.
    tell: gets the address once the port is bound. Raises InvalidInput where the address cannot be used.
    """
    server = make_server(model, limits or Limits())
    with listen(host, port) as listener:
        bound = listener.getsockname()
        tell(f"http://[{bound[0]}]:{bound[1]}" if ":" in host else f"http://{bound[0]}:{bound[1]}")
        before = {number: signal.signal(number, lambda *_: None) for number in (signal.SIGINT, signal.SIGTERM)}
        try:  # uvicorn catches the signals, stops, and raises them again
            server.run(sockets=[listener])
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
