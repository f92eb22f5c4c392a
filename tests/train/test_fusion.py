"""The choice of weights: a signal that knows the answer wins, one that knows nothing is left out, a gate where it pays."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from bertrec.fusion import FEATURES
from train.examples import UNSEEN
from train.fusion import SHRINKAGES, Asked, choose_fusion, choose_shrinkage, default_fusion, gains

ITEMS, QUERIES = 30, 200
RELEVANT = np.random.default_rng(0).integers(ITEMS, size=QUERIES)
PRIOR = np.zeros((ITEMS, 1), np.float32)


def knowing(share: NDArray[np.bool_] | None = None) -> NDArray[np.float32]:
    """User sides that name the right item, where ``share`` says so; elsewhere a wrong one."""
    sides = np.eye(ITEMS, dtype=np.float32)[RELEVANT]
    return sides if share is None else np.where(share[:, None], sides, np.roll(sides, 1, axis=1))


def asked(features: NDArray[np.float32] | None = None, **sides: NDArray[np.float32]) -> Asked:
    ones = np.ones((QUERIES, 1), np.float32)
    features = np.zeros((QUERIES, len(FEATURES)), np.float32) if features is None else features
    return Asked({**sides, "prior": ones}, features, [()] * QUERIES, RELEVANT)


def items(*signals: str) -> dict[str, NDArray[np.float32]]:
    return {**{name: np.eye(ITEMS, dtype=np.float32) for name in signals}, "prior": PRIOR}


def test_a_signal_that_misleads_loses_its_weight() -> None:
    half = np.arange(QUERIES) < 40
    fusion = choose_fusion(asked(text=knowing(), lexical=knowing(half)), items("text", "lexical"), 0.5)
    assert fusion.ndcg_at_10 == 1.0
    assert fusion.gates.biases["text"] > fusion.gates.biases.get("lexical", -np.inf)


def test_the_weights_are_those_by_which_the_items_were_chosen() -> None:
    """Items drawn from the softmax of known weights: two signals that know something, a prior, and one that knows nothing."""
    random, queries, width, true = np.random.default_rng(3), 4_000, 8, {"text": 2.0, "lexical": 0.7, "graph": 0.0, "prior": 0.4}
    ones = np.ones((queries, 1), np.float32)
    sides = {name: random.normal(size=(queries, width)).astype(np.float32) for name in ("text", "lexical", "graph")}
    known = {name: random.normal(size=(ITEMS, width)).astype(np.float32) for name in sides}
    known["prior"] = random.normal(size=(ITEMS, 1)).astype(np.float32)
    sides["prior"] = ones
    scores = sum(weight * sides[name] @ known[name].T for name, weight in true.items())
    chosen = np.argmax(scores + random.gumbel(size=(queries, ITEMS)), axis=1)
    asked = Asked(sides, np.zeros((queries, len(FEATURES)), np.float32), [()] * queries, chosen)
    found = {name: np.exp(bias) for name, bias in choose_fusion(asked, known, 0.5).gates.biases.items()}
    assert found == {name: pytest.approx(weight, rel=0.15) for name, weight in true.items() if weight}


def test_weights_that_rank_better_win_over_likelier_ones() -> None:
    """A signal that is right at the top mostly, and far off elsewhere, is no likely one; it ranks best all the same."""
    random = np.random.default_rng(5)
    right, guessed = random.random(QUERIES) < 0.7, random.random(QUERIES) < 0.5
    sides = np.where(right[:, None], knowing(), -20.0 * knowing()).astype(np.float32)
    fusion = choose_fusion(asked(text=sides, lexical=knowing(guessed)), items("text", "lexical"), 0.5)
    assert fusion.ndcg_at_10 > 0.7
    weights = {name: np.exp(bias) for name, bias in fusion.gates.biases.items()}
    assert weights["text"] > weights.get("lexical", 0.0)


def test_an_item_that_is_chosen_once_more_changes_no_weight() -> None:
    """It is in the history, so that no weight can bring it; others would all go to nothing for its sake."""
    half = np.arange(QUERIES) % 2 == 0
    known = np.random.default_rng(4).random(QUERIES) < 0.7
    sides = {"text": knowing(known), "prior": np.ones((QUERIES, 1), np.float32)}
    features = np.zeros((QUERIES, len(FEATURES)), np.float32)
    again = [(int(item),) if repeated else () for item, repeated in zip(RELEVANT, half, strict=True)]
    found = choose_fusion(Asked(sides, features, again, RELEVANT), items("text"), 0.5)
    alone = Asked(
        {name: side[~half] for name, side in sides.items()}, features[~half], [()] * int((~half).sum()), RELEVANT[~half]
    )
    assert found.gates.biases["text"] == pytest.approx(choose_fusion(alone, items("text"), 0.5).gates.biases["text"], abs=1e-3)


def test_a_gate_is_learned_where_a_feature_tells_whom_to_believe() -> None:
    first = np.random.default_rng(1).random(QUERIES) < 0.5
    features = np.zeros((QUERIES, len(FEATURES)), np.float32)
    features[:, 3] = first
    fusion = choose_fusion(asked(features, text=knowing(first), lexical=knowing(~first)), items("text", "lexical"), 0.5)
    assert fusion.gates.weights
    assert fusion.gates.weights["text"][3] > 0 > fusion.gates.weights["lexical"][3]
    assert fusion.gated_ndcg_at_10 > fusion.constant_ndcg_at_10
    weights = {name: fusion.gates.values(features, name) for name in ("text", "lexical")}
    assert ((weights["text"] > weights["lexical"]) == first).all()


def test_without_queries_the_weights_of_training_stay() -> None:
    nothing = Asked(
        {"text": np.zeros((0, ITEMS), np.float32)}, np.zeros((0, len(FEATURES)), np.float32), [], np.zeros(0, np.int64)
    )
    fusion = choose_fusion(
        Asked({**nothing.sides, "prior": np.zeros((0, 1), np.float32)}, nothing.features, [], nothing.relevant),
        items("text"),
        0.5,
    )
    assert fusion.gates.biases == default_fusion(["text", "prior"], 0.5).gates.biases
    assert fusion.gates.biases["prior"] == pytest.approx(np.log(0.5))


def test_items_of_the_history_are_not_ranked() -> None:
    """Every history holds the item that would else come first; the right one is second."""
    wrong = (RELEVANT + 1) % ITEMS
    sides = np.eye(ITEMS, dtype=np.float32)[wrong] + 0.5 * np.eye(ITEMS, dtype=np.float32)[RELEVANT]
    ones = np.ones((QUERIES, 1), np.float32)
    histories = [(int(item),) for item in wrong]
    features = np.zeros((QUERIES, len(FEATURES)), np.float32)
    fusion = choose_fusion(Asked({"text": sides, "prior": ones}, features, histories, RELEVANT), items("text"), 0.5)
    assert fusion.ndcg_at_10 == 1.0


def test_shrinkage_is_strong_where_what_was_learned_is_noise() -> None:
    random = np.random.default_rng(2)
    truth = np.eye(ITEMS, dtype=np.float32)
    noise = truth + random.normal(size=truth.shape).astype(np.float32)
    prior = torch.zeros(ITEMS)
    counts = np.full(ITEMS, 2)
    assert choose_shrinkage(noise, truth, counts, asked(text=knowing()), "text", prior) == SHRINKAGES[-1]
    assert choose_shrinkage(truth, noise, counts, asked(text=knowing()), "text", prior) == SHRINKAGES[0]


def test_gains_are_ndcg_with_ties_to_the_lower_index() -> None:
    scores = torch.tensor([[1.0, 1.0, 0.0], [0.0, 1.0, 2.0], [1.0, 0.0, 0.0]])
    np.testing.assert_allclose(gains(scores, torch.tensor([1, 2, UNSEEN])), [1 / np.log2(3), 1.0, 0.0])
