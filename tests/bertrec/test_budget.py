"""Which numbers of a wish are budgets, and how numbers are written."""

from __future__ import annotations

import time

import pytest

from bertrec.budget import budget_of, number_in

BUDGETS = {
    "a dress under $80": 80,
    "budget below 50": 50,
    "less than 50 euros please": 50,
    "not more than 100": 100,
    "I don't want to spend more than 60": 60,
    "nothing over £75, thanks": 75,
    "my budget is 1,200.50 dollars": 1200.5,
    "budget 50-100": 100,
    "between 20 and 50": 50,
    "cheaper than 19,99 €": 19.99,
    "a laptop up to 2k": 2000,
    "UNDER   $80.": 80,
    "under 80, better below 60": 60,
    "50元以下的裙子": 50,
    "不超过300块的外套": 300,
    "预算在１００元以内": 100,
}

NO_BUDGETS = (
    "a green gown",
    "more than 50",
    "not under 50",
    "no less than 50",
    "ready in less than 5 minutes",
    "for weather below 30 degrees",
    "at most 3 colours",
    "under 500 mb",
    "3天以内送到",
    "不低于50元",
    "a size 12 under the coat",
)


@pytest.mark.parametrize(("text", "budget"), BUDGETS.items())
def test_a_budget_is_found(text: str, budget: float) -> None:
    assert budget_of(text) == budget


@pytest.mark.parametrize("text", NO_BUDGETS)
def test_other_numbers_are_no_budget(text: str) -> None:
    assert budget_of(text) is None


@pytest.mark.parametrize(
    ("value", "number"),
    [("$1,299.00", 1299), ("59,90 €", 59.9), ("1.299,00", 1299), ("1.299.000", 1_299_000), ("3.5", 3.5), ("L", None), ("", None)],
)
def test_numbers_are_read_with_points_and_commas(value: str, number: float | None) -> None:
    assert number_in(value) == number


@pytest.mark.parametrize("part", ["1", "1,", "under 1 minutes ", "not want to ", "budget is ", " to", "50 ", "between 1 "])
def test_no_text_is_slow(part: str) -> None:
    began = time.process_time()
    budget_of("not" + part * (8192 // len(part)))
    assert time.process_time() - began < 2  # patterns that go back and forth would take minutes
