"""A real Triton dies, hangs and comes back under load: no call is lost, and the server is used again."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from bertrec.errors import Unavailable
from client import Answer, Recommender, Retries, ServedBy
from serving.triton import TritonServer
from tests.client.opened import opened
from tests.tiny import ITEMS, item_text

THREADS = 4
CALLS = 200
BACK_WITHIN_S = 8.0


@pytest.fixture
def server(triton_repository: Path) -> Iterator[TritonServer]:
    """A server to be mistreated."""
    started = TritonServer(triton_repository).start()
    yield started
    started.kill()


@pytest.fixture(params=["blocking-grpc", "asyncio-grpc", "blocking-http"])
def recommender(request: pytest.FixtureRequest, server: TritonServer, tiny_bundle: Path) -> Iterator[Recommender]:
    driver, scheme = request.param.split("-")
    with opened(driver, server.grpc_url if scheme == "grpc" else server.http_url, fallback=tiny_bundle, timeout_s=10) as one:
        assert one.recommend("red").served_by is ServedBy.TRITON
        yield one


@dataclass(frozen=True)
class Call:
    started_s: float
    answer: Answer


def call(recommender: Recommender, number: int) -> Call:
    started_s = time.monotonic()
    return Call(started_s, recommender.recommend(item_text(number % ITEMS), k=1))


def wait_for(recommender: Recommender, who: ServedBy) -> float:
    """Seconds until ``who`` answers, at most BACK_WITHIN_S."""
    started = time.monotonic()
    while recommender.recommend("red").served_by is not who:
        assert time.monotonic() - started < BACK_WITHIN_S
        time.sleep(0.05)
    return time.monotonic() - started


def test_no_call_is_lost_when_the_server_is_killed_and_it_is_used_again_when_it_is_back(
    recommender: Recommender, server: TritonServer, triton_repository: Path
) -> None:
    started, dead = threading.Semaphore(0), threading.Event()

    def one(number: int) -> Call:
        if number >= 3 * CALLS // 4:
            dead.wait()  # so many are asked of a dead server, however fast the living one was
        started.release()
        return call(recommender, number)

    with ThreadPoolExecutor(THREADS) as threads:
        futures = [threads.submit(one, number) for number in range(CALLS)]
        for _ in range(CALLS // 4):
            started.acquire()
        os.killpg(server.pid, signal.SIGKILL)
        dead_since_s = time.monotonic()
        dead.set()
        calls = [future.result() for future in futures]

    assert [made.answer.items[0].item_id for made in calls] == [str(number % ITEMS) for number in range(CALLS)]
    by_the_server = [made for made in calls if made.answer.served_by is ServedBy.TRITON]
    assert len(by_the_server) >= CALLS // 4 - THREADS
    after = [made.answer for made in calls if made.started_s > dead_since_s]
    assert len(after) >= CALLS // 4
    assert all(answer.served_by is ServedBy.EDGE and answer.degraded and answer.fallback_reason for answer in after)

    ports = server._started
    server.kill()
    with TritonServer(triton_repository, grpc_port=ports.grpc, http_port=ports.http, metrics_port=ports.metrics):
        wait_for(recommender, ServedBy.TRITON)
        assert not recommender.recommend("red").degraded


def test_a_server_that_hangs_costs_one_deadline_and_is_used_again_when_it_goes_on(
    recommender: Recommender, server: TritonServer
) -> None:
    timeout_s, process = 0.5, server.pid
    os.kill(process, signal.SIGSTOP)  # not the models' processes too: without work they bear it, with some they do not
    try:
        started = time.monotonic()
        first = recommender.recommend("denim dress", timeout_s=timeout_s)
        first_took_s = time.monotonic() - started
        second = recommender.recommend("denim dress", timeout_s=timeout_s)
    finally:
        os.kill(process, signal.SIGCONT)
    assert (first.items[0].item_id, first.served_by) == ("3", ServedBy.EDGE)
    assert f"gave no answer within {timeout_s:g} s" in (first.fallback_reason or "")
    assert timeout_s * 0.9 <= first_took_s <= timeout_s + 1.5
    assert second.served_by is ServedBy.EDGE
    assert second.latency_ms < 1e3 * timeout_s
    wait_for(recommender, ServedBy.TRITON)


def test_a_server_that_was_stopped_under_load_goes_on_with_the_same_process(server: TritonServer) -> None:
    ended = threading.Event()

    def work(number: int) -> int:
        answered = 0
        with Recommender(server.grpc_url, timeout_s=0.5, retries=Retries(attempts=1)) as recommender:
            while not ended.is_set():
                try:
                    answer = recommender.recommend(item_text(number), k=1)
                except Unavailable:
                    time.sleep(0.01)
                    continue
                assert answer.items[0].item_id == str(number)
                answered += 1
        return answered

    with ThreadPoolExecutor(THREADS) as threads:
        futures = [threads.submit(work, number) for number in range(THREADS)]
        time.sleep(0.5)
        os.kill(server.pid, signal.SIGSTOP)
        time.sleep(1.5)
        os.kill(server.pid, signal.SIGCONT)
        time.sleep(1.0)
        ended.set()
        assert all(future.result() for future in futures)
    with Recommender(server.grpc_url) as recommender:
        assert recommender.recommend(item_text(1), k=1).items[0].item_id == "1"
    assert server.is_alive()
