"""Ranking metrics over the whole catalogue, with one relevant item a query.

Definitions as in ir-measures, against which they are tested; ties go to the lower item index. No metric is sampled: sampling
changes the order of models (Krichene and Rendle, 2020). Metrics are given a query each, so that intervals can be drawn for
their means; only coverage and Gini belong to all queries together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from train.examples import UNSEEN

CUTOFF = 10
"""The length of a list that is shown, by which all metrics but the recalls are taken."""
KEPT = 50
"""The length of a list that is kept: recall@50 is what a second stage could still rank."""

Labels = frozenset[str]
"""An item's values of the primary attribute; empty where it has none."""


@dataclass(frozen=True)
class ItemFacts:
    """What the metrics ask of the ranked items.

    vectors: (items, any) float32 unit vectors, the same for every ranker; zeros where an item has none. counts: (items,)
    training interactions. labels: of each item, or None where the data has no attribute.
    """

    vectors: NDArray[np.float32]
    counts: NDArray[np.int64]
    labels: Sequence[Labels] | None = None


def top_items(scores: NDArray[np.float32], k: int = CUTOFF) -> NDArray[np.int64]:
    """(queries, items) → (queries, min(k, items)): indices of the best items, best first, ties by index.

    UNSEEN stands where the score is −∞: the item was excluded, and the list ends.
    """
    top = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return np.where(np.isneginf(np.take_along_axis(scores, top, axis=1)), UNSEEN, top)


def ndcg(top: NDArray[np.int64], relevant: NDArray[np.int64]) -> NDArray[np.float64]:
    """(queries,) NDCG of each query: 1 / log2(rank + 1) of its one relevant item, 0 where it is not in ``top``."""
    return _discounted(relevant_ranks(top, relevant))


def relevant_ranks(top: NDArray[np.int64], relevant: NDArray[np.int64]) -> NDArray[np.int64]:
    """(queries,) rank of the relevant item in ``top``, from 1; 0 where it is not there or UNSEEN."""
    hits = (top == relevant[:, None]) & (relevant[:, None] != UNSEEN)
    return np.where(hits.any(axis=1), hits.argmax(axis=1) + 1, 0)


def rank_metrics(ranks: NDArray[np.int64]) -> dict[str, NDArray[np.float64]]:
    """Metric → (queries,) float64, of :func:`relevant_ranks` within the ``KEPT`` best."""
    shown = np.where(ranks <= CUTOFF, ranks, 0)
    return {
        "recall_at_1": (ranks == 1).astype(np.float64),
        "recall_at_10": (shown > 0).astype(np.float64),
        "recall_at_50": (ranks > 0).astype(np.float64),
        "ndcg_at_10": _discounted(shown),
        "mrr_at_10": np.where(shown > 0, 1.0 / np.maximum(shown, 1), 0.0),
    }


def same_class(top: NDArray[np.int64], labels: Sequence[Labels], relevant_labels: Sequence[Labels]) -> NDArray[np.float64]:
    """(queries,) 1 where the first item shares a value of the primary attribute with the right one, which may be UNSEEN."""
    firsts = (labels[item] if item != UNSEEN else frozenset() for item in top[:, 0].tolist())
    return np.asarray([bool(first & right) for first, right in zip(firsts, relevant_labels, strict=True)], np.float64)


def list_metrics(top: NDArray[np.int64], facts: ItemFacts) -> dict[str, NDArray[np.float64]]:
    """Metric → (queries,) float64, of the items in the first ``CUTOFF`` ranks, whatever was right.

    diversity: 1 − the mean cosine between two items of a list (Ziegler et al., 2005), 0 for a list of one. novelty: mean
    self-information −log2 p of a list's items in bits (Zhou et al., 2010; Castells et al., 2015), where p is an item's share of
    the training interactions with half a one added to every item.
    """
    shrunk = facts.counts + 0.5
    information = -np.log2(shrunk / shrunk.sum())  # (items,)
    lists = [row[row != UNSEEN] for row in top[:, :CUTOFF]]
    return {
        "diversity_at_10": np.asarray([_diversity(facts.vectors[items]) for items in lists]),
        "novelty_at_10": np.asarray([information[items].mean() if len(items) else 0.0 for items in lists]),
    }


def exposure_metrics(top: NDArray[np.int64], items: int) -> dict[str, float]:
    """How the first ``CUTOFF`` ranks of all queries spread over the catalogue of ``items``.

    coverage: share of the items that occur. gini: Gini coefficient of how often each occurs, from 0 where all do equally often
    to (items − 1) / items where one takes every place (Fleder and Hosanagar, 2009).
    """
    shown = top[:, :CUTOFF]
    exposure = np.sort(np.bincount(shown[shown != UNSEEN], minlength=items))  # (items,) ascending
    weights = 2.0 * np.arange(1, items + 1) - items - 1
    return {
        "coverage_at_10": float((exposure > 0).mean()),
        "gini_at_10": float(weights @ exposure / (items * max(int(exposure.sum()), 1))),
    }


def _discounted(ranks: NDArray[np.int64]) -> NDArray[np.float64]:
    return np.where(ranks > 0, 1.0 / np.log2(np.maximum(ranks, 1) + 1.0), 0.0)


def _diversity(vectors: NDArray[np.float32]) -> float:
    """1 − the mean cosine of two different rows of (items, any) unit vectors."""
    size = len(vectors)
    if size < 2:
        return 0.0
    cosines = np.square(vectors.sum(axis=0)).sum() - np.square(vectors).sum()  # of all ordered pairs, the diagonal left out
    return 1.0 - float(cosines) / (size * (size - 1))
