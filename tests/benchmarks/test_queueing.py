"""The simulated batcher, against queues whose means are known in closed form."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import pytest

from benchmarks.queueing import ServiceTimes, fitted, poisson, simulate
from bertrec.errors import InvalidInput

REQUESTS = 200_000
CLOSE = 0.04
"""Of a mean over so many requests, at these loads, with the seeds below."""


def exponential(mean_s: float, *, seed: int) -> list[float]:
    times: list[float] = np.random.default_rng(seed).exponential(mean_s, REQUESTS).tolist()
    return times


def taken(times: list[float], first: int, batch: int) -> float:
    return times[first]


def mean_s(rate: float, times: list[float], **options: int) -> float:
    due = (poisson(REQUESTS, seed=1) / rate).tolist()
    return float(simulate(due, partial(taken, times), **options).latencies_s.mean())


@pytest.mark.parametrize("load", [0.3, 0.6, 0.8])
def test_one_server_with_exponential_times_is_m_m_1(load: float) -> None:
    found = mean_s(100 * load, exponential(0.01, seed=2), most=1)
    assert found == pytest.approx(0.01 / (1 - load), rel=CLOSE)


def test_the_percentile_of_m_m_1_is_that_of_an_exponential() -> None:
    latencies = []
    for seed in range(4):
        due, times = (poisson(REQUESTS, seed=10 + seed) / 60).tolist(), exponential(0.01, seed=20 + seed)
        latencies.append(simulate(due, partial(taken, times), most=1).latencies_s)
    assert np.percentile(np.concatenate(latencies), 99) == pytest.approx(math.log(100) * 0.01 / (1 - 0.6), rel=CLOSE)


@pytest.mark.parametrize("load", [0.5, 0.8])
def test_constant_times_are_m_d_1(load: float) -> None:
    """Pollaczek and Khinchine: the wait is half of that of M/M/1."""
    found = mean_s(100 * load, [0.01] * REQUESTS, most=1)
    assert found == pytest.approx(0.01 + 0.01 * load / (2 * (1 - load)), rel=CLOSE)


@pytest.mark.parametrize(("servers", "load"), [(2, 0.7), (4, 0.8)])
def test_several_servers_are_erlang_c(servers: int, load: float) -> None:
    offered = servers * load
    queued = offered**servers / math.factorial(servers) / (1 - load)
    waits = queued / (sum(offered**n / math.factorial(n) for n in range(servers)) + queued)
    expected = 0.01 + waits * 0.01 / (servers * (1 - load))
    assert mean_s(100 * offered, exponential(0.01, seed=2), servers=servers, most=1) == pytest.approx(expected, rel=CLOSE)


@pytest.mark.parametrize("load", [0.5, 2.0, 5.0])
def test_batches_of_any_size_with_exponential_times_have_a_mean_in_closed_form(load: float) -> None:
    """By renewal: a busy period holds 1 + load executions, and who comes in it waits for one to end, memorylessly."""
    rate, mean = 100 * load, 0.01
    busy = (1 + load) * mean / ((1 + load) * mean + 1 / rate)
    assert mean_s(rate, exponential(mean, seed=2), most=REQUESTS) == pytest.approx(mean * (1 + busy), rel=CLOSE)


def test_requests_wait_for_the_execution_before_and_share_the_next() -> None:
    service = ServiceTimes((1, 2, 4), (1.0, 1.5, 2.5))
    found = simulate([0.0, 0.1, 0.2, 0.9, 5.0], service.drawn(5, seed=0), most=2)
    # alone 0–1; two of three 1–2.5; the last of them 2.5–3.5; alone 5–6
    assert found.latencies_s.tolist() == pytest.approx([1.0, 2.4, 2.3, 2.6, 1.0])
    assert found.executions == 4


def test_service_times_rise_with_the_batch_and_go_on_in_proportion() -> None:
    service = fitted({1: (100, 1.0), 4: (10, 0.3), 2: (10, 0.35)}, [0.012])
    assert service.sizes == (1, 2, 4)
    assert service.seconds == pytest.approx((0.01, 0.0325, 0.0325))
    assert service.overhead_s == pytest.approx(0.002)
    assert service.mean(3) == pytest.approx(0.0325)
    assert service.mean(8) == pytest.approx(0.065)
    assert service.bound == pytest.approx(4 / 0.0325)


def test_the_spread_of_undisturbed_latencies_is_that_of_single_executions() -> None:
    alone = [0.006, 0.012, 0.018]
    service = fitted({1: (100, 1.0)}, alone)
    drawn = service.drawn(REQUESTS, seed=3)
    times = [drawn(first, 1) for first in range(REQUESTS)]
    assert sorted({round(one, 9) for one in times}) == pytest.approx([one - 0.002 for one in alone])
    assert np.mean(times) == pytest.approx(0.01, rel=0.01)


def test_without_a_text_alone_nothing_is_fitted() -> None:
    with pytest.raises(InvalidInput, match="no execution of one text .*accepted .*--clients 1"):
        fitted({2: (1, 1.0)}, [0.1])
