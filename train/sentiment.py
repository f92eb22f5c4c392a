"""Sentiment as a weak label: a text that complains says what its writer did not want, so less is learned from it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from bertrec.errors import MissingDependency

LEAST_WEIGHT = 0.25
"""Of a text that is nothing but complaint; its words still tell of the item."""


def sentiments(texts: Sequence[str]) -> NDArray[np.float32]:
    """(texts,) in [−1, 1]: VADER's compound score (Hutto and Gilbert, 2014), of English; 0 where it knows no word.

    Raises MissingDependency without vaderSentiment.
    """
    try:
        from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer
    except ImportError:
        raise MissingDependency("vaderSentiment", "train") from None
    analyser = SentimentIntensityAnalyzer()
    return np.asarray([analyser.polarity_scores(text)["compound"] for text in texts], np.float32)


def sentiment_weights(texts: Sequence[str]) -> NDArray[np.float32]:
    """(texts,) float32: how much each text's loss counts, 1 − (1 − LEAST_WEIGHT) · max(0, −sentiment)."""
    return np.asarray(1.0 - (1.0 - LEAST_WEIGHT) * np.maximum(0.0, -sentiments(texts)), np.float32)
