"""How long the edge will take, from how long it took: what a call's servers leave of its deadline."""

from __future__ import annotations

import threading

LEAST_S = 0.05
"""What is left at least, and before the first answer: a server that hangs fails all calls under way at once, and the edge
computes for as many as there are cores. Measured with 16 callers on 2 cores: the last has its answer 60 ms later."""

MOST_SHARE = 0.25
"""Of a deadline: an edge that is slower than that is late, and the servers are no worse off for it."""


class EdgeTime:
    """What a call takes by the edge, with the wait for its turn, of late. Thread-safe.

    The mean and the mean deviation move by 1/8 and 1/4 towards each answer, and four deviations more than the mean are expected:
    TCP's estimate of when to give up (Jacobson, *Congestion avoidance and control*, SIGCOMM 1988; RFC 6298).
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._mean_s: float | None = None
        self._deviation_s = 0.0

    def took(self, seconds: float) -> None:
        """The edge has answered a call."""
        with self._lock:
            if self._mean_s is None:
                self._mean_s, self._deviation_s = seconds, seconds / 2
                return
            error_s = seconds - self._mean_s
            self._deviation_s += (abs(error_s) - self._deviation_s) / 4
            self._mean_s += error_s / 8

    def expected_s(self, timeout_s: float) -> float:
        """Of a call with a deadline of ``timeout_s``, the part at its end that the edge is left."""
        with self._lock:
            expected_s = (self._mean_s or 0.0) + 4 * self._deviation_s
        return min(max(expected_s, LEAST_S), MOST_SHARE * timeout_s)
