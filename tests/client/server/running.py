"""Runs the real edge server on loopback, in a thread, and speaks plain HTTP to it."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from bertrec.session_options import SessionOptions
from client.server.limits import Limits
from client.server.model import Asked, EdgeModel, Outcome
from client.server.running import LOOPBACK, listen, make_server

TIMEOUT_S = 20


@dataclass(frozen=True)
class Response:
    """What came back."""

    status: int
    headers: Mapping[str, str]  # names in lower case
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True)
class Running:
    """A server that runs."""

    port: int

    @property
    def url(self) -> str:
        return f"http://{LOOPBACK}:{self.port}"

    def send(self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None) -> Response:
        connection = http.client.HTTPConnection(LOOPBACK, self.port, timeout=TIMEOUT_S)
        try:
            connection.request(method, path, body, dict(headers or {}))
            response = connection.getresponse()
            return Response(response.status, {name.lower(): value for name, value in response.getheaders()}, response.read())
        finally:
            connection.close()

    def get(self, path: str) -> Response:
        return self.send("GET", path)

    def recommend(self, wish: object, **headers: str) -> Response:
        return self.send("POST", "/recommend", json.dumps(wish).encode(), {"Content-Type": "application/json", **headers})

    def metric(self, name: str) -> float:
        return next(
            float(line.split()[1]) for line in self.get("/metrics").body.decode().splitlines() if line.startswith(f"{name} ")
        )


@contextmanager
def running(model: EdgeModel, limits: Limits | None = None) -> Iterator[Running]:
    """The server that ``bertrec serve`` runs, on a free port."""
    server = make_server(model, limits or Limits())
    with listen(LOOPBACK, 0) as listener:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        while not server.started:
            assert thread.is_alive(), "the server did not start"
            time.sleep(0.01)
        try:
            yield Running(listener.getsockname()[1])
        finally:
            server.should_exit = True
            thread.join(TIMEOUT_S)
            if thread.is_alive():  # it waits for a request that a failed test left half-sent
                server.force_exit = True
                thread.join(TIMEOUT_S)
            assert not thread.is_alive(), "the server did not stop"


class HeldModel(EdgeModel):
    """The real model, which starts a run only when it is let go: so a test decides what waits meanwhile."""

    def __init__(self, bundle: Any) -> None:
        super().__init__(bundle, session=SessionOptions(1))
        self.entered = threading.Semaphore(0)
        self.go_on = threading.Event()
        self.runs: list[int] = []

    def answer(self, requests: Sequence[Asked]) -> list[Outcome]:
        self.runs.append(len(requests))
        self.entered.release()
        assert self.go_on.wait(TIMEOUT_S)
        return super().answer(requests)
