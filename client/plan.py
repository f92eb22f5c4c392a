"""What one call does, step by step, without doing it: a generator of steps that blocking code and asyncio carry out alike.

It decides everything (whom to ask, for how long, when again, when the edge) and waits for nothing itself: it yields a step, and
is sent what came of it. The two drivers, in :mod:`client.drivers`, hold no decision.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import replace
from typing import Any

from tenacity import BaseRetrying

from bertrec.errors import DeadlineExceeded, InvalidInput, Unavailable
from bertrec.tensors import MAX_BATCH_SIZE

from .answer import ServedBy
from .counters import Tally
from .edge_time import EdgeTime
from .endpoints import Endpoint, Endpoints
from .race import Later, race
from .retrying import SHORTEST_ATTEMPT_S, Budget, retrying
from .settings import Fallback, Retries
from .steps import Answered, Ask, Call, Pause, Stages, Step, Won, Work

LATE_BY_S = 0.01
"""An attempt that ends so little before the servers' time is over has used it up: gRPC's clock and ours differ by less."""


class Planner:
    """Plans calls by a recommender's settings. Thread-safe."""

    def __init__(
        self,
        endpoints: Endpoints | None,
        *,
        fallback: Fallback,
        late_after_s: float,
        hedge_after_s: float | None,
        retries: Retries,
        tally: Tally,
        clock: Callable[[], float],
    ) -> None:
        """endpoints: None where the edge alone answers."""
        self._endpoints = endpoints
        self._fallback = fallback
        self._late_after_s = late_after_s
        self._hedge_after_s = hedge_after_s
        self._retries = retries
        self._budget = Budget(retries, tally)
        self._tally = tally
        self._clock = clock
        self._edge_time = EdgeTime()

    def plan(self, call: Call) -> Generator[Step, Any, Answered]:
        """The steps of one call; returns the answer. Raises InvalidInput, and Unavailable where nobody could answer."""
        self._tally.add("calls")
        try:
            return (yield from self._answered(call))
        except InvalidInput:
            self._tally.add("refused")
            raise
        except Unavailable:
            self._tally.add("failed")
            raise

    def _answered(self, call: Call) -> Generator[Step, Any, Answered]:
        if self._endpoints is None:
            return Answered((yield from self._edge(call)).found, ServedBy.EDGE)
        self._budget.earn()
        call.left_to_edge_s = self._left_to_edge_s(call.timeout_s)
        found: list[Any] = []
        try:
            for start in range(0, len(call.texts), MAX_BATCH_SIZE):
                began = self._clock()
                won = yield from self._retried(call, self._endpoints, call.texts[start : start + MAX_BATCH_SIZE])
                if won.ask.endpoint is None:  # the edge was faster, and has answered the whole list
                    self._tally.add("fallbacks")
                    self._tally.add("late")
                    self._edge_took(call, since=max(began, call.edge_at))
                    reason = f"no server answered within {round(call.timeout_s - call.left_to_edge_s, 3):g} s"
                    return Answered(won.found, ServedBy.EDGE, reason)
                found += won.found
        except Unavailable as error:
            if self._fallback is Fallback.NONE:
                raise
            since = min(self._clock(), call.edge_at)  # with what an attempt's end came late, which the edge's answer does as well
            won = yield from self._edge(call)
            self._edge_took(call, since=since)
            self._tally.add("fallbacks")
            return Answered(won.found, ServedBy.EDGE, str(error))
        return Answered(found, ServedBy.TRITON)

    def _left_to_edge_s(self, timeout_s: float) -> float:
        if self._fallback is Fallback.NONE:
            return 0.0
        expected_s = self._edge_time.expected_s(timeout_s)
        return expected_s if self._fallback is Fallback.EDGE else max(expected_s, timeout_s - self._late_after_s)

    def _servers_until(self, call: Call) -> float:
        """When the servers' time is over. Beside an edge that has begun they have all of the deadline."""
        return call.edge_at if self._fallback is Fallback.EDGE else call.deadline

    def _edge_took(self, call: Call, *, since: float) -> None:
        self._edge_time.took(min(max(0.0, self._clock() - since), call.timeout_s))  # a clock that jumps must not count for long

    def _edge(self, call: Call) -> Work:
        ask = Ask(None, call.texts, call.timeout_s)
        with Stages(call, "edge", self._clock):
            return Won(ask, (yield ask))

    def _retried(self, call: Call, endpoints: Endpoints, batch: Sequence[str]) -> Work:
        pauses: list[float] = []
        again, call.asked.turn = False, None
        try:
            for attempt in self._attempts(call, endpoints, pauses):
                if again:
                    self._tally.add("retries")
                    yield from self._pause(call, pauses.pop())
                again = True
                with attempt:
                    return (yield from self._attempt(call, endpoints, batch))
        except DeadlineExceeded as error:
            if self._clock() < self._servers_until(call) - LATE_BY_S:
                raise
            asked = ", ".join(dict.fromkeys(one.name for one in call.asked.failed)) or "the servers"
            less = f", less {call.left_to_edge_s:.2g} s for the edge" if self._fallback is Fallback.EDGE else ""
            raise DeadlineExceeded(f"{asked} gave no answer within {call.timeout_s:g} s{less}") from error
        raise AssertionError("tenacity ends with a result or an error")

    def _attempts(self, call: Call, endpoints: Endpoints, pauses: list[float]) -> BaseRetrying:
        return retrying(
            self._retries,
            self._budget,
            until=call.edge_at,  # no use in a pause after which the edge would answer anyhow
            clock=self._clock,
            elsewhere=lambda: endpoints.fresh(call.asked) > 0,
            anywhere=lambda: endpoints.any_left(call.asked),
            pause=pauses.append,
        )

    def _pause(self, call: Call, seconds: float) -> Generator[Step, Any, None]:
        if seconds > 0:
            with Stages(call, "pause", self._clock):
                yield Pause(seconds)

    def _attempt(self, call: Call, endpoints: Endpoints, batch: Sequence[str]) -> Work:
        first, endpoint = self._ask(call, endpoints, batch)
        later = self._later(call, endpoints, first, endpoint)
        try:
            if later:
                return (yield from race(call, first, later, clock=self._clock))
            with Stages(call, "server", self._clock):
                return Won(first, (yield first))
        except Unavailable:
            call.asked.failed = [*(one for one in call.asked.failed if one is not endpoint), endpoint]
            raise

    def _ask(self, call: Call, endpoints: Endpoints, batch: Sequence[str]) -> tuple[Ask, Endpoint]:
        left_s = self._servers_until(call) - self._clock()
        if left_s < LATE_BY_S and call.attempts:  # the batches before took all of it
            raise DeadlineExceeded("no time is left")
        endpoint = endpoints.choose(call.asked)
        if self._retries.attempt_timeout_s is not None:
            left_s = min(left_s, self._retries.attempt_timeout_s)
        elif self._retries.attempts > 1:
            left_s /= 1 + endpoints.fresh(replace(call.asked, failed=[*call.asked.failed, endpoint]))
        return self._counted(call, Ask(endpoint, batch, left_s)), endpoint

    def _later(self, call: Call, endpoints: Endpoints, first: Ask, endpoint: Endpoint) -> list[Later]:
        later = []
        if self._hedge_after_s is not None and self._hedge_after_s < first.timeout_s:
            at = self._clock() + self._hedge_after_s
            later.append(Later(at, lambda: self._hedge(call, endpoints, first, endpoint)))
        if self._fallback is Fallback.EDGE_IF_LATE:
            later.append(Later(call.edge_at, lambda: Ask(None, call.texts, call.timeout_s)))
        return later

    def _hedge(self, call: Call, endpoints: Endpoints, first: Ask, slow: Endpoint) -> Ask | None:
        """The same request to another server that is up, else to the same one; None where the budget does not pay.

        (Dean and Barroso, *The tail at scale*, CACM 2013.)
        """
        left_s = self._servers_until(call) - self._clock()
        if left_s < SHORTEST_ATTEMPT_S or not self._budget.pay():
            return None
        self._tally.add("hedges")
        try:
            other = endpoints.choose(replace(call.asked, failed=[*call.asked.failed, slow]))
        except Unavailable:
            other = slow
        return self._counted(call, Ask(other, first.texts, left_s))

    def _counted(self, call: Call, ask: Ask) -> Ask:
        call.attempts += 1
        self._tally.add("attempts")
        return ask
