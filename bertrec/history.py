"""The behaviour signal: what a user chose before, as a vector and as a text.

Every item has a factor from collaborative filtering (Hu, Koren and Volinsky, 2008); a user is the mean of the factors of his
past items, in which the latest count most (Ding and Li, 2005), so that one who came after training is understood as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

FACTORS_FILE = "behaviour_factors.npy"
MAX_HISTORY = 100
"""The latest items of a history that count."""
HALF_LIFE = 10
"""An item counts half as much as the one that the user chose so many items later."""
PROFILE_TITLES = 10
"""The latest titles that a profile names: about as many as fit into the encoder's tokens."""


def profile(titles: Sequence[str]) -> str:
    """A text for a user who said nothing, from the titles of the items that he chose, the latest first; empty without titles."""
    named = [title for title in reversed(titles) if title][:PROFILE_TITLES]
    return f"I liked {'; '.join(named)}." if named else ""


@dataclass(frozen=True)
class BehaviourSignal:
    """The items' factors, each of length 1; zeros for an item that nobody chose in training."""

    factors: NDArray[np.float16]  # (items, behaviour)

    @property
    def dimensions(self) -> int:
        """Length of a behaviour vector."""
        return int(self.factors.shape[1])

    def vectors(self, histories: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        """(batch, behaviour) float32: the weighted mean factor of each history's items, the latest last, of length 1.

        Zeros for an empty history, and for one of items that nobody chose in training.
        """
        vectors = np.zeros((len(histories), self.dimensions), np.float32)
        for row, history in enumerate(histories):
            if history:
                latest = list(history[-MAX_HISTORY:])
                weights = 0.5 ** (np.arange(len(latest), dtype=np.float32)[::-1] / HALF_LIFE)
                vectors[row] = weights @ self.factors[latest].astype(np.float32)
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        return np.divide(vectors, lengths, out=np.zeros_like(vectors), where=lengths > 0)

    def save(self, folder: Path) -> list[Path]:
        """Write the factors; returns their path."""
        folder.mkdir(parents=True, exist_ok=True)
        np.save(folder / FACTORS_FILE, self.factors, allow_pickle=False)
        return [folder / FACTORS_FILE]

    @classmethod
    def load(cls, folder: Path) -> BehaviourSignal:
        """Read what :meth:`save` wrote."""
        return cls(np.load(folder / FACTORS_FILE, allow_pickle=False))
