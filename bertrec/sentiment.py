"""The sentiment of a text by a lexicon and rules: VADER's compound score (Hutto and Gilbert, 2014), of English."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bertrec.errors import MissingDependency


def sentiments(texts: Sequence[str]) -> NDArray[np.float32]:
    """(texts,) in [−1, 1], from complaint to praise; 0 where it knows no word.

    Raises MissingDependency without vaderSentiment.
    """
    analyser = open_analyser()
    return np.asarray([analyser.polarity_scores(text)["compound"] for text in texts], np.float32)


@cache
def open_analyser() -> Any:  # noqa: ANN401  # vaderSentiment need not be installed
    """VADER with its lexicon, which is read once. Raises MissingDependency without vaderSentiment."""
    try:
        from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer
    except ImportError:
        raise MissingDependency("vaderSentiment", "sentiment") from None
    return SentimentIntensityAnalyzer()
