"""How far a mean over queries may be trusted: percentile bootstrap intervals (Efron and Tibshirani, 1993, chapter 13)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 1_000
CONFIDENCE = 0.95
_BLOCK = 5_000_000
"""Draws that are held at once: 40 MB."""


@dataclass(frozen=True)
class Estimate:
    """A mean over queries, and its 95% interval; what has no query of its own, such as coverage, has no interval."""

    value: float
    low: float | None = None
    high: float | None = None

    @property
    def excludes_zero(self) -> bool:
        """Whether a difference is told from none."""
        return self.low is not None and self.high is not None and (self.low > 0 or self.high < 0)


def bootstrap(values: NDArray[np.float64], seed: int) -> list[Estimate]:
    """(measures, queries) → the mean of each measure, with its 95% interval over ``RESAMPLES`` resamples of the queries.

    All measures are resampled together. The interval of a paired difference is that of the row of differences, query by query.
    """
    measures, queries = values.shape
    random = np.random.default_rng(seed)
    means = np.empty((RESAMPLES, measures))
    block = max(_BLOCK // queries, 1)
    for start in range(0, RESAMPLES, block):
        size = min(block, RESAMPLES - start)
        drawn = random.integers(queries, size=(size, queries))
        drawn += np.arange(size)[:, None] * queries
        times = np.bincount(drawn.ravel(), minlength=size * queries).reshape(size, queries)  # each query's number in a resample
        means[start : start + size] = times @ values.T / queries
    tail = 50.0 * (1.0 - CONFIDENCE)
    low, high = np.percentile(means, [tail, 100.0 - tail], axis=0)  # (measures,) each
    return [Estimate(*row) for row in zip(values.mean(axis=1).tolist(), low.tolist(), high.tolist(), strict=True)]
