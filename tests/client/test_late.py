"""A server that is slow: the edge beside it, a second request beside it, and what comes first is the answer."""

from __future__ import annotations

import asyncio
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from client import AsyncRecommender, Fallback, InvalidInput, Retries, ServedBy, State, Unavailable
from tests.client import servers
from tests.client.fakes import FakeBackend
from tests.client.opened import opened

LATE = Fallback.EDGE_IF_LATE
SLOW_S = 1.5


def test_the_edge_answers_beside_a_server_that_is_late(driver: str, scheme: str, tiny_bundle: Path) -> None:
    settings = {"fallback": tiny_bundle, "fallback_policy": "edge-if-late", "late_after_s": 0.1}
    with servers.server(scheme, lambda number: None, delay_s=SLOW_S) as url, opened(driver, url, **settings) as one:
        answer = one.recommend("denim dress")
        counters = one.counters()
    assert (answer.items[0].item_id, answer.served_by, answer.degraded) == ("3", ServedBy.EDGE, True)
    assert answer.fallback_reason == "no server answered within 0.1 s"
    assert 100 <= answer.latency_ms < 1e3 * SLOW_S
    assert 95 <= answer.stages_ms["server"] < 1e3 * SLOW_S
    assert 0 < answer.stages_ms["edge"] < answer.latency_ms - 95
    assert (counters.fallbacks, counters.late, counters.failed) == (1, 1, 0)


def test_a_server_in_time_answers_and_the_edge_is_not_asked(driver: str, scheme: str) -> None:
    edge = FakeBackend("edge")
    with servers.server(scheme, lambda number: None, delay_s=0.05) as url:
        with opened(driver, url, fallback=edge, fallback_policy=LATE, late_after_s=10) as one:
            assert one.recommend("red").served_by is ServedBy.TRITON
    assert edge.asked == []


def test_a_server_that_is_late_but_faster_than_the_edge_is_believed(driver: str, scheme: str) -> None:
    edge = FakeBackend("edge")
    edge.meanwhile = lambda: time.sleep(SLOW_S)
    with servers.server(scheme, lambda number: None, delay_s=0.3) as url:
        with opened(driver, url, fallback=edge, fallback_policy=LATE, late_after_s=0.05) as one:
            answer = one.recommend("red")
    assert (answer.served_by, answer.degraded, edge.asked) == (ServedBy.TRITON, False, [["red"]])
    assert answer.latency_ms < 1e3 * SLOW_S


def test_a_server_that_fails_while_the_edge_computes_changes_nothing(driver: str, scheme: str) -> None:
    edge = FakeBackend("edge")
    edge.meanwhile = lambda: time.sleep(0.4)
    with servers.server(scheme, lambda number: "broken", delay_s=0.2) as url:
        with opened(driver, url, fallback=edge, fallback_policy=LATE, late_after_s=0.05) as one:
            answer = one.recommend("red")
    assert (answer.engine, answer.served_by, len(edge.asked)) == ("edge", ServedBy.EDGE, 1)


def test_the_breaker_learns_how_a_late_server_ended(driver: str, scheme: str) -> None:
    """So one that hangs costs ``late_after_s`` only until its first timeout has passed."""
    with servers.tcp_server(servers.hang) as port:
        url = f"{scheme}://127.0.0.1:{port}"
        with opened(driver, url, fallback=FakeBackend("edge"), fallback_policy=LATE, late_after_s=0.1, rest_s=60) as one:
            assert one.recommend("red", timeout_s=0.4).latency_ms >= 95
            wait_until_open(one, url)
            again = one.recommend("red", timeout_s=0.4)
    assert (again.served_by, again.attempts) == (ServedBy.EDGE, 0)
    assert again.latency_ms < 95


def wait_until_open(one: object, url: str) -> None:
    ends = time.monotonic() + 5
    while one.counters().servers[url] is not State.OPEN:  # type: ignore[attr-defined]
        assert time.monotonic() < ends
        time.sleep(0.01)


def test_bad_input_is_nobodys_lateness(driver: str, scheme: str) -> None:
    edge = FakeBackend("edge")
    with servers.server(scheme, lambda number: "refused") as url:
        with opened(driver, url, fallback=edge, fallback_policy=LATE, late_after_s=5) as one, pytest.raises(InvalidInput):
            one.recommend("red", k=11)
    assert edge.asked == []


