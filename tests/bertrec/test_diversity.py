"""Maximal marginal relevance, on vectors whose right order is known."""

from __future__ import annotations

import numpy as np

from bertrec.diversity import diversified

SCORES = np.asarray([3.0, 2.9, 2.0, 1.0], np.float32)
VECTORS = np.asarray([[1, 0], [1, 0], [0, 2], [-1, 0]], np.float16)  # the second is as the first


def test_no_diversity_is_the_order_of_the_scores() -> None:
    assert diversified(SCORES, VECTORS, diversity=0, k=4).tolist() == [0, 1, 2, 3]


def test_what_is_like_a_chosen_item_comes_later() -> None:
    # Gains after the first, with relevance (1, .95, .5, 0): .475 − .5, .25 − 0 and 0 + .5.
    assert diversified(SCORES, VECTORS, diversity=0.5, k=4).tolist() == [0, 3, 2, 1]
    # .76 − .2, .4 − 0 and 0 + .2.
    assert diversified(SCORES, VECTORS, diversity=0.2, k=2).tolist() == [0, 1]
    # .57 − .4, .3 − 0 and 0 + .4.
    assert diversified(SCORES, VECTORS, diversity=0.4, k=2).tolist() == [0, 3]


def test_with_diversity_alone_the_best_is_still_first() -> None:
    assert diversified(SCORES, VECTORS, diversity=1, k=3).tolist() == [0, 3, 2]


def test_few_candidates_equal_scores_and_silent_vectors_do_no_harm() -> None:
    assert diversified(SCORES[:0], VECTORS[:0], diversity=0.5, k=3).tolist() == []
    assert diversified(SCORES[:1], VECTORS[:1], diversity=0.5, k=3).tolist() == [0]
    assert diversified(np.ones(3, np.float32), np.zeros((3, 2), np.float16), diversity=0.5, k=3).tolist() == [0, 1, 2]
