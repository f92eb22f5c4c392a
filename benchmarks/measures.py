"""What a result of each command holds that an old and a new one can be compared by.

Samples of a measure are whole repeats (windows, processes, rounds), never single calls: calls of one repeat resemble each
other, and their number would make any difference look sure. Where a command has one window, a measure has one value.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import wraps
from typing import Any

import numpy as np

from benchmarks.beside import LATENCY
from benchmarks.ramp import kept_rates

MARGIN, TAIL_MARGIN = 0.3, 0.5
"""By how much two single windows of one thing differ: nine of ten pairs of windows by less, in the results of overhead, bls and
perf-analyzer (rates), and of batching (99th percentiles)."""
OFFLINE = "offline"
"""The workload of peers whose texts are handed over together."""

Content = Mapping[str, Any]


@dataclass(frozen=True)
class Measure:
    """Repeats of one figure. higher_is_better: as for texts a second; otherwise lower is, as for milliseconds.

    margin: part by which the figure of a single window may differ by chance.
    """

    values: tuple[float, ...]
    higher_is_better: bool
    margin: float = MARGIN


Sample = tuple[str, bool, float]
"""A measure's name, whether higher is better, and a repeat of it."""
Reader = Callable[[Content], dict[str, Measure]]


def _measures(read: Callable[[Content], Iterable[Sample]]) -> Reader:
    """Joins the repeats of each measure, in the order of the file."""

    @wraps(read)
    def measures(content: Content) -> dict[str, Measure]:
        found: dict[str, Measure] = {}
        for name, better, value in read(content):
            earlier = found[name].values if name in found else ()
            found[name] = Measure((*earlier, value), better, TAIL_MARGIN if "p99" in name else MARGIN)
        return found

    return measures


def _p50_ms(seconds: Any) -> float:  # noqa: ANN401  # what JSON holds
    return 1e3 * float(np.median(seconds))


@_measures
def _throughput(content: Content) -> Iterable[Sample]:
    for row in content["rows"]:
        yield f"{row['engine']}, texts/s", True, row["texts"] / row["seconds"]


@_measures
def _edge(content: Content) -> Iterable[Sample]:
    for run in content["runs"]:
        yield "open, s", False, run["open_s"]
        yield "memory, MB", False, run["rss_bytes"] / 1e6
        yield "p50, ms", False, _p50_ms(run["seconds"])
        yield "p99, ms", False, 1e3 * float(np.percentile(run["seconds"], 99))


@_measures
def _latency(content: Content) -> Iterable[Sample]:
    for row in content["samples"]:
        for turn in row["rounds_s"]:
            yield f"{row['engine']}, {row['batch']} {row['workload']}, p50 ms", False, _p50_ms(turn)


@_measures
def _beside(content: Content) -> Iterable[Sample]:
    """Of overhead and bls, whose rows are alike."""
    for row in content["rows"]:
        if row["kind"] == LATENCY:
            for way, seconds in row["seconds"].items():
                yield f"{row['engine']}, {way}, p50 ms", False, _p50_ms(seconds)
            continue
        name = f"{row['engine']}, {row['way']}"
        yield f"{name}, texts/s", True, row["answered"] / row["seconds"]
        cpu_s = row["client_cpu_s"] + row["server_cpu_s"]
        yield f"{name}, CPU s for 1,000", False, 1e3 * cpu_s / row["answered"]


@_measures
def _load(content: Content) -> Iterable[Sample]:
    """A window each. The rate that just keeps the objective lies between two that were tried, and both are values of it."""
    for row in content["rows"]:
        if row["loop"] == "closed":
            name = f"{row['server']}, {row['protocol']}, {row['clients']} clients"
            yield f"{name}, answers/s", True, row["answers_per_s"]
            if row["latency_ms"]["p99"] is not None:
                yield f"{name}, p99 ms", False, row["latency_ms"]["p99"]
    for route, kept in kept_rates(content["rows"]).items():
        for rate in (kept.rate or 0.0, kept.broke):
            if rate is not None:
                yield f"{', '.join(route)}, rate that keeps the objective, requests/s", True, rate


@_measures
def _scale(content: Content) -> Iterable[Sample]:
    for row in content["rows"]:
        samples_ms, queries = row["samples_ms"], row["queries"]
        for start in range(0, len(samples_ms), queries):  # a round
            yield f"{row['items']:,} items, {row['way']}, p50 ms", False, float(np.median(samples_ms[start : start + queries]))


@_measures
def _roofline(content: Content) -> Iterable[Sample]:
    """One window, whose calls follow each other."""
    for row in content["rows"]:
        yield f"{row['engine']}, GFLOP/s", True, row["gflops"]


@_measures
def _startup(content: Content) -> Iterable[Sample]:
    for row in content["rows"]:
        yield f"{row['way']}, {row['engine']}, first answer, s", False, row["seconds"]
        yield f"{row['way']}, {row['engine']}, memory, MB", False, row["memory_bytes"] / 1e6


@_measures
def _peers(content: Content) -> Iterable[Sample]:
    for row in content["rows"]:
        name, seconds = f"{row['peer']}, {row['workload']}", float(np.median(row["total_s"]))
        if row["workload"] == OFFLINE:
            yield f"{name}, texts/s", True, row["texts"] / seconds
        else:
            yield f"{name}, p50 ms", False, 1e3 * seconds


READERS: Mapping[str, Reader] = {
    "throughput": _throughput,
    "edge": _edge,
    "latency": _latency,
    "overhead": _beside,
    "bls": _beside,
    "load": _load,
    "scale": _scale,
    "roofline": _roofline,
    "startup": _startup,
    "peers": _peers,
}
"""Command → its measures, as its JSON holds them."""
