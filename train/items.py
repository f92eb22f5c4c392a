"""The item side of one signal: a learned vector an item, its first value, and what an item that nobody chose gets instead."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from train.examples import Pairs

FIRST_SCALE = 10.0
"""Inverse temperature of the first item vectors: cosines of unit vectors become logits."""
PRIOR_SHRINKAGE = 0.5
"""Interactions added to every item, so that one never chosen keeps a finite log probability."""
RIDGE = 10.0
"""How firmly the map is held to where it begins; of 1, 10 and 100 the one that ranked applications of 1,000 texts best."""
ENOUGH = 20
"""Interactions beyond which an item's learned vector counts no more for the map: it is as sure as it gets."""


class ItemSide(nn.Module):
    """Item vectors of one signal, learned by a softmax over the catalogue in which popularity is known already."""

    log_prior: Tensor

    def __init__(
        self, first: NDArray[np.float32], counts: NDArray[np.int64], prior_weight: float, scale: float = FIRST_SCALE
    ) -> None:
        """first: (items, width), vectors of length 1 to start from, times ``scale``. counts: (items,) interactions."""
        super().__init__()
        self.vectors = nn.Parameter(torch.from_numpy(first) * scale)
        self.register_buffer("log_prior", torch.from_numpy(log_prior(counts)))
        self.prior_weight = prior_weight

    def forward(self, user: Tensor) -> Tensor:
        """(batch, width) user sides → (batch, items) logits."""
        return user @ self.vectors.T + self.prior_weight * self.log_prior

    def numpy(self) -> NDArray[np.float32]:
        """(items, width) the vectors as they are now."""
        return np.array(self.vectors.detach().cpu().numpy(), np.float32)


def log_prior(counts: NDArray[np.int64]) -> NDArray[np.float32]:
    """(items,) log popularity, shrunk."""
    shrunk = counts + PRIOR_SHRINKAGE
    return np.asarray(np.log(shrunk / shrunk.sum()), np.float32)


def centroids(vectors: NDArray[np.float32], pairs: Pairs, items: int) -> NDArray[np.float32]:
    """(items, dimensions): the mean of each item's texts' vectors, of length 1; zeros for an item without texts."""
    sums = np.zeros((items, vectors.shape[1]), np.float32)
    np.add.at(sums, pairs.items, vectors)
    lengths = np.linalg.norm(sums, axis=1, keepdims=True)
    return np.divide(sums, lengths, out=np.zeros_like(sums), where=lengths > 0)


@dataclass(frozen=True)
class ItemMap:
    """A linear map from what is said of an item to its learned vector, for items of which little or nothing was learned.

    matrix: (width + 1, width) float32; the last row is the constant.
    """

    matrix: NDArray[np.float32]

    def __call__(self, described: NDArray[np.float32]) -> NDArray[np.float32]:
        """(items, width) descriptions, of length 1 → (items, width) item vectors."""
        return np.asarray(described @ self.matrix[:-1] + self.matrix[-1], np.float32)

    def shifted(self, by: NDArray[np.float32]) -> ItemMap:
        """The map whose results lie lower by ``by``, (width,)."""
        return ItemMap(np.vstack([self.matrix[:-1], self.matrix[-1:] - by]).astype(np.float32))


def fit_map(
    described: NDArray[np.float32], learned: NDArray[np.float32], counts: NDArray[np.int64], scale: float = FIRST_SCALE
) -> ItemMap:
    """Ridge regression of the learned vectors on the descriptions, each item weighted by its interactions.

    Drawn to ``scale`` times the identity, as the item vectors began: where little was learned of any item, a new
    one is ranked as training would begin with it, by its description itself.
    """
    weights = np.minimum(counts, ENOUGH).astype(np.float64)[:, None]
    inputs = np.hstack([described, np.ones((len(described), 1))]).astype(np.float64)
    before = scale * np.eye(inputs.shape[1], described.shape[1])
    gram = inputs.T @ (weights * inputs) + RIDGE * np.eye(inputs.shape[1])
    learning = inputs.T @ (weights * (learned - inputs @ before))
    return ItemMap((before + np.linalg.solve(gram, learning)).astype(np.float32))


def shrink(
    learned: NDArray[np.float32], mapped: NDArray[np.float32], counts: NDArray[np.int64], strength: float
) -> NDArray[np.float32]:
    """The learned vectors, drawn towards the mapped ones as if those were ``strength`` interactions more.

    An item without interactions has the mapped vector alone (James–Stein shrinkage with a regression prior).
    """
    share = (counts / np.maximum(counts + strength, 1e-9))[:, None]
    return np.asarray(share * learned + (1 - share) * mapped, np.float32)
