"""Maximal marginal relevance: a list whose items are good, and not all the same."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def diversified(
    scores: NDArray[np.float32], vectors: NDArray[np.float16] | NDArray[np.int8], *, diversity: float, k: int
) -> NDArray[np.int64]:
    """(min(k, candidates),) int64: rows of the candidates in the order of MMR (Carbonell and Goldstein, 1998).

    scores: (candidates,) finite, the highest first. vectors: (candidates, hidden) what the cosine of two items is taken of.
    Each next item maximises (1 − diversity) · relevance − diversity · (its highest cosine to an item chosen before). Relevance
    is the score, moved and scaled so that the candidates lie between 0 and 1; the first item is that of the highest score.
    """
    spread = float(np.ptp(scores)) if len(scores) else 0.0
    relevance = (scores - scores.min()) / spread if spread else np.zeros(len(scores))  # (candidates,)
    rows = vectors.astype(np.float32)
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    rows = np.divide(rows, lengths, out=np.zeros_like(rows), where=lengths > 0)
    chosen: list[int] = []
    nearest = np.full(len(scores), -1.0)  # the highest cosine to an item chosen before
    while len(chosen) < min(k, len(scores)):
        gain = (1.0 - diversity) * relevance - diversity * nearest
        gain[chosen] = -np.inf
        chosen.append(int(gain.argmax()) if chosen else 0)
        nearest = np.maximum(nearest, rows @ rows[chosen[-1]])
    return np.asarray(chosen, np.int64)
