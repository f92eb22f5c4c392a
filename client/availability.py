"""Whether a server is worth asking: the circuit breaker between a recommender and one server."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from enum import Enum

_logger = logging.getLogger(__name__)

LONGEST_REST_S = 60.0
"""Unless told to rest for longer: a clock that jumps forwards during an attempt must not make it one of hours."""


class State(str, Enum):
    """What a breaker believes of its server."""

    CLOSED = "closed"
    """Available: calls pass."""
    OPEN = "open"
    """It failed and rests: calls go elsewhere."""
    HALF_OPEN = "half-open"
    """It rested, and one call finds out whether it is back."""

    def __str__(self) -> str:
        return self.value


class Breaker:
    """Leaves a server alone for a while after it failed, then lets one call find out whether it is back. Thread-safe.

    (Nygard, *Release It!*, 2007, calls it a circuit breaker.) So an outage costs one call its timeout now and then, and not
    every call; and a server that comes back is not met by all callers at once.
    """

    def __init__(self, name: str, *, opens_after: int, rest_s: float, clock: Callable[[], float]) -> None:
        """Opens after ``opens_after`` failures in a row, or one that asking again cannot mend.

        The server then rests ``rest_s``, or as long as the failed attempt took where that is longer: so one that hangs, where
        each probe costs a whole timeout, hardly takes more than half of one caller's time; but at most LONGEST_REST_S. A clock
        that is set back ends the rest. ``name`` is for the log.
        """
        self._name = name
        self._opens_after = opens_after
        self._rest_s = rest_s
        self._clock = clock
        self._lock = threading.Lock()
        self._state = State.CLOSED
        self._failures = 0
        self._resting_s = 0.0
        self._rests_until = 0.0
        self._failure = ""

    @property
    def state(self) -> State:
        """As it is now; a server that has rested stays OPEN until a call probes it."""
        return self._state

    @property
    def failure(self) -> str:
        """What the server failed with last."""
        return self._failure

    @property
    def ready(self) -> bool:
        """Whether :meth:`admit` would let a call pass."""
        return self._state is State.CLOSED or (self._state is State.OPEN and self._has_rested())

    def admit(self) -> State | None:
        """CLOSED: ask. HALF_OPEN: ask once, this is the probe, and its end must be told. None: do not ask."""
        with self._lock:
            if self._state is State.CLOSED:
                return State.CLOSED
            if self._state is State.HALF_OPEN or not self._has_rested():
                return None
            self._state = State.HALF_OPEN
            return State.HALF_OPEN

    def failed(self, failure: str, *, started: float, for_good: bool) -> None:
        """An attempt that began at ``started`` failed. ``for_good``: in a way that a retry will not mend."""
        with self._lock:
            now = self._clock()
            self._failures += 1
            self._failure = failure
            if self._state is State.CLOSED:
                if not for_good and self._failures < self._opens_after:
                    return
                _logger.warning("%s is unavailable and rests: %s", self._name, failure)
            self._state = State.OPEN
            self._resting_s = max(self._rest_s, min(now - started, LONGEST_REST_S))
            self._rests_until = now + self._resting_s

    def answered(self) -> None:
        """The server answered, be it that it refused the input."""
        with self._lock:
            if self._state is not State.CLOSED:
                _logger.info("%s answers again", self._name)
            self._state = State.CLOSED
            self._failures = 0

    def given_up(self) -> None:
        """An attempt ended without telling anything of the server: it was cancelled. Another may probe."""
        with self._lock:
            if self._state is State.HALF_OPEN:
                self._state = State.OPEN

    def _has_rested(self) -> bool:
        left_s = self._rests_until - self._clock()
        return left_s <= 0 or left_s > 2 * self._resting_s  # so much was never to rest: the clock was set back
