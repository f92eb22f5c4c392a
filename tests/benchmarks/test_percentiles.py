"""A percentile is shown where the samples carry it, and nowhere else."""

from __future__ import annotations

import pytest

from benchmarks.percentiles import carries, cells_ms, shown


@pytest.mark.parametrize(("percent", "least"), [(50, 1), (90, 10), (95, 20), (99, 100), (99.9, 1_000)])
def test_a_percentile_takes_so_many_samples_that_one_lies_beyond_it(percent: float, least: int) -> None:
    assert carries(least, percent)
    assert not carries(least - 1, percent)
    assert shown(3.14159, percent, least) == "3.14"
    assert shown(3.14159, percent, least - 1) == "–"


def test_what_was_not_measured_is_a_dash() -> None:
    assert shown(None, 50, 1_000) == "–"
    assert shown(0.25, 99, 1_000, ".1%") == "25.0%"


def test_cells_are_milliseconds_of_what_is_carried() -> None:
    assert cells_ms([0.010] * 10, (50, 95, 99)) == ["10.00", "–", "–"]
    assert cells_ms([0.001 * number for number in range(101)], (50, 95, 99), ".1f") == ["50.0", "95.0", "99.0"]
