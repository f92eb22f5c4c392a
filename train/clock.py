"""The time budget of one sitting of a training run."""

from __future__ import annotations

import time
from dataclasses import dataclass


@dataclass(frozen=True)
class Clock:
    """The time budget of a sitting."""

    started: float
    max_minutes: float | None

    @property
    def spent_s(self) -> float:
        """Seconds since the sitting began."""
        return time.monotonic() - self.started

    def deadline(self, share: float) -> float | None:
        """``time.monotonic()`` after a share of the budget; None without one."""
        return None if self.max_minutes is None else self.started + 60.0 * self.max_minutes * share
