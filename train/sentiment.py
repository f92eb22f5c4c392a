"""Sentiment as a weak label: a text that complains says what its writer did not want, so less is learned from it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from bertrec.sentiment import sentiments

LEAST_WEIGHT = 0.25
"""Of a text that is nothing but complaint; its words still tell of the item."""


def sentiment_weights(texts: Sequence[str]) -> NDArray[np.float32]:
    """(texts,) float32: how much each text's loss counts, 1 − (1 − LEAST_WEIGHT) · max(0, −sentiment)."""
    return np.asarray(1.0 - (1.0 - LEAST_WEIGHT) * np.maximum(0.0, -sentiments(texts)), np.float32)
