"""What a scenario found: every call of it counted, answers held against known right ones."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import numpy as np

SLACK_MS = 50.0
"""What a call may take beyond its deadline."""


@dataclass(frozen=True)
class Outcome:
    """One scenario. An answer is wrong where it is not what the same bundle answers undisturbed.

    calls: how many there were. wrong: wrong answers. refused: typed errors (BertrecError) by name. untyped: any others.
    by_edge: answers by the fallback. with_fallback: then no call may be refused either. late_ms: the 99.9th percentile of what a
    call took beyond its deadline, negative where it took less; None where no call had one. next_by: who answered the first call
    after the fault. skipped: why the scenario could not run here.
    """

    name: str
    what: str
    calls: int = 0
    wrong: int = 0
    untyped: int = 0
    refused: dict[str, int] = field(default_factory=dict)
    by_edge: int = 0
    with_fallback: bool = True
    late_ms: float | None = None
    next_by: str | None = None
    seconds: float = 0.0
    note: str = ""
    broken: tuple[str, ...] = ()
    skipped: str | None = None

    @property
    def lost(self) -> int:
        """Calls that ended without an answer although there was a fallback."""
        return sum(self.refused.values()) if self.with_fallback else 0

    @property
    def complaints(self) -> list[str]:
        """What was not as it should be."""
        counted = {"wrong answers": self.wrong, "untyped errors": self.untyped, "lost calls": self.lost}
        found = [f"{count} {what}" for what, count in counted.items() if count]
        if self.skipped is None and self.next_by is None:
            found.append("the next call was not answered")
        if self.late_ms is not None and self.late_ms > SLACK_MS:
            found.append(f"p99.9 is {self.late_ms:.0f} ms beyond the deadline, accepted are {SLACK_MS:.0f}")
        return [*found, *self.broken]


def lateness(late_ms: float | None) -> str:
    """As it is shown: by how much a deadline was passed; how far before it a call ended is nobody's concern."""
    return "–" if late_ms is None else "within" if late_ms <= 0 else f"+{late_ms:.0f} ms"


def row_of(outcome: Outcome, *, command: str, commit: str) -> dict[str, Any]:
    """What the result keeps of a scenario: also what follows, and which command measured it at which commit."""
    follows = {"lost": outcome.lost, "complaints": outcome.complaints}
    return {**asdict(outcome), **follows, "command": command, "commit": commit}


def outcome_of(row: Mapping[str, Any]) -> Outcome:
    """What a row of the result says."""
    values = {one.name: row[one.name] for one in fields(Outcome)}
    return Outcome(**{**values, "broken": tuple(values["broken"])})


class Count:
    """Counts the calls of one scenario. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.calls = self.wrong = self.untyped = self.by_edge = 0
        self.refused: Counter[str] = Counter()
        self._beyond_s: list[float] = []

    def add(
        self, *, beyond_s: float, wrong: bool = False, by_edge: bool = False, refused: str = "", untyped: bool = False
    ) -> None:
        """One call that ended ``beyond_s`` after its deadline (before it: negative)."""
        with self._lock:
            self.calls += 1
            self.wrong += wrong
            self.by_edge += by_edge
            self.untyped += untyped
            self._beyond_s.append(beyond_s)
            if refused:
                self.refused[refused] += 1

    @property
    def late_ms(self) -> float | None:
        """The 99.9th percentile of the time beyond the deadline; None without calls."""
        return 1e3 * float(np.percentile(self._beyond_s, 99.9)) if self._beyond_s else None
