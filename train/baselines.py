"""What a recommender must beat, under the same protocol: each a few lines over a library."""

from __future__ import annotations

import numpy as np
import scipy.sparse
from numpy.typing import NDArray
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.preprocessing import normalize

from train.examples import Examples, Pairs


def popularity(examples: Examples, queries: Pairs) -> NDArray[np.float32]:
    """(queries, items) scores: how often each item was chosen in training, whatever was asked."""
    return np.broadcast_to(examples.counts.astype(np.float32), (len(queries), examples.items))


def tfidf_centroid(examples: Examples, queries: Pairs) -> NDArray[np.float32]:
    """(queries, items) cosine between a query's TF-IDF vector (words and pairs) and the centroid of each item's texts."""
    vectoriser = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, min_df=2 if len(examples.train) >= 1_000 else 1)
    texts = vectoriser.fit_transform(examples.train.texts)  # (texts, terms), sparse
    ones = np.ones(len(examples.train))
    members = scipy.sparse.csr_matrix((ones, (examples.train.items, np.arange(len(ones)))), (examples.items, len(ones)))
    centroids = normalize(members @ texts)  # (items, terms)
    return np.asarray((vectoriser.transform(queries.texts) @ centroids.T).toarray(), np.float32)
