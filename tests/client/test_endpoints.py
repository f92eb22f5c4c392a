"""Several servers, and the circuit breaker of each: who is asked, who is left alone, who is tried again."""

from __future__ import annotations

import threading
from collections import Counter
from contextlib import ExitStack

import pytest

from client import DeadlineExceeded, Recommender, Retries, ServedBy, State, Transient, Unavailable
from client.availability import Breaker
from client.counters import Counters
from tests.client import servers
from tests.client.fakes import FakeBackend, ManualClock
from tests.client.opened import opened


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def breaker(clock: ManualClock) -> Breaker:
    return Breaker("grpc://host:8001", opens_after=3, rest_s=1.0, clock=clock)


def fail(breaker: Breaker, clock: ManualClock, *, for_good: bool = False) -> None:
    breaker.failed("gone", started=clock(), for_good=for_good)


def test_a_breaker_opens_after_failures_in_a_row(breaker: Breaker, clock: ManualClock) -> None:
    for _ in range(2):
        fail(breaker, clock)
    breaker.answered()  # the row is broken
    for _ in range(2):
        fail(breaker, clock)
        assert breaker.admit() is State.CLOSED
    fail(breaker, clock)
    assert (breaker.state, breaker.admit(), breaker.failure) == (State.OPEN, None, "gone")


def test_a_breaker_opens_at_once_for_what_no_retry_mends(breaker: Breaker, clock: ManualClock) -> None:
    fail(breaker, clock, for_good=True)
    assert breaker.state is State.OPEN


def test_a_clock_that_jumps_makes_no_rest_of_days(breaker: Breaker, clock: ManualClock) -> None:
    started = clock()
    clock.advance(86_400)  # during the attempt
    breaker.failed("gone", started=started, for_good=True)
    clock.advance(59.9)
    assert breaker.admit() is None
    clock.advance(0.2)
    assert breaker.admit() is State.HALF_OPEN
    fail(breaker, clock)
    clock.advance(-3_600)
    assert breaker.ready
    assert breaker.admit() is State.HALF_OPEN


def test_a_half_open_breaker_admits_one_probe(breaker: Breaker, clock: ManualClock) -> None:
    fail(breaker, clock, for_good=True)
    clock.advance(0.99)
    assert breaker.admit() is None
    clock.advance(0.02)
    assert [breaker.admit(), breaker.admit(), breaker.state] == [State.HALF_OPEN, None, State.HALF_OPEN]
    fail(breaker, clock)  # one failure suffices
    assert (breaker.state, breaker.admit()) == (State.OPEN, None)
    clock.advance(1)
    assert breaker.admit() is State.HALF_OPEN
    breaker.given_up()
    assert breaker.admit() is State.HALF_OPEN  # the next may probe at once
    breaker.answered()
    assert (breaker.state, breaker.admit()) == (State.CLOSED, State.CLOSED)


def test_calls_go_round(driver: str, scheme: str) -> None:
    seen: list[list[dict[str, str]]] = [[], [], []]
    with ExitStack() as stack:
        urls = [stack.enter_context(servers.server(scheme, lambda number: None, seen=one)) for one in seen]
        recommender = stack.enter_context(opened(driver, urls))
        for _ in range(9):
            recommender.recommend("red")
        assert recommender.counters().servers == dict.fromkeys(urls, State.CLOSED)
    assert [len(one) for one in seen] == [3, 3, 3]


def test_where_one_is_down_the_other_is_asked_without_a_pause(driver: str, scheme: str) -> None:
    down = f"{scheme}://127.0.0.1:{servers.closed_port()}"
    retries = Retries(first_pause_s=30, longest_pause_s=30)  # one pause would be noticed
    with servers.server(scheme, lambda number: None) as up, opened(driver, [down, up], retries=retries, rest_s=60) as one:
        answers = [one.recommend("red") for _ in range(12)]
        counters = one.counters()
    assert {answer.served_by for answer in answers} == {ServedBy.TRITON}
    assert all("pause" not in answer.stages_ms for answer in answers)
    assert counters.servers == {down: State.OPEN, up: State.CLOSED}
    assert counters.retries == retries.attempts  # of every second call; then its breaker opened, and nobody asked it any more


