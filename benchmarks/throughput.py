"""Offline throughput: how many texts a second each encoder engine reads, over the real distribution of lengths.

From text to interest vector, tokenisation included; batches of 32 texts of similar length, as for embedding a whole corpus.
Engines take turns, window by window, and all have the same texts and threads. Ratios are taken within a round.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from rich.table import Table

from benchmarks.record import Record
from bertrec.bundle import REFERENCE_ENGINE, Bundle
from bertrec.checks import number
from bertrec.errors import InvalidInput
from bertrec.session_options import Device
from bertrec.text import clean
from export.timing import EngineReader
from train.progress import progress

BATCH = 32
SAMPLED = 2_048
"""Resamples of the rounds, for the interval of a ratio's median."""


@dataclass(frozen=True)
class ThroughputSettings:
    """seconds: of each window. rounds: windows that each engine gets. threads: of every engine; 0 is one for each core.

    engines: none for all that ONNX Runtime runs. device: cpu, or gpu with onnxruntime-gpu.
    Raises InvalidInput for what makes no measurement.
    """

    seconds: float = 20.0
    rounds: int = 3
    threads: int = 0
    engines: tuple[str, ...] = ()
    seed: int = 0
    device: str = Device.CPU.value

    def __post_init__(self) -> None:
        number("seconds", self.seconds, 0.001, 1e6)
        number("rounds", self.rounds, 1, 1_000)
        number("threads", self.threads, 0, 256)


@dataclass(frozen=True)
class Window:
    """What one window read, until the batch in which its time was over. cpu_seconds: of all threads of this process."""

    texts: int
    seconds: float
    cpu_seconds: float

    @property
    def rate(self) -> float:
        """Texts a second."""
        return self.texts / self.seconds

    @property
    def cores_used(self) -> float:
        """How many cores were busy on average: that the threads asked for were there, and no more."""
        return self.cpu_seconds / self.seconds


def measure_throughput(bundle: Bundle, texts: Sequence[str], settings: ThroughputSettings, record: Record) -> None:
    """A row of ``record`` for each window. Raises InvalidInput for an engine that the bundle has not, or without texts."""
    names = settings.engines or tuple(bundle.ort_engines)
    if unknown := set(names) - set(bundle.ort_engines):
        raise InvalidInput(f"engines names {', '.join(sorted(unknown))}; accepted are {', '.join(bundle.ort_engines)}")
    if not texts:
        raise InvalidInput("there are no texts; accepted is at least one")
    threads = settings.threads or len(os.sched_getaffinity(0))
    together = sorted_batches([clean(text) for text in texts], seed=settings.seed)
    readers = {name: EngineReader(bundle, name, threads, device=settings.device) for name in names}
    with progress("measuring throughput", (settings.rounds + 1) * len(names)) as advance:
        for reader in readers.values():
            window(reader.read, together, min(2.0, settings.seconds))
            advance()
        for turn in range(settings.rounds):
            for name in reversed(names) if turn % 2 else names:
                found = window(readers[name].read, together, settings.seconds)
                ran = {"threads": threads, "provider": readers[name].provider, "cores_used": found.cores_used}
                record.add({"engine": name, "round": turn, **ran, **asdict(found)})
                advance(note=f"{name}: {found.rate:.0f} texts/s")


def sorted_batches(texts: Sequence[str], *, seed: int) -> list[list[str]]:
    """Batches of texts of similar length, in an order that has no trend, so that every window sees short and long ones."""
    by_length = sorted(texts, key=len)
    together = [by_length[start : start + BATCH] for start in range(0, len(by_length), BATCH)]
    return [together[row] for row in np.random.default_rng(seed).permutation(len(together)).tolist()]


def window(read: Callable[[Sequence[str]], None], together: Sequence[Sequence[str]], seconds: float) -> Window:
    """Read batch after batch from the first on, over and over, until ``seconds`` have passed and at least one was read."""
    texts, began, cpu_began = 0, time.perf_counter(), time.process_time()
    while True:
        for batch in together:
            read(batch)
            texts += len(batch)
            passed = time.perf_counter() - began
            if passed >= seconds:
                return Window(texts, passed, time.process_time() - cpu_began)


def summary(rows: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, float | list[float] | None]]:
    """Engine → texts a second (slowest, median, fastest), and its ratio to fp32: median over rounds and a 95% interval of it."""
    rates: dict[str, dict[int, float]] = {}
    for row in rows:
        rates.setdefault(row["engine"], {})[row["round"]] = row["texts"] / row["seconds"]
    found: dict[str, dict[str, float | list[float] | None]] = {}
    for engine, mine in rates.items():
        reference = rates.get(REFERENCE_ENGINE, {})
        ratios = [rate / reference[turn] for turn, rate in mine.items() if turn in reference]
        found[engine] = {
            "texts_per_s": [min(mine.values()), float(np.median(list(mine.values()))), max(mine.values())],
            "ratio": float(np.median(ratios)) if ratios else None,
            "ratio_interval": interval(ratios) if ratios else None,
        }
    return found


def interval(values: Sequence[float], *, seed: int = 0) -> list[float]:
    """A 95% interval of the median, by bootstrap (Efron, 1979). Of few values it is their range, and no more is known."""
    drawn = np.random.default_rng(seed).choice(np.asarray(values), (SAMPLED, len(values)))
    low, high = np.percentile(np.median(drawn, axis=1), [2.5, 97.5]).tolist()
    return [low, high]


def throughput_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """One line for each engine."""
    table = Table(title=f"offline: texts read a second, in batches of {BATCH} of similar length", title_justify="left")
    for title in ("engine", "windows", "texts/s (slowest–fastest)", "times fp32 (95%)"):
        table.add_column(title, justify="left" if title == "engine" else "right")
    for engine, found in summary(rows).items():
        low, median, high = found["texts_per_s"]  # type: ignore[misc]  # a list of three
        ratio, bounds = found["ratio"], found["ratio_interval"]
        times = "–" if not isinstance(bounds, list) else f"{ratio:.2f} ({bounds[0]:.2f}–{bounds[1]:.2f})"
        windows = sum(row["engine"] == engine for row in rows)
        table.add_row(engine, str(windows), f"{median:.1f} ({low:.1f}–{high:.1f})", times)
    return table
