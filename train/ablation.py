"""What each part is worth: a run's recommender with signals switched off, popularity turned up, lists diversified, vectors cut.

The weights of the signals that stay are those that validation chose for all of them together; they are not chosen anew.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bertrec.diversity import diversified
from bertrec.tensors import MAX_K, TEXT_SIGNAL
from train.examples import Pairs
from train.metrics import CUTOFF, top_items
from train.rankers import Encode, RunRanker

POPULARITY = (0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0)
"""How strongly popularity counts, as a share of the weight that validation chose."""
DIVERSITY = (0.0, 0.1, 0.3, 0.5)
"""How strongly unlike items are asked for, as in a request."""
WIDTHS = (128, 64)
"""First dimensions of the interest vector that are ranked by alone; the preset full trains them to (Matryoshka)."""


def ablations(fused: RunRanker) -> list[RunRanker]:
    """``fused without X`` for every signal X of the run, then ``X alone``."""
    return [*(fused.without(signal) for signal in fused.items), *(fused.alone(signal) for signal in fused.items)]


def operating_points(fused: RunRanker, popularity: Sequence[float] = POPULARITY) -> list[RunRanker]:
    """The recommender at several weights of popularity, each named ``popularity × its share``."""
    return [dataclasses.replace(fused, name=point_name(share), popularity=share) for share in popularity]


def point_name(popularity: float) -> str:
    """What reports call an operating point."""
    return f"popularity × {popularity:g}"


@dataclass(frozen=True)
class DiversifiedRanker:
    """A run's best candidates, reordered by maximal marginal relevance as the server does it where it is asked to."""

    ranker: RunRanker
    diversity: float

    @property
    def name(self) -> str:
        """What reports call it."""
        return f"diversity {self.diversity:g}"

    def scores(self, queries: Pairs) -> NDArray[np.float32]:
        """(queries, items) float32: 10, 9, … 1 for the items of the list, −∞ for the others."""
        scores = np.array(self.ranker.scores(queries), np.float32)
        for row, history in enumerate(queries.histories):
            scores[row, list(history)] = -np.inf
        vectors = self.ranker.items[TEXT_SIGNAL].astype(np.float16)
        listed = np.full_like(scores, -np.inf)
        for row, top in enumerate(top_items(scores, min(MAX_K, scores.shape[1]))):
            best = top[np.isfinite(scores[row, top])]
            order = diversified(scores[row, best], vectors[best], diversity=self.diversity, k=CUTOFF)
            listed[row, best[order]] = np.arange(len(order), 0, -1)
        return listed


def diversified_lists(fused: RunRanker, strengths: Sequence[float] = DIVERSITY) -> list[DiversifiedRanker]:
    """The recommender at several strengths of diversity."""
    return [DiversifiedRanker(fused, strength) for strength in strengths]


def shorter_vectors(fused: RunRanker, widths: Sequence[int] = WIDTHS) -> list[RunRanker]:
    """The recommender by the first so many dimensions of the interest vector, scaled to length 1 again; only those it has."""
    items = fused.items[TEXT_SIGNAL]
    return [
        dataclasses.replace(
            fused,
            name=f"first {width} dimensions",
            items={**fused.items, TEXT_SIGNAL: items[:, :width]},
            encode=_Prefix(fused.encode, width),
        )
        for width in widths
        if width < items.shape[1]
    ]


@dataclass(frozen=True)
class _Prefix:
    encode: Encode
    width: int

    def __call__(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """(texts, width): the first dimensions, scaled to length 1."""
        cut = self.encode(texts)[:, : self.width]
        return np.asarray(cut / np.maximum(np.linalg.norm(cut, axis=1, keepdims=True), 1e-12), np.float32)
