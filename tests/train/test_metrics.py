"""Our metrics agree with ir-measures, and with what can be counted by hand."""

from __future__ import annotations

import ir_measures
import numpy as np
import pytest
from ir_measures import RR, R, nDCG

from train.examples import UNSEEN
from train.metrics import (
    KEPT,
    ItemFacts,
    exposure_metrics,
    list_metrics,
    ndcg,
    rank_metrics,
    relevant_ranks,
    same_class,
    top_items,
)


def test_agrees_with_ir_measures_query_by_query_also_on_ties_and_unseen_items() -> None:
    random = np.random.default_rng(0)
    queries, items = 300, 80
    scores = np.round(random.normal(size=(queries, items)), 1).astype(np.float32)  # rounded: many ties
    relevant = random.integers(-1, items, size=queries)
    top = top_items(scores, KEPT)
    ours = rank_metrics(relevant_ranks(top, relevant))

    # ir-measures breaks ties by document id, so the rank is handed over as a score, ties already broken by item index.
    run = [
        ir_measures.ScoredDoc(str(query), str(item), float(-rank))
        for query, row in enumerate(top.tolist())
        for rank, item in enumerate(row)
    ]
    truth = [ir_measures.Qrel(str(query), str(item), 1) for query, item in enumerate(relevant.tolist())]
    names = {
        R @ 1: "recall_at_1",
        R @ 10: "recall_at_10",
        R @ 50: "recall_at_50",
        nDCG @ 10: "ndcg_at_10",
        RR @ 10: "mrr_at_10",
    }

    assert set(names.values()) == set(ours)
    assert (relevant == UNSEEN).sum() > 0
    assert 0 < ours["recall_at_10"].mean() < ours["recall_at_50"].mean() < 1
    for theirs in ir_measures.iter_calc(list(names), truth, run):
        assert ours[names[theirs.measure]][int(theirs.query_id)] == pytest.approx(theirs.value, abs=1e-9)


def test_ties_go_to_the_lower_index() -> None:
    assert top_items(np.asarray([[1.0, 2.0, 2.0, 1.0]], np.float32), k=4).tolist() == [[1, 2, 0, 3]]


def test_an_excluded_item_is_not_in_the_list() -> None:
    assert top_items(np.asarray([[-np.inf, 2.0, 3.0]], np.float32), k=3).tolist() == [[2, 1, UNSEEN]]


def test_counts_by_hand() -> None:
    top = np.asarray([[*range(50)]] * 4)
    ranks = relevant_ranks(top, np.asarray([0, 2, 10, UNSEEN]))
    assert ranks.tolist() == [1, 3, 11, 0]
    metrics = rank_metrics(ranks)
    assert metrics["recall_at_1"].tolist() == [1, 0, 0, 0]
    assert metrics["recall_at_10"].tolist() == [1, 1, 0, 0]
    assert metrics["recall_at_50"].tolist() == [1, 1, 1, 0]
    assert metrics["mrr_at_10"].tolist() == pytest.approx([1, 1 / 3, 0, 0])
    assert metrics["ndcg_at_10"].tolist() == pytest.approx([1, 0.5, 0, 0])


def test_the_class_counts_where_any_value_is_shared_also_for_an_item_that_is_not_ranked() -> None:
    labels = [frozenset({"drama", "crime"}), frozenset({"comedy"}), frozenset[str]()]
    top = np.asarray([[0], [1], [2], [UNSEEN]])
    right = [frozenset({"crime"}), frozenset({"drama"}), frozenset[str](), frozenset({"drama"})]
    assert same_class(top, labels, right).tolist() == [1, 0, 0, 0]


def test_diversity_is_one_minus_the_mean_cosine_of_a_list() -> None:
    facts = ItemFacts(np.asarray([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]], np.float32), np.ones(3, np.int64))
    top = np.asarray([[0, 1, UNSEEN], [0, 2, UNSEEN], [0, 1, 2], [0, UNSEEN, UNSEEN]])
    assert list_metrics(top, facts)["diversity_at_10"].tolist() == pytest.approx([0, 1, 2 / 3, 0])


def test_novelty_is_the_mean_information_of_a_list_in_bits() -> None:
    # With half an interaction added, the shares are 4/8, 2/8, 1/8 and 1/8.
    facts = ItemFacts(np.eye(4, dtype=np.float32), np.asarray([7, 3, 1, 1]) // 2)
    assert (facts.counts + 0.5).tolist() == [3.5, 1.5, 0.5, 0.5]
    information = -np.log2(np.asarray([3.5, 1.5, 0.5, 0.5]) / 6)
    novelty = list_metrics(np.asarray([[0, 1], [2, 3], [2, UNSEEN]]), facts)["novelty_at_10"]
    assert novelty.tolist() == pytest.approx([information[:2].mean(), np.log2(12), np.log2(12)])


def test_exposure_of_all_items_alike_and_of_one_alone() -> None:
    alike = exposure_metrics(np.asarray([[0, 1], [2, 3]]), 4)
    alone = exposure_metrics(np.asarray([[2, UNSEEN], [2, UNSEEN]]), 4)
    skewed = exposure_metrics(np.asarray([[0, 1], [0, UNSEEN]]), 2)
    assert alike == {"coverage_at_10": 1.0, "gini_at_10": pytest.approx(0.0)}
    assert alone == {"coverage_at_10": 0.25, "gini_at_10": pytest.approx(3 / 4)}
    assert skewed["gini_at_10"] == pytest.approx(
        1 / 6
    )  # 2 and 1 of 3 places: mean absolute difference 1/2, over twice the mean 3/2


def test_only_the_first_ten_ranks_are_shown() -> None:
    top = np.arange(50)[None, :]
    assert exposure_metrics(top, 50)["coverage_at_10"] == 0.2


def test_an_unseen_item_is_a_miss_even_where_a_list_is_padded() -> None:
    assert ndcg(np.asarray([[3, UNSEEN]]), np.asarray([UNSEEN])).tolist() == [0.0]
