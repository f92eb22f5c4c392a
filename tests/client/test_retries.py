"""Another attempt: for what a moment may mend, after a random pause, under one deadline, within a budget. Real servers."""

from __future__ import annotations

import time
from typing import Any

import pytest

from bertrec.tensors import MAX_BATCH_SIZE
from client import DeadlineExceeded, InvalidInput, Recommender, Retries, ServedBy, Transient, Unavailable
from client.counters import Tally
from client.retrying import Budget
from tests.client import servers
from tests.client.fakes import FakeBackend, ManualClock
from tests.client.opened import opened

QUICK = Retries(first_pause_s=0.01)


@pytest.mark.parametrize("failure", ["unavailable", "overloaded"])
def test_what_a_moment_may_mend_is_asked_again(driver: str, scheme: str, failure: str) -> None:
    with servers.server(scheme, lambda number: failure if number < 2 else None) as url, opened(driver, url, retries=QUICK) as one:
        answer = one.recommend("red")
        counters = one.counters()
    assert (answer.items[0].item_id, answer.served_by, answer.attempts, answer.degraded) == ("7", ServedBy.TRITON, 3, False)
    assert (counters.calls, counters.attempts, counters.retries, counters.failed) == (1, 3, 2, 0)
    assert set(answer.stages_ms) == {"server", "pause"}
    assert sum(answer.stages_ms.values()) <= answer.latency_ms


@pytest.mark.parametrize(("failure", "error"), [("broken", Unavailable), ("refused", InvalidInput)])
def test_what_no_moment_mends_is_asked_once(driver: str, scheme: str, failure: str, error: type[Exception]) -> None:
    with servers.server(scheme, lambda number: failure) as url, opened(driver, url, retries=QUICK) as one:
        with pytest.raises(error, match="so it is"):
            one.recommend("red")
        counters = one.counters()
    assert (counters.attempts, counters.retries) == (1, 0)
    assert (counters.failed, counters.refused) == ((1, 0) if error is Unavailable else (0, 1))


def test_attempts_end(driver: str, scheme: str) -> None:
    with servers.server(scheme, lambda number: "unavailable") as url, opened(driver, url, retries=QUICK) as one:
        with pytest.raises(Transient, match="so it is"):
            one.recommend("red")
        assert one.counters().attempts == QUICK.attempts


def test_a_connection_that_is_lost_is_made_again(driver: str, scheme: str) -> None:
    with servers.tcp_server(servers.hang_up) as port, opened(driver, f"{scheme}://127.0.0.1:{port}", retries=QUICK) as one:
        with pytest.raises(Transient, match="cannot answer"):
            one.recommend("red")
        assert one.counters().attempts == QUICK.attempts


def test_an_attempts_own_timeout_is_followed_by_another_attempt(driver: str, scheme: str) -> None:
    def slow_once(number: int) -> None:
        if number == 0:
            time.sleep(1.0)

    retries = Retries(first_pause_s=0.01, attempt_timeout_s=0.3)
    with servers.server(scheme, slow_once) as url, opened(driver, url, retries=retries) as one:
        started = time.monotonic()
        answer = one.recommend("red", timeout_s=10)
        took_s = time.monotonic() - started
    assert answer.attempts == 2
    assert 0.27 <= took_s < 1.0  # the slow one was not waited for


def test_one_deadline_bounds_all_attempts_and_pauses(driver: str, scheme: str) -> None:
    retries = Retries(attempts=10, first_pause_s=0.05, attempt_timeout_s=0.1)
    with servers.server(scheme, lambda number: None, delay_s=1.0) as url, opened(driver, url, retries=retries) as one:
        started = time.monotonic()
        with pytest.raises(DeadlineExceeded, match="gave no answer within"):
            one.recommend("red", timeout_s=0.5)
        took_s = time.monotonic() - started
        attempts = one.counters().attempts
    assert took_s <= 0.5 + 0.2
    assert 2 <= attempts <= 5


def test_a_retry_repeats_one_batch_not_the_list(driver: str, scheme: str) -> None:
    texts = ["red"] * (2 * MAX_BATCH_SIZE + 1)
    fails_second = lambda number: "unavailable" if number == 1 else None  # noqa: E731
    with servers.server(scheme, fails_second) as url, opened(driver, url, retries=QUICK) as one:
        answers = one.recommend(texts)
        counters = one.counters()
    assert len(answers) == len(texts)
    assert (counters.attempts, counters.retries) == (4, 1)  # three batches, and the second again


def test_the_budget_bounds_what_an_outage_is_sent() -> None:
    server = FakeBackend(failure=Transient("gone"))
    retries = Retries(attempts=3, budget_burst=4, budget_ratio=0.1)
    recommender = Recommender(server=server, retries=retries, clock=ManualClock())
    recommender._sleep = lambda seconds: None
    for _ in range(100):
        with pytest.raises(Transient):
            recommender.recommend("red")
    counters = recommender.counters()
    assert counters.attempts == len(server.asked)
    assert 100 + 12 <= counters.attempts <= 100 + 4 + 10  # a burst of 4, then one for ten calls: not 300
    assert counters.unpaid > 80


def test_a_bucket_fills_up_to_its_burst() -> None:
    budget = Budget(Retries(budget_burst=2, budget_ratio=0.5), Tally())
    assert [budget.pay() for _ in range(3)] == [True, True, False]
    budget.earn()
    assert not budget.pay()
    budget.earn()
    assert budget.pay()
    for _ in range(100):
        budget.earn()
    assert [budget.pay() for _ in range(3)] == [True, True, False]


def test_pauses_are_random_and_widen() -> None:
    server = FakeBackend(failure=Transient("gone"))
    retries = Retries(attempts=5, first_pause_s=0.1, longest_pause_s=0.3, budget_burst=1e6)
    recommender = Recommender(server=server, retries=retries, timeout_s=60)
    pauses: list[float] = []
    recommender._sleep = pauses.append
    for _ in range(200):
        with pytest.raises(Transient):
            recommender.recommend("red")
    assert len(pauses) == 200 * 4
    for retry, window_s in enumerate([0.1, 0.2, 0.3, 0.3]):
        drawn = pauses[retry::4]
        assert max(drawn) <= window_s
        assert max(drawn) > 0.9 * window_s  # the chance that this fails is 0.9²⁰⁰
        assert min(drawn) < 0.1 * window_s


def test_no_attempt_begins_after_the_deadline() -> None:
    clock, server = ManualClock(), FakeBackend(failure=Transient("gone"))
    server.meanwhile = lambda: clock.advance(0.6)
    recommender = Recommender(server=server, clock=clock, timeout_s=1, retries=Retries(attempts=10, first_pause_s=1e-3))
    recommender._sleep = clock.advance
    with pytest.raises(Transient, match="gone"):
        recommender.recommend("red")
    assert len(server.asked) == 2
    assert server.timeouts_s[0] == 1.0
    assert 0.39 < server.timeouts_s[1] <= 0.4


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"attempts": 0}, "retries.attempts is 0; accepted is a whole number from 1 to 10"),
        ({"attempts": True}, "retries.attempts is True"),
        ({"first_pause_s": 0}, "retries.first_pause_s is 0"),
        ({"attempt_timeout_s": -1}, "retries.attempt_timeout_s is -1"),
        ({"budget_burst": float("nan")}, "retries.budget_burst is nan"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        Retries(**settings)
