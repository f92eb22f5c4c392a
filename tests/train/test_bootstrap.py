"""Intervals of means: of constants, against the normal approximation, and of paired differences."""

from __future__ import annotations

import numpy as np
import pytest

from train import bootstrap as module
from train.bootstrap import Estimate, bootstrap


def test_a_constant_has_itself_as_interval() -> None:
    (estimate,) = bootstrap(np.full((1, 7), 0.25), seed=0)
    assert estimate == Estimate(0.25, 0.25, 0.25)


def test_the_interval_of_many_queries_is_the_normal_one() -> None:
    values = (np.arange(2_000) % 5 == 0).astype(np.float64)  # a hit in every fifth query
    (estimate,) = bootstrap(values[None, :], seed=0)
    error = 1.96 * np.sqrt(0.2 * 0.8 / 2_000)
    assert estimate.value == pytest.approx(0.2)
    assert estimate.low == pytest.approx(0.2 - error, abs=0.002)
    assert estimate.high == pytest.approx(0.2 + error, abs=0.002)


def test_the_seed_decides() -> None:
    values = np.random.default_rng(0).random((3, 50))
    assert bootstrap(values, seed=1) == bootstrap(values, seed=1)
    assert bootstrap(values, seed=1) != bootstrap(values, seed=2)


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(0).random((2, 30))
    at_once = bootstrap(values, seed=0)
    monkeypatch.setattr(module, "_BLOCK", 30 * 7)
    assert bootstrap(values, seed=0) == at_once


def test_pairing_tells_a_difference_that_separate_intervals_do_not() -> None:
    random = np.random.default_rng(0)
    first = random.random(300)  # queries differ a lot, the rankers little
    second = first - 0.01 - 0.01 * random.random(300)
    one, other, difference = bootstrap(np.stack([first, second, first - second]), seed=0)
    assert one.low is not None and other.high is not None and one.low < other.high
    assert difference.value == pytest.approx(0.015, abs=0.001)
    assert difference.excludes_zero


def test_a_ranker_differs_from_itself_by_nothing() -> None:
    values = np.random.default_rng(0).random(40)
    (estimate,) = bootstrap((values - values)[None, :], seed=0)
    assert estimate == Estimate(0.0, 0.0, 0.0)
    assert not estimate.excludes_zero
