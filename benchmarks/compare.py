"""Two results of one benchmark, the old and the new: what changed beyond noise, and whether anything became worse."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from benchmarks.measures import READERS, Measure
from bertrec.errors import InvalidInput

RESAMPLES = 2_000
TOLERANCE = 0.05
"""A change of the median by less is not worth a word, however sure it is."""
NOTHING = 1e-9
"""Stands for 0, as of answers a second, so that a ratio to it is a number."""


@dataclass(frozen=True)
class Change:
    """new ÷ old of a measure's median, with its 95% interval over resampled repeats (percentile bootstrap).

    margin: by what the interval is wider either way, since a file holds a single window of it; 0 where both have repeats.
    """

    name: str
    old: float
    new: float
    ratio: float
    low: float
    high: float
    higher_is_better: bool
    margin: float

    @property
    def verdict(self) -> str:
        """``better``, ``worse``, or ``same`` where the interval holds 1 or the change is below ``TOLERANCE``."""
        if self.low <= 1.0 <= self.high or abs(self.ratio - 1.0) < TOLERANCE:
            return "same"
        return "better" if (self.ratio > 1.0) == self.higher_is_better else "worse"


@dataclass(frozen=True)
class Comparison:
    """What two files say. gone: measures that only the old one has. notes: what else differs, though both can be compared."""

    changes: tuple[Change, ...]
    gone: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def is_worse(self) -> bool:
        """Whether something became worse, or can no longer be told."""
        return bool(self.gone) or any(change.verdict == "worse" for change in self.changes)


def compare_results(old: Path, new: Path) -> Comparison:
    """The change of every measure that both files hold, in the order of the new one.

    Raises InvalidInput for a file that is no result, for results of different commands, machines or settings, or without a common
    measure.
    """
    contents = [_read(path) for path in (old, new)]
    commands = [_command(path, content) for path, content in zip((old, new), contents, strict=True)]
    if commands[0] != commands[1]:
        raise InvalidInput(f"{old} is of {commands[0]!r} and {new} of {commands[1]!r}; compare two results of one command")
    machines = [_machine(content) for content in contents]
    if machines[0] != machines[1]:
        raise InvalidInput(f"{old} was measured on {machines[0]} and {new} on {machines[1]}; measure both on one machine")
    given, taken = (content.get("settings", {}) for content in contents)
    if differing := [f"{name} {given[name]} and {taken[name]}" for name in given if name in taken and given[name] != taken[name]]:
        raise InvalidInput(f"{old} and {new} have different settings: {'; '.join(differing)}; measure both with the same")
    before, after = (READERS[commands[0]](content) for content in contents)
    changes = tuple(_change(name, before[name], measure) for name, measure in after.items() if name in before)
    if not changes:
        raise InvalidInput(f"{old} and {new} have no engine or measure in common")
    return Comparison(changes, tuple(name for name in before if name not in after), _notes(old, new, *contents))


def _machine(content: Mapping[str, Any]) -> tuple[Any, ...]:
    """Whose figures they are: flags decide which matrix kernels run on processors of one name."""
    origin = content["provenance"]
    return origin["cpu"], origin["cores"], " ".join(origin.get("cpu_flags", ()))


def _notes(old: Path, new: Path, before: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[str, ...]:
    incomplete = [f"{path} is not complete" for path, one in ((old, before), (new, after)) if not one.get("complete", True)]
    bundles = [one.get("bundle", one.get("bundles")) for one in (before, after)]
    differing = [f"different bundles: {bundles[0]} and {bundles[1]}"] if bundles[0] != bundles[1] else []
    given, taken = (one.get("settings", {}) for one in (before, after))
    lone = [f"only one of the two has the setting {name}" for name in [*given, *taken] if (name in given) != (name in taken)]
    return (*incomplete, *differing, *lone)


def _change(name: str, old: Measure, new: Measure) -> Change:
    random = np.random.default_rng(0)
    drawn = [np.median(random.choice(np.asarray(one.values), (RESAMPLES, len(one.values))), axis=1) for one in (old, new)]
    low, high = np.percentile(np.maximum(drawn[1], NOTHING) / np.maximum(drawn[0], NOTHING), [2.5, 97.5])
    margin = new.margin if min(len(old.values), len(new.values)) == 1 else 0.0
    before, after = float(np.median(old.values)), float(np.median(new.values))
    ratio = max(after, NOTHING) / max(before, NOTHING)
    low, high = float(low) / (1.0 + margin), float(high) * (1.0 + margin)
    return Change(name, before, after, ratio, low, high, new.higher_is_better, margin)


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


def change_table(comparison: Comparison) -> Table:
    """A row for each measure."""
    table = Table(title="new against old, medians of repeats", title_justify="left")
    for title in ("measure", "old", "new", "new ÷ old (95%)", ""):
        table.add_column(title, justify="left" if title in ("measure", "") else "right")
    for one in comparison.changes:
        ratio = f"{one.ratio:.3f} ({one.low:.3f}…{one.high:.3f})"
        judged = f"{one.verdict} (a single window, to {one.margin:.0%})" if one.margin else one.verdict
        table.add_row(one.name, f"{one.old:,.3f}", f"{one.new:,.3f}", ratio, judged)
    for name in comparison.gone:
        table.add_row(name, "", "", "", "missing in the new one")
    return table
