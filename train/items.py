"""The item side of the score: one learned vector a signal and item, and the prior."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from train.examples import UNSEEN, Pairs
from train.metrics import CUTOFF

FIRST_SCALE = 10.0
"""Inverse temperature of the first item vectors: cosines of unit vectors become logits."""
PRIOR_SHRINKAGE = 0.5
"""Interactions added to every item, so that one never chosen keeps a finite log probability."""
LEXICAL_GATES = (0.5, 0.75, 1.0, 1.25, 1.5, 2.0)
PRIOR_WEIGHTS = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25)


class ItemSide(nn.Module):
    """Item vectors of the text and the lexical signal; the score is their inner products plus the weighted prior."""

    log_prior: Tensor

    def __init__(
        self, text: NDArray[np.float32], lexical: NDArray[np.float32], counts: NDArray[np.int64], prior_weight: float
    ) -> None:
        """text: (items, hidden), lexical: (items, dimensions), unit vectors to start from. counts: (items,) interactions."""
        super().__init__()
        self.text = nn.Parameter(torch.from_numpy(text) * FIRST_SCALE)
        self.lexical = nn.Parameter(torch.from_numpy(lexical) * FIRST_SCALE)
        shrunk = torch.from_numpy(counts).float() + PRIOR_SHRINKAGE
        self.register_buffer("log_prior", torch.log(shrunk / shrunk.sum()))
        self.prior_weight = prior_weight

    def forward(self, interest: Tensor, words: Tensor) -> Tensor:
        """(batch, hidden) interest vectors and (batch, dimensions) lexical vectors → (batch, items) logits."""
        return interest @ self.text.T + words @ self.lexical.T + self.prior_weight * self.log_prior


@dataclass(frozen=True)
class Fusion:
    """The weights of the signals in the sum, the text signal's being 1, and NDCG@10 on the queries that chose them."""

    lexical: float
    prior: float
    ndcg_at_10: float


def centroids(vectors: NDArray[np.float32], pairs: Pairs, items: int) -> NDArray[np.float32]:
    """(items, dimensions): the mean of each item's texts' vectors, of length 1; zeros for an item without texts."""
    sums = np.zeros((items, vectors.shape[1]), np.float32)
    np.add.at(sums, pairs.items, vectors)
    lengths = np.linalg.norm(sums, axis=1, keepdims=True)
    return np.divide(sums, lengths, out=np.zeros_like(sums), where=lengths > 0)


def choose_fusion(
    side: ItemSide, interest: NDArray[np.float32], words: NDArray[np.float32], relevant: NDArray[np.int64]
) -> Fusion:
    """The weights with the best NDCG@10 over validation queries; those of training where there are no queries."""
    candidates = [(gate, prior) for gate in LEXICAL_GATES for prior in PRIOR_WEIGHTS]
    if not len(relevant):
        return Fusion(1.0, side.prior_weight, float("nan"))
    gains = np.zeros((len(candidates), len(relevant)))
    with torch.inference_mode():
        for start in range(0, len(relevant), 256):  # a block of queries at a time bounds the memory: (256, items) scores
            rows = slice(start, start + 256)
            text = torch.from_numpy(interest[rows]) @ side.text.T
            lexical = torch.from_numpy(words[rows]) @ side.lexical.T
            for row, (gate, prior) in enumerate(candidates):
                gains[row, rows] = _gains(text + gate * lexical + prior * side.log_prior, torch.from_numpy(relevant[rows]))
    means = gains.mean(axis=1)
    best = int(means.argmax())
    return Fusion(*candidates[best], float(means[best]))


def _gains(scores: Tensor, relevant: Tensor) -> NDArray[np.float64]:
    """(queries,) NDCG@10 of each query's relevant item, ties going to the lower index."""
    known = relevant.clamp(min=0)
    own = scores.gather(1, known[:, None])  # (queries, 1)
    before = torch.arange(scores.shape[1])[None, :] < known[:, None]
    ranks = 1 + ((scores > own) | ((scores == own) & before)).sum(1)
    hit = (ranks <= CUTOFF) & (relevant != UNSEEN)
    return np.asarray(torch.where(hit, 1.0 / torch.log2(ranks + 1.0), torch.zeros(())).double())
