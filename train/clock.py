"""The time budget of one sitting of a training run, and of its fine-tuning."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

LATE = 0.02
"""Share of the steps by which fine-tuning may lag behind its time, at its beginning for instance, before the time counts."""


@dataclass
class Clock:
    """The time budget of a sitting. paused_s: seconds that were spent and are no part of the budget."""

    started: float
    max_minutes: float | None
    paused_s: float = 0.0

    @property
    def spent_s(self) -> float:
        """Seconds since the sitting began."""
        return time.monotonic() - self.started

    def deadline(self, share: float) -> float | None:
        """``time.monotonic()`` after a share of the budget; None without one."""
        return None if self.max_minutes is None else self.started + self.paused_s + 60.0 * self.max_minutes * share

    @contextmanager
    def paused(self) -> Iterator[None]:
        """What is done within has a budget of its own."""
        began = time.monotonic()
        yield
        self.paused_s += time.monotonic() - began


@dataclass(frozen=True)
class Budget:
    """The time of one sitting, begun when ``done``, a share of the steps, lay behind."""

    started: float
    deadline: float | None
    done: float

    def share(self, of_steps: float) -> float:
        """How much of fine-tuning lies behind: a share of the steps, or of the time where that runs out first; above 1: over."""
        if self.deadline is None:
            return of_steps
        elapsed = (time.monotonic() - self.started) / max(self.deadline - self.started, 1e-9)
        of_time = self.done + (1.0 - self.done) * elapsed
        return of_time if elapsed > 1.0 or of_time > of_steps + LATE else of_steps