def test_a_server_that_hangs_leaves_the_other_half_of_the_time(driver: str, scheme: str) -> None:
    with ExitStack() as stack:
        hanging = f"{scheme}://127.0.0.1:{stack.enter_context(servers.tcp_server(servers.hang))}"
        up = stack.enter_context(servers.server(scheme, lambda number: None))
        one = stack.enter_context(opened(driver, [hanging, up], rest_s=60))
        answers = [one.recommend("red", timeout_s=1.0) for _ in range(4)]
        assert one.counters().servers == {hanging: State.OPEN, up: State.CLOSED}
    assert [answer.attempts for answer in answers] == [2, 1, 1, 1]
    assert 450 <= answers[0].latency_ms < 1000


def test_a_probe_too_leaves_the_others_their_time(clock: ManualClock) -> None:
    hanging, up = FakeBackend("a", DeadlineExceeded("late")), FakeBackend("b")
    hanging.meanwhile = lambda: clock.advance(hanging.timeouts_s[-1])
    recommender = with_backends({"grpc://a": hanging, "grpc://b": up}, clock)
    for _ in range(2):
        answers = [recommender.recommend("red", timeout_s=4) for _ in range(3)]
        assert [answer.engine for answer in answers] == ["b"] * 3
        clock.advance(60)
    assert hanging.timeouts_s == [2.0, 2.0]
    assert up.timeouts_s == [2.0, 4.0, 4.0, 2.0, 2.0, 4.0]  # in the second round its turn came first


def test_one_that_comes_back_is_used_again(clock: ManualClock) -> None:
    backends = {"grpc://a": FakeBackend("a"), "grpc://b": FakeBackend("b")}
    recommender = with_backends(backends, clock)
    backends["grpc://a"].failure = Unavailable("gone")
    with pytest.raises(Unavailable, match="gone"):
        recommender.recommend("red")  # what no retry mends is not carried to the next server either
    assert [recommender.recommend("red").engine for _ in range(4)] == ["b"] * 4
    backends["grpc://a"].failure = None
    clock.advance(1.1)
    assert Counter(recommender.recommend("red").engine for _ in range(10)) == {"a": 5, "b": 5}


def test_where_all_rest_and_nobody_else_can_answer_one_is_asked_nevertheless(clock: ManualClock) -> None:
    backends = {"grpc://a": FakeBackend(failure=Transient("a is gone")), "grpc://b": FakeBackend(failure=Transient("b is gone"))}
    recommender = with_backends(backends, clock)
    for _ in range(5):
        with pytest.raises(Transient, match="is gone"):
            recommender.recommend("red")
    backends["grpc://b"].failure = None
    assert recommender.counters().servers == dict.fromkeys(backends, State.OPEN)
    assert recommender.recommend("red").engine == "fake"  # though both rest


def with_backends(backends: dict[str, FakeBackend], clock: ManualClock) -> Recommender:
    class WithBackends(Recommender):
        _sleep = staticmethod(clock.advance)

        def _connect(self, url: str, tls: object) -> FakeBackend:
            return backends[url]

    return WithBackends(list(backends), clock=clock, rest_s=1.0)


def test_counters_are_prometheus_text() -> None:
    text = Counters(calls=3, retries=1, servers={'http://"a"': State.OPEN}).to_prometheus()
    lines = text.splitlines()
    assert lines[:2] == ["# TYPE bertrec_client_calls_total counter", "bertrec_client_calls_total 3"]
    assert lines[-4:] == [
        "# TYPE bertrec_client_breaker gauge",
        r'bertrec_client_breaker{server="http://\"a\"",state="closed"} 0',
        r'bertrec_client_breaker{server="http://\"a\"",state="open"} 1',
        r'bertrec_client_breaker{server="http://\"a\"",state="half-open"} 0',
    ]
    assert text.endswith("\n")


def test_counters_count_every_thread() -> None:
    server, edge = FakeBackend(), FakeBackend()
    server.failure = Unavailable("gone")
    recommender = Recommender(server=server, fallback=edge, rest_s=60)
    threads = [threading.Thread(target=lambda: [recommender.recommend("red") for _ in range(50)]) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    counters = recommender.counters()
    assert (counters.calls, counters.fallbacks, counters.failed, counters.late) == (400, 400, 0, 0)
    assert counters.attempts == len(server.asked) <= 8
