"""When a failed attempt is followed by another: tenacity's loop, with our deadline, our budget and no sleeping of its own."""

from __future__ import annotations

import threading
from collections.abc import Callable

from tenacity import BaseRetrying, RetryCallState, Retrying, retry_if_exception_type, wait_random_exponential

from bertrec.errors import DeadlineExceeded, Overloaded, Transient

from .counters import Tally
from .settings import Retries

SHORTEST_ATTEMPT_S = 0.005
"""No attempt is begun with less time left: it could only fail."""


class Budget:
    """A bucket of tokens that pays for retries and hedges. Thread-safe."""

    def __init__(self, retries: Retries, tally: Tally) -> None:
        self._burst, self._ratio = float(retries.budget_burst), float(retries.budget_ratio)
        self._tokens = self._burst
        self._tally = tally
        self._lock = threading.Lock()

    def earn(self) -> None:
        """A call has come."""
        with self._lock:
            self._tokens = min(self._burst, self._tokens + self._ratio)

    def pay(self) -> bool:
        """Whether one more request is paid for."""
        with self._lock:
            paid = self._tokens >= 1
            self._tokens -= paid
        if not paid:
            self._tally.add("unpaid")
        return paid


def retrying(
    retries: Retries,
    budget: Budget,
    *,
    until: float,
    clock: Callable[[], float],
    elsewhere: Callable[[], bool],
    anywhere: Callable[[], bool],
    pause: Callable[[float], None],
) -> BaseRetrying:
    """The attempts of one batch. Iterate over it, and make each attempt inside the context that it gives.

    until: when, by ``clock``, no attempt may begin any more. elsewhere: whether a server that is up was not asked yet.
    anywhere: whether there is any that may be asked again. pause: told how long to wait before the next attempt; it must not wait
    itself, so that blocking code and asyncio share the loop.
    """
    jitter = wait_random_exponential(multiplier=retries.first_pause_s, max=retries.longest_pause_s)  # "full jitter"

    def wait(state: RetryCallState) -> float:
        """Seconds before the next attempt: none where another server is up."""
        return 0.0 if elsewhere() else jitter(state) + _asked_for(state)

    def stop(state: RetryCallState) -> bool:
        """Whether the attempts, the servers, the time or the budget are spent."""
        if state.attempt_number >= retries.attempts or not anywhere():
            return True
        return clock() + state.upcoming_sleep + SHORTEST_ATTEMPT_S > until or not budget.pay()

    worth_it = retry_if_exception_type((Transient, DeadlineExceeded))
    return Retrying(sleep=pause, stop=stop, wait=wait, retry=worth_it, reraise=True)


def _asked_for(state: RetryCallState) -> float:
    """For how many seconds the server that failed last asked to be left alone (Retry-After)."""
    error = state.outcome.exception() if state.outcome is not None else None
    return error.retry_after_s if isinstance(error, Overloaded) else 0.0
