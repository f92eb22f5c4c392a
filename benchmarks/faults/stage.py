"""What every scenario stands on: a bundle, its repository, a real server, an asker."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.faults.asking import Asker, Known
from benchmarks.faults.outcome import Outcome
from client import Recommender, ServedBy
from serving.triton import TritonServer

Clock = Callable[[], float]
BACK_WITHIN_S = 15.0
TIGHT_S = 1.0
"""A deadline that binds where a server is only gone, not slow: the edge must answer well before."""


@dataclass(frozen=True)
class Stage:
    """bundle, repository: what is served. known: right answers. folder: for the scenario's own files.

    steady_s, overload_s: how long the two long scenarios take. calls: how many are in flight when a server is killed.
    clients, timeout_s: of the ordinary load; many_clients: of the overload. tight_s: the deadline where it shall bind.
    """

    bundle: Path
    repository: Path
    known: Known
    folder: Path
    steady_s: float
    overload_s: float
    calls: int
    clients: int
    many_clients: int
    timeout_s: float

    @property
    def tight_s(self) -> float:
        """See above."""
        return min(TIGHT_S, self.timeout_s)

    @contextmanager
    def asking(
        self, *urls: str, fallback: bool = True, timeout_s: float | None = None, clock: Clock = time.monotonic
    ) -> Iterator[Asker]:
        """A client of the servers, with the same bundle as the fallback or without one; warm."""
        edge = self.bundle if fallback else None
        with Recommender(list(urls), fallback=edge, threads=1, clock=clock) as recommender:
            asker = Asker(recommender, self.known, timeout_s=timeout_s or self.timeout_s)
            for _ in range(5):
                recommender.recommend(self.known.texts[0], timeout_s=30)
            yield asker

    def again(self, server: TritonServer) -> TritonServer:
        """A server like another one that is gone, at its ports."""
        ports = server.ports
        return TritonServer(
            self.repository, grpc_port=ports.grpc, http_port=ports.http, metrics_port=ports.metrics, ready_timeout_s=120
        )

    def server(self, repository: Path | None = None) -> TritonServer:
        """A server of the scenario's own, on free ports, of the stage's repository or another one; not started."""
        return TritonServer(repository or self.repository, ready_timeout_s=120)


def found(asker: Asker, outcome: Outcome, *, began_s: float) -> Outcome:
    """The outcome with what was counted, and with who answers the next call."""
    next_by = asker.ask()
    count = asker.count
    return replace(
        outcome,
        calls=count.calls,
        wrong=count.wrong,
        untyped=count.untyped,
        refused=dict(count.refused),
        by_edge=count.by_edge,
        late_ms=count.late_ms,
        next_by=None if next_by is None else str(next_by),
        seconds=time.monotonic() - began_s,
    )


def back_again(asker: Asker, what: str) -> tuple[str, tuple[str, ...]]:
    """Wait until the server answers again: what to note, and what is broken if it does not."""
    took_s = asker.wait_for(ServedBy.TRITON, within_s=BACK_WITHIN_S)
    if took_s is None:
        return "", (f"the server did not answer within {BACK_WITHIN_S:g} s after {what}",)
    return f"answered by the server again {took_s:.1f} s after {what}", ()
