"""Generates load: closed loop (each client waits for its answer) and open loop (requests come when they come).

In the open loop a request's latency counts from when it was due, not from when it could be sent, so a server that stalls is
charged for everybody who would have come meanwhile (coordinated omission: Gil Tene, "How NOT to Measure Latency", 2015).
Latencies are kept in an HdrHistogram: each to three digits, however many there are.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from hdrh.histogram import HdrHistogram

from bertrec.answers import DEFAULT_K, Options
from bertrec.errors import BertrecError
from bertrec.questions import Question
from client.backends import AsyncBackend

HIGHEST_US = 120_000_000
DIGITS = 3
PERCENTILES = (50.0, 90.0, 99.0, 99.9)


def histogram() -> HdrHistogram:
    """An empty one, of microseconds from 1 µs to two minutes."""
    return HdrHistogram(1, HIGHEST_US, DIGITS)


@dataclass
class Driven:
    """What came of one load.

    elapsed_s: from the first request to the last answer. latencies_us: of those answered. errors: class of error → how many.
    lag_us: how much later than due the generator sent a request; where it nears the latencies, the generator is too slow.
    engines: that answered, as the answers say.
    """

    elapsed_s: float = 0.0
    latencies_us: HdrHistogram = field(default_factory=histogram)
    lag_us: HdrHistogram = field(default_factory=histogram)
    errors: Counter[str] = field(default_factory=Counter)
    engines: set[str] = field(default_factory=set)

    @property
    def answered(self) -> int:
        """How many requests were answered."""
        return int(self.latencies_us.get_total_count())

    def percentile_ms(self, percent: float) -> float | None:
        """A percentile of the latency of what was answered, in milliseconds; None where nothing was."""
        return self.latencies_us.get_value_at_percentile(percent) / 1e3 if self.answered else None


@dataclass(frozen=True)
class Traffic:
    """Who is asked what. texts: asked over and over, in this order. timeout_s: after so long a request is given up."""

    backend: AsyncBackend
    texts: Sequence[str]
    timeout_s: float
    question: Question = Options(k=DEFAULT_K)

    async def ask(self, text: str, due_s: float, driven: Driven) -> None:
        """One request, whose latency counts from ``due_s`` (time.perf_counter)."""
        driven.lag_us.record_value(_microseconds(time.perf_counter() - due_s))
        try:
            answers = await self.backend.answer([text], self.question, timeout_s=self.timeout_s)
        except BertrecError as error:
            driven.errors[type(error).__name__] += 1
        else:
            driven.latencies_us.record_value(_microseconds(time.perf_counter() - due_s))
            driven.engines.update(one.engine for one in answers)


async def closed_loop(traffic: Traffic, clients: int, seconds: float) -> Driven:
    """``clients`` each ask again as soon as they are answered, until ``seconds`` have passed."""
    driven, texts = Driven(), itertools.cycle(traffic.texts)
    began = time.perf_counter()

    async def client() -> None:
        while (now := time.perf_counter()) - began < seconds:
            await traffic.ask(next(texts), now, driven)

    await asyncio.gather(*(client() for _ in range(clients)))
    driven.elapsed_s = time.perf_counter() - began
    return driven


async def open_loop(traffic: Traffic, rate: float, seconds: float, *, seed: int) -> Driven:
    """Requests at ``rate`` a second, as independent people send them (a Poisson process), whatever became of earlier ones."""
    driven, texts = Driven(), itertools.cycle(traffic.texts)
    began = time.perf_counter()
    async with asyncio.TaskGroup() as requests:
        for due in arrivals(rate, seconds, seed=seed):
            await asyncio.sleep(max(0.0, began + due - time.perf_counter()))
            requests.create_task(traffic.ask(next(texts), began + due, driven))
    driven.elapsed_s = time.perf_counter() - began
    return driven


def arrivals(rate: float, seconds: float, *, seed: int) -> Iterator[float]:
    """Seconds from the start at which requests come: exponential gaps, ``rate`` a second on average."""
    gaps, now = random.Random(seed), 0.0
    while (now := now + gaps.expovariate(rate)) < seconds:
        yield now


def _microseconds(seconds: float) -> int:
    return min(HIGHEST_US, max(1, round(seconds * 1e6)))
