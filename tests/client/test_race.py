"""A request that was admitted and never ran: the breaker that let it pass as its probe must not wait for its end."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from typing import Any

import pytest

from bertrec.answers import Options
from client import AsyncRecommender, Fallback, Recommender, Retries, ServedBy, State, Transient
from client.availability import Breaker
from client.endpoints import Endpoint
from client.race import Later, race
from client.steps import Ask, Call, Start, Wait, Won
from client.threads import in_thread
from tests.client.fakes import FakeBackend, ManualClock

REST_S = 1.0


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


def endpoint(name: str, clock: ManualClock) -> Endpoint:
    return Endpoint(name, FakeBackend(name), Breaker(name, opens_after=1, rest_s=REST_S, clock=clock))


def rested(one: Endpoint, clock: ManualClock) -> Breaker:
    one.breaker.failed("gone", started=clock(), for_good=True)
    clock.advance(2 * REST_S)
    return one.breaker


def probe(one: Endpoint) -> Ask:
    assert one.breaker.admit() is State.HALF_OPEN
    return Ask(one, ["red"], 5.0)


def test_a_hedge_that_never_ran_leaves_its_server_to_another_probe(clock: ManualClock) -> None:
    first, hedged = endpoint("first", clock), endpoint("hedged", clock)
    breaker = rested(hedged, clock)
    call = Call(["red"], Options(), 5.0, clock())
    ask = Ask(first, ["red"], 5.0)
    plan = race(call, ask, [Later(clock(), lambda: probe(hedged))], clock=clock)
    answered: Future[list[Any]] = Future()
    waiting: Future[list[Any]] = Future()  # its thread has not begun
    assert next(plan) == Start(ask)
    assert isinstance(plan.send(answered), Start)
    assert breaker.admit() is None
    assert plan.send(waiting) == Wait((answered, waiting), None)
    answered.set_result(["an answer"])
    with pytest.raises(StopIteration) as end:
        plan.send({answered})
    assert end.value.value == Won(ask, ["an answer"])
    assert waiting.cancelled()
    assert (breaker.state, breaker.admit()) == (State.OPEN, State.HALF_OPEN)


def test_so_does_a_task_that_is_cancelled_before_its_first_step(clock: ManualClock) -> None:
    async def scenario() -> State:
        recommender = AsyncRecommender(server=_asynchronous(FakeBackend()), retries=Retries(attempts=1), clock=clock)
        (one,) = recommender._servers
        breaker = rested(one, clock)
        plan = race(Call(["red"], Options(), 5.0, clock()), probe(one), [], clock=clock)
        task = recommender._driver._begin(_nothing())
        next(plan)
        plan.send(task)
        await recommender._driver.close()
        assert task.cancelled()
        return breaker.state

    assert asyncio.run(scenario()) is State.OPEN


async def _nothing() -> list[Any]:
    return []


def _asynchronous(backend: FakeBackend) -> Any:
    class Asynchronous:
        engine = backend.engine

        async def answer(self, *given: Any, **named: Any) -> list[Any]:
            return backend.answer(*given, **named)

        async def close(self) -> None:
            backend.close()

    return Asynchronous()


@pytest.fixture
def no_threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        yield


@pytest.mark.usefixtures("no_threads")
def test_where_no_thread_is_to_be_had_the_edge_answers_and_the_server_is_probed_again(clock: ManualClock) -> None:
    server, edge = FakeBackend(), FakeBackend("edge")
    recommender = Recommender(
        server=server, fallback=edge, fallback_policy=Fallback.EDGE_IF_LATE, retries=Retries(attempts=1), clock=clock
    )
    breaker = rested(recommender._servers[0], clock)
    answer = recommender.recommend("red")
    assert (answer.served_by, server.asked) == (ServedBy.EDGE, [])
    assert "no more threads (can't start new thread)" in (answer.fallback_reason or "")
    assert (breaker.state, breaker.ready) == (State.OPEN, True)


@pytest.mark.usefixtures("no_threads")
def test_where_no_thread_is_to_be_had_for_a_hedge_the_first_request_goes_on(clock: ManualClock) -> None:
    first, hedged = endpoint("first", clock), endpoint("hedged", clock)
    breaker = rested(hedged, clock)
    ask = Ask(first, ["red"], 5.0)
    plan = race(Call(["red"], Options(), 5.0, clock()), ask, [Later(clock(), lambda: probe(hedged))], clock=clock)
    next(plan)
    answered: Future[list[Any]] = Future()
    assert isinstance(plan.send(answered), Start)
    with pytest.raises(Transient) as refused:
        in_thread(list)
    assert plan.throw(refused.value) == Wait((answered,), None)
    assert breaker.ready
    answered.set_result([])
    with pytest.raises(StopIteration):
        plan.send({answered})
