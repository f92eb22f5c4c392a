"""Ranking metrics over the whole catalogue, with one relevant item a query.

Definitions as in ir-measures, against which they are tested; ties go to the lower item index. No metric is sampled: sampling
changes the order of models (Krichene and Rendle, 2020).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from train.examples import UNSEEN

CUTOFF = 10


@dataclass(frozen=True)
class RankingQuality:
    """Means over the queries. coverage: share of the catalogue that occurs in some top 10. diversity: see below."""

    queries: int
    recall_at_1: float
    recall_at_10: float
    ndcg_at_10: float
    mrr_at_10: float
    coverage_at_10: float
    diversity_at_10: float

    def to_dict(self) -> dict[str, float]:
        """The metrics by name."""
        return asdict(self)


def top_items(scores: NDArray[np.float32], k: int = CUTOFF) -> NDArray[np.int64]:
    """(queries, items) → (queries, min(k, items)): indices of the best items, best first, ties by index."""
    return np.argsort(-scores, axis=1, kind="stable")[:, :k]


def ndcg(top: NDArray[np.int64], relevant: NDArray[np.int64]) -> NDArray[np.float64]:
    """(queries,) NDCG of each query: 1 / log2(rank + 1) of its one relevant item, 0 where it is not in ``top``."""
    ranks = _ranks(top, relevant)
    return np.where(ranks > 0, 1.0 / np.log2(np.maximum(ranks, 1) + 1.0), 0.0)


def ranking_quality(top: NDArray[np.int64], relevant: NDArray[np.int64], item_vectors: NDArray[np.float32]) -> RankingQuality:
    """Metrics of ranked lists.

    top: (queries, ≥ 10 or all items) item indices, best first. relevant: (queries,) the right item, UNSEEN counts as a miss.
    item_vectors: (items, any) unit vectors by which intra-list diversity is measured: 1 − the mean cosine between the items
    of a list (Ziegler et al., 2005). They come from the pre-trained encoder, the same for every ranker.
    """
    top = top[:, :CUTOFF]
    ranks = _ranks(top, relevant)
    hit = ranks > 0
    return RankingQuality(
        queries=len(relevant),
        recall_at_1=float((ranks == 1).mean()),
        recall_at_10=float(hit.mean()),
        ndcg_at_10=float(ndcg(top, relevant).mean()),
        mrr_at_10=float(np.where(hit, 1.0 / np.maximum(ranks, 1), 0.0).mean()),
        coverage_at_10=len(np.unique(top)) / len(item_vectors),
        diversity_at_10=float(_diversity(top, item_vectors)),
    )


def _ranks(top: NDArray[np.int64], relevant: NDArray[np.int64]) -> NDArray[np.int64]:
    """(queries,) rank of the relevant item, from 1; 0 where it is not in the list."""
    hits = (top == relevant[:, None]) & (relevant[:, None] != UNSEEN)
    return np.where(hits.any(axis=1), hits.argmax(axis=1) + 1, 0)


def _diversity(top: NDArray[np.int64], item_vectors: NDArray[np.float32]) -> float:
    size = top.shape[1]
    if size < 2:
        return 0.0
    totals = np.asarray([np.square(item_vectors[row].sum(axis=0)).sum() for row in top])  # Σ cosines, the diagonal included
    norms = np.square(item_vectors).sum(axis=1)[top].sum(axis=1)
    return float((1.0 - (totals - norms) / (size * (size - 1))).mean())
