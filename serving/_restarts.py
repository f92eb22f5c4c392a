"""How often, and how soon, a server that died by itself is started again."""

from __future__ import annotations

MOST_RESTARTS = 5
"""In a row: a server that dies so often has a cause that no restart mends."""

FIRST_PAUSE_S = 0.5
"""Doubled for each further restart in a row, so that a server that cannot live does not fill the log."""

STEADY_S = 60.0
"""A server that lived so long is taken for sound, and its restarts are counted from the beginning."""


class Restarts:
    """Counts one server's restarts."""

    def __init__(self, most: int = MOST_RESTARTS) -> None:
        self._most = most
        self._made = 0

    @property
    def count(self) -> str:
        """Such as ``1 of 5``."""
        return f"{self._made} of {self._most}"

    def pause_s(self, lived_s: float) -> float | None:
        """How long to wait before the next start of a server that lived ``lived_s``; None where it is to stay dead."""
        if lived_s >= STEADY_S:
            self._made = 0
        if self._made == self._most:
            return None
        self._made += 1
        return float(FIRST_PAUSE_S * 2 ** (self._made - 1))
