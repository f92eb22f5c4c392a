"""A server that has too much to do says so, and is asked again no sooner than it wants to be. Real servers."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from bertrec.tensors import MAX_BATCH_SIZE
from client import Overloaded, Recommender, Retries, ServedBy, Transient, Unavailable
from client.server.limits import Limits
from serving.triton import TritonServer
from tests.client import servers
from tests.client.fakes import FakeBackend, ManualClock
from tests.client.opened import opened
from tests.client.server.running import HeldModel, running
from tests.tiny import ITEMS, item_text

ONCE = Retries(attempts=1)
CLIENTS = 48  # many more than narrow_triton runs and lets wait


def test_a_full_queue_is_an_overload_over_grpc(driver: str) -> None:
    with servers.server("grpc", lambda number: "overloaded") as url, opened(driver, url, retries=ONCE) as one:
        with pytest.raises(Overloaded, match="RESOURCE_EXHAUSTED, so it is") as raised:
            one.recommend("red")
    assert raised.value.retry_after_s == 0


@pytest.mark.parametrize(
    ("status", "headers", "kind", "retry_after_s"),
    [
        (429, {}, Overloaded, 0),
        (429, {"Retry-After": "7"}, Overloaded, 7),
        (503, {"Retry-After": "2"}, Overloaded, 2),
        (503, {"Retry-After": "Wed, 21 Oct 2026 07:28:00 GMT"}, Overloaded, 0),
        (503, {"Retry-After": "-1"}, Overloaded, 0),
        (503, {"Retry-After": "9" * 400}, Overloaded, 0),
        (503, {}, Transient, None),
        (500, {"Retry-After": "2"}, Unavailable, None),
    ],
)
def test_http_says_it_by_status_and_header(
    status: int, headers: dict[str, str], kind: type[Unavailable], retry_after_s: int | None
) -> None:
    answer: Callable[[int], tuple[int, bytes]] = lambda texts: (status, b'{"error": "so it is"}')  # noqa: E731
    with servers.http_server(answer, headers=headers) as url, Recommender(url, retries=ONCE) as one:
        with pytest.raises(kind, match=f"HTTP {status}, so it is") as raised:
            one.recommend("red")
    assert type(raised.value) is kind
    assert getattr(raised.value, "retry_after_s", None) == retry_after_s


def test_a_retry_waits_as_long_as_the_server_asked(driver: str) -> None:
    outcomes = iter([(429, b"{}"), (200, servers.http_answer([servers.GOOD]))])
    with servers.http_server(lambda texts: next(outcomes), headers={"Retry-After": "1"}) as url, opened(driver, url) as one:
        answer = one.recommend("red", timeout_s=20)
    assert answer.attempts == 2
    assert answer.stages_ms["pause"] >= 1_000


def test_what_would_exceed_the_deadline_is_not_waited_for() -> None:
    clock, server = ManualClock(), FakeBackend(failure=Overloaded("full", retry_after_s=2))
    pauses: list[float] = []
    recommender = Recommender(server=server, clock=clock, timeout_s=5, retries=Retries(attempts=5, first_pause_s=1e-3))

    def sleep(seconds: float) -> None:
        pauses.append(seconds)
        clock.advance(seconds)

    recommender._sleep = sleep
    with pytest.raises(Overloaded, match="full"):
        recommender.recommend("red")
    assert len(server.asked) == 3
    assert all(2 <= pause <= 2.01 for pause in pauses)
    assert clock.now_s - 1000 < 5


def test_an_overload_is_answered_by_the_edge_at_once(tiny_bundle: Path) -> None:
    answer: Callable[[int], tuple[int, bytes]] = lambda texts: (429, b'{"error": "full"}')  # noqa: E731
    with servers.http_server(answer, headers={"Retry-After": "60"}) as url, Recommender(url, fallback=tiny_bundle) as one:
        found = one.recommend(item_text(3))
    assert (found.items[0].item_id, found.served_by, found.attempts) == ("3", ServedBy.EDGE, 1)
    assert "HTTP 429, full" in (found.fallback_reason or "")
    assert "pause" not in found.stages_ms


def test_the_edge_server_says_when_to_come_back(tiny_bundle: Path) -> None:
    held = HeldModel(tiny_bundle)
    with running(held, Limits(queue=64)) as server, Recommender(server.url, retries=ONCE, timeout_s=20) as one:
        asking = [threading.Thread(target=one.recommend, args=([item_text(0)] * 64,), daemon=True) for _ in range(2)]
        asking[0].start()
        assert held.entered.acquire(timeout=10)
        asking[1].start()
        while server.metric("bertrec_edge_waiting_texts") < 64:
            time.sleep(0.01)
        with pytest.raises(Overloaded, match=r"HTTP 429, 64 texts wait") as raised:
            one.recommend("red")
        assert raised.value.retry_after_s >= 1
        held.go_on.set()
        for thread in asking:
            thread.join(20)
        assert one.recommend(item_text(3)).items[0].item_id == "3"


def test_the_edge_server_says_so_where_it_is_late(tiny_bundle: Path) -> None:
    held = HeldModel(tiny_bundle)
    with running(held, Limits(timeout_s=0.2)) as server, Recommender(server.url, retries=ONCE, timeout_s=20) as one:
        with pytest.raises(Overloaded, match=r"HTTP 503, no answer within 0.2 s") as raised:
            one.recommend("red")
        held.go_on.set()
    assert raised.value.retry_after_s >= 1


def test_triton_says_so_where_its_queue_is_full(narrow_triton: TritonServer, scheme: str) -> None:
    kinds: list[type | None] = []

    def ask(one: Recommender, number: int) -> None:
        try:
            answers = one.recommend([item_text(number % ITEMS)] * MAX_BATCH_SIZE, k=1, timeout_s=60)
            assert {answer.items[0].item_id for answer in answers} == {str(number % ITEMS)}
            kinds.append(None)
        except Unavailable as error:
            kinds.append(type(error))

    url = narrow_triton.grpc_url if scheme == "grpc" else narrow_triton.http_url
    with Recommender(url, retries=ONCE) as one:
        asking = [threading.Thread(target=ask, args=(one, number), daemon=True) for number in range(CLIENTS)]
        for thread in asking:
            thread.start()
        for thread in asking:
            thread.join(60)
    assert len(kinds) == len(asking)
    assert set(kinds) == {None, Overloaded}
