"""Our metrics agree with ir-measures, and with what can be counted by hand."""

from __future__ import annotations

import ir_measures
import numpy as np
import pytest
from ir_measures import RR, R, nDCG

from train.examples import UNSEEN
from train.metrics import ndcg, ranking_quality, top_items


def test_agrees_with_ir_measures_also_on_ties_and_unseen_items() -> None:
    random = np.random.default_rng(0)
    queries, items = 300, 40
    scores = np.round(random.normal(size=(queries, items)), 1).astype(np.float32)  # rounded: many ties
    relevant = random.integers(-1, items, size=queries)
    top = top_items(scores)
    ours = ranking_quality(top, relevant, np.eye(items, dtype=np.float32))

    # ir-measures breaks ties by document id, so the rank is handed over as a score, ties already broken by item index.
    run = [
        ir_measures.ScoredDoc(str(query), str(item), float(-rank))
        for query, row in enumerate(top.tolist())
        for rank, item in enumerate(row)
    ]
    truth = [ir_measures.Qrel(str(query), str(item), 1) for query, item in enumerate(relevant.tolist())]
    theirs = ir_measures.calc_aggregate([nDCG @ 10, RR @ 10, R @ 10, R @ 1], truth, run)

    assert (relevant == UNSEEN).sum() > 0
    assert ours.ndcg_at_10 == pytest.approx(theirs[nDCG @ 10], abs=1e-9)
    assert ours.mrr_at_10 == pytest.approx(theirs[RR @ 10], abs=1e-9)
    assert ours.recall_at_10 == pytest.approx(theirs[R @ 10], abs=1e-9)
    assert ours.recall_at_1 == pytest.approx(theirs[R @ 1], abs=1e-9)


def test_ties_go_to_the_lower_index() -> None:
    assert top_items(np.asarray([[1.0, 2.0, 2.0, 1.0]], np.float32), k=4).tolist() == [[1, 2, 0, 3]]


def test_counts_by_hand() -> None:
    top = np.asarray([[0, 1], [1, 0], [2, 0]])
    relevant = np.asarray([0, 0, UNSEEN])
    quality = ranking_quality(top, relevant, np.eye(4, dtype=np.float32))
    assert quality.queries == 3
    assert quality.recall_at_1 == pytest.approx(1 / 3)
    assert quality.recall_at_10 == pytest.approx(2 / 3)
    assert quality.mrr_at_10 == pytest.approx((1 + 0.5) / 3)
    assert quality.ndcg_at_10 == pytest.approx((1 + 1 / np.log2(3)) / 3)
    assert quality.coverage_at_10 == pytest.approx(3 / 4)


def test_diversity_is_one_minus_the_mean_cosine_of_a_list() -> None:
    same = np.asarray([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]], np.float32)
    alike = ranking_quality(np.asarray([[0, 1]]), np.asarray([0]), same)
    apart = ranking_quality(np.asarray([[0, 2]]), np.asarray([0]), same)
    mixed = ranking_quality(np.asarray([[0, 1, 2]]), np.asarray([0]), same)
    assert alike.diversity_at_10 == pytest.approx(0.0)
    assert apart.diversity_at_10 == pytest.approx(1.0)
    assert mixed.diversity_at_10 == pytest.approx(2 / 3)


def test_an_unseen_item_is_a_miss_even_where_a_list_is_padded() -> None:
    assert ndcg(np.asarray([[3, UNSEEN]]), np.asarray([UNSEEN])).tolist() == [0.0]
