"""Fit the lexical signal: TF-IDF and its truncated singular value decomposition, by scikit-learn."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer

from bertrec.errors import InvalidData
from bertrec.signals import LexicalSignal, analyse

COMMON_ENOUGH = 3
"""A term must occur in so many texts, where there are enough texts to ask that of it."""


def fit_lexical(texts: Sequence[str], *, dimensions: int, terms: int, seed: int) -> LexicalSignal:
    """LSA over the most frequent ``terms`` terms of the texts, with at most ``dimensions`` latent dimensions."""
    least = COMMON_ENOUGH if len(texts) >= 1_000 else 1
    vectoriser = TfidfVectorizer(analyzer=analyse, sublinear_tf=True, min_df=least, max_features=terms, dtype=np.float32)
    try:
        weights = vectoriser.fit_transform(texts)  # (texts, terms), sparse
    except ValueError as error:
        raise InvalidData(f"the training texts hold no words to learn from ({error})") from None
    # The randomised solver cannot give more dimensions than the matrix has columns, nor useful ones beyond its rank.
    possible = max(1, min(dimensions, weights.shape[0] - 1, weights.shape[1] - 1))
    decomposition = TruncatedSVD(possible, n_iter=4, random_state=seed).fit(weights)
    return LexicalSignal(
        terms=tuple(vectoriser.get_feature_names_out().tolist()),
        idf=vectoriser.idf_.astype(np.float32),
        projection=decomposition.components_.T.astype(np.float16),
    )
