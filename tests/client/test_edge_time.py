"""With a fallback, servers leave the edge what it will take, and the call's deadline holds; without one they have all of it."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from client import DeadlineExceeded, Fallback, Recommender, Retries, ServedBy, Transient
from client.backends.edge import EdgeBackend
from client.edge_time import LEAST_S, MOST_SHARE, EdgeTime
from tests.client import servers
from tests.client.fakes import FakeBackend, ManualClock
from tests.client.opened import opened

EDGE_S = 0.2
REST_S = 0.05
ALLOWED_S = 0.1
"""Beyond the deadline: half of what the edge takes, for the machine."""


def slow_edge() -> FakeBackend:
    edge = FakeBackend("edge")
    edge.meanwhile = lambda: time.sleep(EDGE_S)
    return edge


def test_the_deadline_holds_with_an_edge_that_is_slow(driver: str, scheme: str) -> None:
    timeout_s = 1.6
    with servers.server(scheme, lambda number: None, delay_s=2) as url:
        with opened(driver, url, fallback=slow_edge(), rest_s=REST_S) as one:
            unknown = one.recommend("red", timeout_s=0.5)
            resting = one.recommend("red", timeout_s=0.5)  # it rests as long as it failed
            time.sleep(0.5)
            known = one.recommend("red", timeout_s=timeout_s)
    assert [answer.served_by for answer in (unknown, resting, known)] == [ServedBy.EDGE] * 3
    assert [answer.attempts for answer in (unknown, resting, known)] == [1, 0, 1]
    assert "gave no answer within 0.5 s, less 0.05 s for the edge" in (unknown.fallback_reason or "")
    assert known.latency_ms <= 1e3 * (timeout_s + ALLOWED_S)
    left_ms = 1e3 * timeout_s * MOST_SHARE  # twice what the edge takes: nobody knows yet that it takes that always
    assert 1e3 * timeout_s - left_ms - 20 <= known.stages_ms["server"] <= 1e3 * (timeout_s - EDGE_S)


def test_calls_that_meet_a_hung_server_at_once_all_keep_their_deadline(tiny_bundle: Path) -> None:
    """The real edge, which computes for as many as there are cores."""
    callers, timeout_s = 12, 0.6
    with servers.server("grpc", lambda number: None, delay_s=2) as url, Recommender(url, fallback=tiny_bundle) as one:
        with ThreadPoolExecutor(callers) as threads:
            answers = list(threads.map(lambda _: one.recommend("denim dress", timeout_s=timeout_s), range(callers)))
    assert {(answer.items[0].item_id, answer.served_by, answer.attempts) for answer in answers} == {("3", ServedBy.EDGE, 1)}
    assert max(answer.latency_ms for answer in answers) <= 1e3 * (timeout_s + ALLOWED_S)


def test_without_a_fallback_the_servers_have_all_of_the_deadline(driver: str, scheme: str) -> None:
    with servers.server(scheme, lambda number: None, delay_s=2) as url, opened(driver, url) as one:
        started = time.monotonic()
        with pytest.raises(DeadlineExceeded, match=r"gave no answer within 0\.5 s$"):
            one.recommend("red", timeout_s=0.5)
        assert time.monotonic() - started >= 0.49


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


def test_every_attempt_and_pause_ends_before_the_edge_begins(clock: ManualClock) -> None:
    server, edge = FakeBackend(failure=Transient("gone")), FakeBackend("edge")
    server.meanwhile = lambda: clock.advance(0.55)
    retries = Retries(attempts=10, first_pause_s=1e-3)
    recommender = Recommender(server=server, fallback=edge, clock=clock, timeout_s=1, retries=retries)
    recommender._sleep = clock.advance
    assert recommender.recommend("red").fallback_reason == "gone"
    assert server.timeouts_s[0] == pytest.approx(1 - LEAST_S)
    assert 0.39 < server.timeouts_s[1] <= 1 - LEAST_S - 0.55 + 1e-6
    assert len(server.timeouts_s) == 2


def test_a_hedge_ends_when_its_first_request_does() -> None:
    server = FakeBackend()
    server.meanwhile = lambda: time.sleep(0.2)
    recommender = Recommender(server=server, fallback=FakeBackend("edge"), timeout_s=2, hedge_after_s=0.1)
    assert recommender.recommend("red").served_by is ServedBy.TRITON
    first_s, hedge_s = server.timeouts_s
    assert first_s == pytest.approx(2 - LEAST_S, abs=0.02)
    assert hedge_s == pytest.approx(first_s - 0.1, abs=0.05)


def test_edge_if_late_begins_in_time_and_leaves_the_server_all_of_the_deadline() -> None:
    server, edge = FakeBackend("server"), FakeBackend("edge")
    server.meanwhile = lambda: time.sleep(1.5)
    settings = {"fallback_policy": Fallback.EDGE_IF_LATE, "late_after_s": 10, "timeout_s": 0.5}
    recommender = Recommender(server=server, fallback=edge, **settings)  # type: ignore[arg-type]
    answer = recommender.recommend("red")
    assert (answer.served_by, answer.fallback_reason) == (ServedBy.EDGE, "no server answered within 0.45 s")
    assert server.timeouts_s == [pytest.approx(0.5, abs=0.02)]
    assert 440 <= answer.latency_ms <= 500


def test_a_clock_that_jumps_while_the_edge_computes_counts_as_one_deadline(clock: ManualClock) -> None:
    server, edge = FakeBackend(failure=Transient("gone")), FakeBackend("edge")
    edge.meanwhile = lambda: clock.advance(1e6)
    recommender = Recommender(server=server, fallback=edge, clock=clock, timeout_s=1, retries=Retries(attempts=1))
    recommender.recommend("red")
    assert recommender._planner._edge_time.expected_s(1e9) == pytest.approx(1 + 4 * 0.5)
    edge.meanwhile = lambda: clock.advance(-1e6)
    recommender.recommend("red")
    assert recommender._planner._edge_time.expected_s(1e9) == pytest.approx(1 - 1 / 8 + 4 * (0.5 + 0.5 / 4))


def test_what_is_left_follows_what_the_edge_takes_within_its_bounds() -> None:
    took = EdgeTime()
    assert took.expected_s(10) == LEAST_S
    assert took.expected_s(0.1) == MOST_SHARE * 0.1
    took.took(0.2)
    assert took.expected_s(10) == pytest.approx(0.2 + 4 * 0.1)
    assert took.expected_s(1) == MOST_SHARE
    for _ in range(30):
        took.took(0.2)
    assert took.expected_s(10) == pytest.approx(0.2, abs=1e-3)
    took.took(1.0)
    assert took.expected_s(10) == pytest.approx(0.2 + 0.8 / 8 + 4 * 0.8 / 4, abs=1e-3)
    for _ in range(100):
        took.took(0.001)
    assert took.expected_s(10) == LEAST_S


def test_a_fallback_is_asked_once_before_it_is_needed(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    answer = EdgeBackend.answer

    def noted(edge: EdgeBackend, texts: list[str], *given: object, **named: object) -> object:
        asked.extend(texts)
        return answer(edge, texts, *given, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(EdgeBackend, "answer", noted)
    with Recommender(f"grpc://127.0.0.1:{servers.closed_port()}", fallback=tiny_bundle) as one:
        assert asked == ["first words"]
        assert one.counters().calls == 0
    with Recommender(bundle=tiny_bundle):
        assert asked == ["first words"]