def test_no_pause_outlasts_the_edge(driver: str, scheme: str) -> None:
    retries = Retries(first_pause_s=3600, longest_pause_s=3600)
    with servers.server(scheme, lambda number: "unavailable") as url:
        with opened(
            driver, url, fallback=FakeBackend("edge"), fallback_policy=LATE, late_after_s=0.2, retries=retries, timeout_s=3600
        ) as one:
            answer = one.recommend("red")
    assert (answer.served_by, answer.attempts) == (ServedBy.EDGE, 1)
    assert "so it is" in (answer.fallback_reason or "")


def test_a_hedge_goes_to_the_other_server_and_the_first_answer_counts(driver: str, scheme: str) -> None:
    with ExitStack() as stack:
        slow = stack.enter_context(servers.server(scheme, lambda number: None, delay_s=SLOW_S))
        quick = stack.enter_context(servers.server(scheme, lambda number: None))
        one = stack.enter_context(opened(driver, [slow, quick], hedge_after_s=0.05))
        answers = [one.recommend("red") for _ in range(2)]
        counters = one.counters()
    assert all(answer.latency_ms < 1e3 * SLOW_S for answer in answers)
    assert (counters.hedges, counters.retries) == (1, 0)  # of two calls one met the slow one first
    assert sorted(answer.attempts for answer in answers) == [1, 2]
    assert set(counters.servers.values()) == {State.CLOSED}  # slow is not failed


def test_a_lone_server_is_hedged_by_itself(driver: str, scheme: str) -> None:
    def slow_once(number: int) -> None:
        if number == 0:
            time.sleep(SLOW_S)

    with servers.server(scheme, slow_once) as url, opened(driver, url, hedge_after_s=0.05) as one:
        answer = one.recommend("red")
    assert answer.attempts == 2
    assert answer.latency_ms < 1e3 * SLOW_S


def test_hedges_are_paid_from_the_budget(driver: str, scheme: str) -> None:
    retries = Retries(budget_burst=1, budget_ratio=0)
    with servers.server(scheme, lambda number: None, delay_s=0.15) as url:
        with opened(driver, url, hedge_after_s=0.02, retries=retries) as one:
            for _ in range(3):
                one.recommend("red")
            counters = one.counters()
    assert (counters.hedges, counters.attempts, counters.unpaid) == (1, 4, 2)


def test_where_all_that_were_asked_fail_the_first_failure_is_told(driver: str, scheme: str) -> None:
    with servers.server(scheme, lambda number: "broken", delay_s=0.2) as url, opened(driver, url, hedge_after_s=0.05) as one:
        with pytest.raises(Unavailable, match="so it is"):
            one.recommend("red")
        assert one.counters().attempts == 2


def test_cancelling_a_call_cancels_its_requests(scheme: str) -> None:
    async def scenario(url: str) -> tuple[float, State]:
        async with AsyncRecommender(url, hedge_after_s=0.05, retries=Retries(attempts=1)) as recommender:
            started = time.monotonic()
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(recommender.recommend("red"), 0.2)
            took_s = time.monotonic() - started
            await asyncio.sleep(0.05)
            assert not recommender._driver._tasks
            return took_s, recommender.counters().servers[url]

    with servers.tcp_server(servers.hang) as port:
        took_s, state = asyncio.run(scenario(f"{scheme}://127.0.0.1:{port}"))
    assert took_s < 1.0
    assert state is State.CLOSED  # nothing was learnt of the server


def test_calls_of_one_loop_run_beside_each_other(scheme: str) -> None:
    async def scenario(url: str) -> float:
        async with AsyncRecommender(url) as recommender:
            started = time.monotonic()
            await asyncio.gather(*(recommender.recommend("red") for _ in range(4)))
            return time.monotonic() - started

    with servers.server(scheme, lambda number: None, delay_s=0.4) as url:
        assert asyncio.run(scenario(url)) < 4 * 0.4


@pytest.mark.parametrize("hedge_after_s", [None, 0.05])
def test_closing_ends_the_calls_under_way(hedge_after_s: float | None) -> None:
    async def scenario(url: str) -> None:
        recommender = AsyncRecommender(url, hedge_after_s=hedge_after_s, timeout_s=30)
        call = asyncio.create_task(recommender.recommend("red"))
        await asyncio.sleep(0.2)
        await recommender.close()
        with pytest.raises(Unavailable, match="closed"):
            await asyncio.wait_for(call, 5)
        with pytest.raises(InvalidInput, match="this recommender is closed"):
            await recommender.recommend("red")

    with servers.tcp_server(servers.hang) as port:
        asyncio.run(scenario(f"grpc://127.0.0.1:{port}"))
