"""Popularity: the same items for everybody."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from train.baselines.contract import Context
from train.examples import Pairs


@dataclass(frozen=True)
class Popularity:
    """How often each item was chosen in training, whatever was asked. counts: (items,)."""

    counts: NDArray[np.int64]
    name: str = "popularity"

    def scores(self, queries: Pairs) -> NDArray[np.float32]:
        """(queries, items) the counts."""
        return np.broadcast_to(self.counts.astype(np.float32), (len(queries), len(self.counts)))


def fit_popularity(context: Context) -> Popularity:
    """Count."""
    return Popularity(context.examples.counts)
