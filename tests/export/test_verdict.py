"""Which losses are accepted, and what is said of those that are not."""

from __future__ import annotations

import pytest

from bertrec.errors import InvalidInput
from export.verdict import Budgets, judge

FINE = {"top10_overlap": 0.97, "shape_cosine_min": 1.0, "finite": 1.0}


@pytest.mark.parametrize(
    ("ndcg", "distances", "budgets", "why"),
    [
        (0.497, FINE, Budgets(), None),
        (0.494, FINE, Budgets(), "NDCG@10 +1.20% lost (accepted 1%)"),
        (0.494, FINE, Budgets(ndcg_loss=0.02), None),
        (0.52, {**FINE, "top10_overlap": 0.94}, Budgets(), "top-10 overlap 0.940 (accepted 0.95)"),
        (0.5, {**FINE, "top10_overlap": 0.94}, Budgets(overlap=0.9), None),
        (0.4, {**FINE, "finite": 0.0}, Budgets(), "NDCG@10 +20.00% lost (accepted 1%); gives NaN or infinity"),
        (0.5, {**FINE, "shape_cosine_min": 0.9}, Budgets(shape_cosine=0.9), None),
    ],
)
def test_what_exceeds_a_budget_is_the_reason(ndcg: float, distances: dict[str, float], budgets: Budgets, why: str | None) -> None:
    verdict = judge({"ndcg_at_10": ndcg}, {"ndcg_at_10": 0.5}, distances, budgets=budgets)
    assert verdict.verdict == ("passed" if why is None else "rejected")
    assert why is None or verdict.why == why


def test_budgets_are_shares() -> None:
    with pytest.raises(InvalidInput, match="the budget ndcg_loss is 5; accepted is a number from 0 to 1"):
        Budgets(ndcg_loss=5)
