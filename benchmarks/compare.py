"""Two results of one benchmark, the old and the new: what changed beyond noise, and whether anything became worse.

Samples of a measure are whole repeats (windows, processes, rounds), never single calls: calls of one repeat resemble each
other, and their number would make any difference look sure.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from benchmarks.beside import LATENCY
from bertrec.errors import InvalidInput

RESAMPLES = 2_000
TOLERANCE = 0.05
"""A change of the median by less is not worth a word, however sure it is."""


@dataclass(frozen=True)
class Measure:
    """Repeats of one figure. higher_is_better: as for texts a second; otherwise lower is, as for milliseconds."""

    values: tuple[float, ...]
    higher_is_better: bool


@dataclass(frozen=True)
class Change:
    """new ÷ old of a measure's median, with its 95% interval over resampled repeats (percentile bootstrap)."""

    name: str
    old: float
    new: float
    ratio: float
    low: float
    high: float
    higher_is_better: bool

    @property
    def verdict(self) -> str:
        """``better``, ``worse``, or ``same`` where the interval holds 1 or the change is below ``TOLERANCE``."""
        if self.low <= 1.0 <= self.high or abs(self.ratio - 1.0) < TOLERANCE:
            return "same"
        return "better" if (self.ratio > 1.0) == self.higher_is_better else "worse"


def _throughput(content: Mapping[str, Any]) -> dict[str, Measure]:
    rates: dict[str, list[float]] = defaultdict(list)
    for row in content["rows"]:
        rates[f"{row['engine']}, texts/s"].append(row["texts"] / row["seconds"])
    return {name: Measure(tuple(values), higher_is_better=True) for name, values in rates.items()}


def _edge(content: Mapping[str, Any]) -> dict[str, Measure]:
    found = {
        "open, s": [run["open_s"] for run in content["runs"]],
        "memory, MB": [run["rss_bytes"] / 1e6 for run in content["runs"]],
        "p50, ms": [1e3 * float(np.median(run["seconds"])) for run in content["runs"]],
        "p99, ms": [1e3 * float(np.percentile(run["seconds"], 99)) for run in content["runs"]],
    }
    return {name: Measure(tuple(values), higher_is_better=False) for name, values in found.items()}


def _latency(content: Mapping[str, Any]) -> dict[str, Measure]:
    return {
        f"{row['engine']}, {row['batch']} {row['workload']}, p50 ms": Measure(
            tuple(1e3 * float(np.median(turn)) for turn in row["rounds_s"]), higher_is_better=False
        )
        for row in content["samples"]
    }


def _beside(content: Mapping[str, Any]) -> dict[str, Measure]:
    """Of overhead and bls, whose rows are alike."""
    found: dict[tuple[str, bool], list[float]] = defaultdict(list)
    for row in content["rows"]:
        if row["kind"] == LATENCY:
            for way, seconds in row["seconds"].items():
                found[f"{row['engine']}, {way}, p50 ms", False].append(1e3 * float(np.median(seconds)))
            continue
        name = f"{row['engine']}, {row['way']}"
        found[f"{name}, texts/s", True].append(row["answered"] / row["seconds"])
        cpu_s = row["client_cpu_s"] + row["server_cpu_s"]
        found[f"{name}, CPU s for 1,000", False].append(1e3 * cpu_s / row["answered"])
    return {name: Measure(tuple(values), higher_is_better=better) for (name, better), values in found.items()}


READERS: Mapping[str, Callable[[Mapping[str, Any]], dict[str, Measure]]] = {
    "throughput": _throughput,
    "edge": _edge,
    "latency": _latency,
    "overhead": _beside,
    "bls": _beside,
}
"""Command → its measures, as its JSON holds them."""


def compare_results(old: Path, new: Path) -> list[Change]:
    """The change of every measure that both files hold, in the order of the new one.

    Raises InvalidInput for a file that is no result, for results of different commands or machines, or without a common measure.
    """
    contents = [_read(path) for path in (old, new)]
    commands = [_command(path, content) for path, content in zip((old, new), contents, strict=True)]
    if commands[0] != commands[1]:
        raise InvalidInput(f"{old} is of {commands[0]!r} and {new} of {commands[1]!r}; compare two results of one command")
    machines = [(content["provenance"]["cpu"], content["provenance"]["cores"]) for content in contents]
    if machines[0] != machines[1]:
        raise InvalidInput(f"{old} was measured on {machines[0]} and {new} on {machines[1]}; measure both on one machine")
    before, after = (READERS[commands[0]](content) for content in contents)
    changes = [_change(name, before[name], measure) for name, measure in after.items() if name in before]
    if not changes:
        raise InvalidInput(f"{old} and {new} have no engine or measure in common")
    return changes


def _change(name: str, old: Measure, new: Measure) -> Change:
    random = np.random.default_rng(0)
    medians = [np.median(random.choice(np.asarray(one.values), (RESAMPLES, len(one.values))), axis=1) for one in (old, new)]
    low, high = np.percentile(medians[1] / medians[0], [2.5, 97.5])
    before, after = float(np.median(old.values)), float(np.median(new.values))
    return Change(name, before, after, after / before, float(low), float(high), new.higher_is_better)


def _read(path: Path) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        content["provenance"]["command"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InvalidInput(
            f"{path} is no result of a benchmark ({type(error).__name__}: {error}); accepted is what python -m benchmarks "
            f"{', '.join(READERS)} wrote with --output"
        ) from None
    return content


def _command(path: Path, content: Mapping[str, Any]) -> str:
    for name in READERS:
        if f"benchmarks {name}" in content["provenance"]["command"]:
            return name
    raise InvalidInput(f"{path} is of {content['provenance']['command']!r}; accepted are results of {', '.join(READERS)}")


def change_table(changes: Sequence[Change]) -> Table:
    """A row for each measure."""
    table = Table(title="new against old, medians of repeats", title_justify="left")
    for title in ("measure", "old", "new", "new ÷ old (95%)", ""):
        table.add_column(title, justify="left" if title in ("measure", "") else "right")
    for one in changes:
        ratio = f"{one.ratio:.3f} ({one.low:.3f}…{one.high:.3f})"
        table.add_row(one.name, f"{one.old:,.3f}", f"{one.new:,.3f}", ratio, one.verdict)
    return table
