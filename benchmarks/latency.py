"""Latency and throughput of each engine, in-process: text in, ranked items out, tokenisation included.

Engines take turns within a round, so that a slow spell of the machine hits all of them; the same texts and the same thread
budget for all. Medians over rounds with their spread; every sample goes into the JSON.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from bertrec.answers import DEFAULT_K, Options
from bertrec.bundle import Bundle
from bertrec.errors import InvalidInput
from client.backends.edge import EdgeBackend
from train.clothing import load_clothing
from train.data import split_interactions
from train.progress import progress

TIMEOUT_S = 60.0
WISH_WORDS = 12
"""A wish is the beginning of a review: so many words."""


@dataclass(frozen=True)
class Workload:
    """What is asked: ``texts`` in requests of ``batch``."""

    name: str
    batch: int
    texts: tuple[str, ...]


@dataclass
class Samples:
    """Seconds of each request of one engine under one workload, round by round."""

    engine: str
    workload: str
    batch: int
    rounds_s: list[list[float]] = field(default_factory=list)

    def percentile_ms(self, percent: float) -> float:
        """A percentile of the latency over all samples, in milliseconds."""
        return float(np.percentile([sample for row in self.rounds_s for sample in row], percent)) * 1e3

    @property
    def texts_per_second(self) -> tuple[float, float, float]:
        """Throughput of the slowest, the median and the fastest round."""
        rates = sorted(len(row) * self.batch / sum(row) for row in self.rounds_s)
        return rates[0], float(np.median(rates)), rates[-1]


@dataclass(frozen=True)
class LatencySettings:
    """rounds: turns that each engine gets. texts: how many are asked for a turn. threads: intra-op threads of every engine."""

    rounds: int = 5
    texts: int = 64
    threads: int = 0
    warm_up: int = 2

    def __post_init__(self) -> None:
        for name in ("rounds", "texts"):
            if getattr(self, name) < 1:
                raise InvalidInput(f"{name} is {getattr(self, name)}; accepted is 1 or more")


def workloads(reviews: Sequence[str], settings: LatencySettings) -> list[Workload]:
    """Short wishes and whole reviews one at a time, and reviews 32 at a time, for throughput."""
    chosen = tuple(reviews[: settings.texts])
    wishes = tuple(" ".join(review.split()[:WISH_WORDS]) for review in chosen)
    return [Workload("wish", 1, wishes), Workload("review", 1, chosen), Workload("reviews", 32, chosen)]


def held_out_reviews() -> list[str]:
    """The test texts of the bundled reviews, in the order of their split."""
    dataset = load_clothing()
    return [dataset.interactions[row].text for row in split_interactions(dataset, seed=0).test]


def measure_latency(bundle: Bundle, reviews: Sequence[str], settings: LatencySettings) -> list[Samples]:
    """Time every encoder engine of the bundle under every workload."""
    names = bundle.ort_engines
    backends = {name: EdgeBackend(bundle.folder, engine=name, threads=settings.threads) for name in names}
    asked = workloads(reviews, settings)
    samples = {(name, work.name): Samples(name, work.name, work.batch) for work in asked for name in names}
    with progress("measuring latency", (settings.rounds + 1) * len(samples)) as advance:
        for turn in range(-1, settings.rounds):  # the first turn warms up, and is not kept
            for work in asked:
                for name, backend in backends.items():
                    seconds = _time(backend, work, settings.warm_up if turn < 0 else len(work.texts))
                    if turn >= 0:
                        samples[name, work.name].rounds_s.append(seconds)
                    advance()
    return list(samples.values())


def read_texts(path: Path) -> list[str]:
    """One text a line. Raises InvalidInput where there is none."""
    try:
        texts = [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(f"--texts {path} cannot be read: {error}; accepted is a UTF-8 file with one text a line") from None
    if not texts:
        raise InvalidInput(f"--texts {path} holds no text; accepted is one text a line")
    return texts


def _time(backend: EdgeBackend, work: Workload, texts: int) -> list[float]:
    """Seconds of each request."""
    seconds = []
    for start in range(0, min(texts, len(work.texts)), work.batch):
        part = work.texts[start : start + work.batch]
        began = time.perf_counter()
        backend.answer(part, Options(k=DEFAULT_K), timeout_s=TIMEOUT_S)
        seconds.append(time.perf_counter() - began)
    return seconds
