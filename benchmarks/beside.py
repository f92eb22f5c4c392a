"""Two or more ways to get the same answers, measured beside each other: requests in turns, and windows under load.

Both the in-process engine and servers are asked through client.backends, so that a request ends with the same objects.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.budget import group_cpu_s
from benchmarks.drive import Traffic, closed_loop
from benchmarks.throughput import interval
from bertrec.answers import DEFAULT_K, Options
from bertrec.errors import BertrecError
from bertrec.questions import Question
from client.backends import Backend, connect_async

TIMEOUT_S = 60.0
"""Far beyond what a request takes: nothing is given up."""
WARM_UP_S = 0.3
"""Before each window, of the same load."""

TURN = 8
"""Texts that each way is asked before the next has its turn."""

LATENCY, THROUGHPUT = "latency", "throughput"
"""The kinds of rows: of a round of requests in turns, and of one way's window under load."""

Ask = Callable[[str], object]
"""Has one text answered."""


@dataclass(frozen=True)
class Window:
    """One window under load. client_cpu_s: of this process, all threads. server_cpu_s: of the server's process group."""

    answered: int
    seconds: float
    client_cpu_s: float
    server_cpu_s: float = 0.0

    @property
    def rate(self) -> float:
        """Answers a second."""
        return self.answered / self.seconds


def asker(backend: Backend, question: Question | None = None) -> Ask:
    """A function that has a backend answer one text; by default as it stands, ten items."""
    asked = question or Options(k=DEFAULT_K)
    return lambda text: backend.answer([text], asked, timeout_s=TIMEOUT_S)


def in_turns(ways: Mapping[str, Ask], texts: Sequence[str], seconds: float) -> dict[str, list[float]]:
    """Seconds of each request of each way: a few texts are asked of one way, then of the next, until the time is over.

    Each way is first as often as the others. The first text of a turn is not kept: it finds the caches full of what another way
    read, as no request to a server that is alone does. One text at least is kept of each.
    """
    if not texts:
        raise BertrecError("there are no texts to ask")
    found: dict[str, list[float]] = {name: [] for name in ways}
    names, began, line = list(ways), time.perf_counter(), itertools.cycle(texts)
    for number in itertools.count():
        first, asked = number % len(names), list(itertools.islice(line, TURN))
        for name in (*names[first:], *names[:first]):
            for place, text in enumerate(asked):
                start = time.perf_counter()
                ways[name](text)
                if place:
                    found[name].append(time.perf_counter() - start)
        if time.perf_counter() - began >= seconds:
            break
    return found


def local_window(backend: Backend, texts: Sequence[str], *, callers: int, batch: int, seconds: float) -> Window:
    """``callers`` threads ask the backend in this process again and again, ``batch`` texts each time."""
    line, question = itertools.cycle(texts), Options(k=DEFAULT_K)

    def call(until: float) -> int:
        answered = 0
        while time.perf_counter() < until:
            answered += len(backend.answer(list(itertools.islice(line, batch)), question, timeout_s=TIMEOUT_S))
        return answered

    with ThreadPoolExecutor(callers) as pool:
        for length in (min(WARM_UP_S, seconds), seconds):
            began, cpu_s = time.perf_counter(), time.process_time()
            answered = sum(pool.map(call, [began + length] * callers))
            window = Window(answered, time.perf_counter() - began, time.process_time() - cpu_s)
    return window


@dataclass(frozen=True)
class Asked:
    """A server to ask. pid: of its process group."""

    url: str
    pid: int
    question: Question = Options(k=DEFAULT_K)


def served_window(asked: Asked, texts: Sequence[str], *, clients: int, seconds: float) -> Window:
    """A closed loop of ``clients``, each with one text at a time. Raises BertrecError where a request failed."""
    return asyncio.run(_served(asked, texts, clients, seconds))


async def _served(asked: Asked, texts: Sequence[str], clients: int, seconds: float) -> Window:
    backend = connect_async(asked.url)
    traffic = Traffic(backend, texts, TIMEOUT_S, asked.question)
    try:
        await closed_loop(traffic, clients, min(WARM_UP_S, seconds))
        server, client = group_cpu_s(asked.pid), time.process_time()
        driven = await closed_loop(traffic, clients, seconds)
        used = time.process_time() - client, group_cpu_s(asked.pid) - server
    finally:
        await backend.close()
    if driven.errors:
        raise BertrecError(f"{asked.url} failed {driven.errors.total()} requests of a window: {dict(driven.errors)}")
    return Window(driven.answered, driven.elapsed_s, *used)


@dataclass(frozen=True)
class Middle:
    """The median over rounds, and a 95% interval of it."""

    value: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Middle:
        """See benchmarks.throughput.interval."""
        return cls(float(np.median(values)), *interval(values))

    def written(self, form: str = ".2f") -> str:
        """Such as ``1.53 (1.49…1.60)``."""
        return f"{self.value:{form}} ({self.low:{form}}…{self.high:{form}})"


def percentile_ms(row: Mapping[str, Any], way: str, percent: float) -> float:
    """A percentile of a way's latency in one round of :func:`in_turns`, in milliseconds."""
    return 1e3 * float(np.percentile(row["seconds"][way], percent))


def cpu_s_per_1000(row: Mapping[str, Any], of: str) -> float:
    """CPU seconds that a window used for 1,000 answers; of: ``client_cpu_s`` or ``server_cpu_s``."""
    return 1e3 * float(row[of]) / int(row["answered"])
