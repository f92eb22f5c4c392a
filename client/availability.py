"""Whether the server is worth asking: the circuit breaker between a recommender and its server."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import TypeVar

from bertrec.errors import InvalidInput, Unavailable

Result = TypeVar("Result")
_logger = logging.getLogger(__name__)


class Availability:
    """Leaves a server alone for a while after it failed, then lets one call find out whether it is back. Thread-safe.

    (Nygard, *Release It!*, 2007, calls it a circuit breaker.) So an outage costs one call its timeout now and then, and not
    every call; and a server that comes back is not met by all callers at once.
    """

    def __init__(self, *, rest_s: float, clock: Callable[[], float]) -> None:
        """After a failure the server rests ``rest_s``, or as long as the failed call took where that is longer.

        So a server that hangs, where each probe costs a whole timeout, never takes more than half of one caller's time.
        """
        self._rest_s = rest_s
        self._clock = clock
        self._lock = threading.Lock()
        self._failure: str | None = None  # None: believed available
        self._rests_until = 0.0
        self._probing = False

    def ask(self, call: Callable[[], Result]) -> Result:
        """The result of ``call``. Raises Unavailable at once, with the last failure's message, while the server rests."""
        started = self._clock()
        probe = self._admit(started)
        try:
            result = call()
        except Unavailable as error:
            self._failed(str(error), started)
            raise
        except InvalidInput:  # the server is there, and has read the request
            self._answered()
            raise
        finally:
            if probe:
                self._probing = False
        self._answered()
        return result

    def _admit(self, now: float) -> bool:
        """Whether this call is the probe of a resting server. Raises Unavailable for the calls that must not ask."""
        with self._lock:
            if self._failure is None:
                return False
            if self._probing or now < self._rests_until:
                raise Unavailable(self._failure)
            self._probing = True
            return True

    def _failed(self, failure: str, started: float) -> None:
        with self._lock:
            now = self._clock()
            if self._failure is None:
                _logger.warning("the server is unavailable, the fallback takes over: %s", failure)
            self._failure = failure
            self._rests_until = now + max(self._rest_s, now - started)

    def _answered(self) -> None:
        with self._lock:
            if self._failure is not None:
                _logger.info("the server answers again")
            self._failure = None
