"""How fast this machine's memory is: the bound that a scan over a catalogue can be held against."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

BYTES = 256 * 2**20
"""Of each array: far more than any cache holds."""
REPEATS = 11


@dataclass(frozen=True)
class Bandwidth:
    """GB/s (10⁹ bytes), medians and quartiles over ``repeats``.

    read: one array is read. triad: a = b + 3·c, counted as STREAM does (McCalpin, 1995), each array once for each pass; numpy
    needs two passes, which read three arrays and write two.
    """

    threads: int
    repeats: int
    read: tuple[float, float, float]
    triad: tuple[float, float, float]

    @property
    def best(self) -> float:
        """What the memory gave at best, of the medians: the stricter bound to be held against."""
        return max(self.read[1], self.triad[1])

    def against(self, gb_per_s: float) -> dict[str, float]:
        """What a scan reads a second, beside a plain read, which is all that it does, and beside the memory's best."""
        return {"gb_per_s": gb_per_s, "of_read": gb_per_s / self.read[1], "of_bandwidth": gb_per_s / self.best}


def written_against(row: Mapping[str, Any]) -> str | None:
    """Such as ``28.9 (84%, 64%)``, of a row that has :meth:`Bandwidth.against`; None for one that has not."""
    return "{gb_per_s:.1f} ({of_read:.0%}, {of_bandwidth:.0%})".format(**row) if "of_read" in row else None


def measure_bandwidth(threads: int = 0, *, size_bytes: int = BYTES, repeats: int = REPEATS) -> Bandwidth:
    """Measure with ``threads`` (0: one for each core), each on a part of its own."""
    threads = threads or len(os.sched_getaffinity(0))
    count = size_bytes // 4 // threads
    parts = [tuple(np.full(count, one, np.float32) for one in (0.0, 1.0, 2.0)) for _ in range(threads)]

    def read(part: tuple[NDArray[np.float32], ...]) -> None:
        np.dot(part[1], part[1])

    def triad(part: tuple[NDArray[np.float32], ...]) -> None:
        np.multiply(part[2], np.float32(3.0), out=part[0])
        np.add(part[0], part[1], out=part[0])

    with threadpool_limits(1), ThreadPoolExecutor(threads) as pool:

        def rates(work: Callable[[tuple[NDArray[np.float32], ...]], None], arrays: int) -> tuple[float, float, float]:
            seconds = []
            for turn in range(-2, repeats):  # the first two warm up
                began = time.perf_counter()
                list(pool.map(work, parts))
                if turn >= 0:
                    seconds.append(time.perf_counter() - began)
            low, median, high = np.percentile(arrays * 4 * count * threads / 1e9 / np.asarray(seconds), [25, 50, 75]).tolist()
            return low, median, high

        return Bandwidth(threads, repeats, rates(read, 1), rates(triad, 5))
