"""Baselines over the words of the training texts: BM25, TF-IDF centroids, nearest texts.

All of them read words as :func:`bertrec.signals.analyse` does, so that none suffers from a tokenisation of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse
from numpy.typing import NDArray
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.neighbors import NearestNeighbors
from sklearn.preprocessing import normalize

from bertrec.errors import MissingDependency
from bertrec.signals import analyse
from train.baselines.contract import Context, choose
from train.examples import Examples, Pairs

NEAREST = (10, 30, 100, 300, 1_000)
"""Numbers of nearest texts that validation chooses among."""


def tfidf(texts: Sequence[str], terms: int | None = None) -> tuple[TfidfVectorizer, scipy.sparse.csr_matrix]:
    """Sublinear TF-IDF of words and pairs of words, fitted, and (texts, terms) its vectors, of length 1.

    terms: at most so many, the most frequent. A term must occur in two texts where there are 1,000 to ask that of.
    """
    least = 2 if len(texts) >= 1_000 else 1
    vectoriser = TfidfVectorizer(analyzer=analyse, sublinear_tf=True, min_df=least, max_features=terms, dtype=np.float32)
    return vectoriser, vectoriser.fit_transform(texts)


@dataclass(frozen=True)
class TfidfCentroid:
    """Cosine between a text and the centroid of each item's texts (Rocchio, 1971). centroids: (items, terms), sparse."""

    vectoriser: TfidfVectorizer
    centroids: scipy.sparse.csr_matrix
    name: str = "TF-IDF centroid"

    @classmethod
    def fit(cls, examples: Examples) -> TfidfCentroid:
        """Average each item's texts."""
        vectoriser, vectors = tfidf(examples.train.texts)
        ones = np.ones(len(examples.train), np.float32)
        members = scipy.sparse.csr_matrix((ones, (examples.train.items, np.arange(len(ones)))), (examples.items, len(ones)))
        return cls(vectoriser, normalize(members @ vectors))

    def scores(self, queries: Pairs) -> NDArray[np.float32]:
        """(queries, items) cosines."""
        return np.asarray((self.vectoriser.transform(queries.texts) @ self.centroids.T).toarray(), np.float32)


def fit_tfidf_centroid(context: Context) -> TfidfCentroid:
    """Average each item's texts."""
    return TfidfCentroid.fit(context.examples)


@dataclass(frozen=True)
class NearestTexts:
    """The ``nearest`` training texts by TF-IDF cosine vote for their items, each with its cosine. text_items: (texts,)."""

    vectoriser: TfidfVectorizer
    index: NearestNeighbors
    text_items: NDArray[np.int64]
    items: int
    nearest: int
    name: str = "nearest texts"

    def scores(self, queries: Pairs) -> NDArray[np.float32]:
        """(queries, items) sums of the cosines of the nearest texts, by item."""
        distances, rows = self.index.kneighbors(self.vectoriser.transform(queries.texts), self.nearest)  # (queries, nearest)
        starts = np.arange(len(queries) + 1) * self.nearest
        votes = (1.0 - distances.ravel(), self.text_items[rows.ravel()], starts)
        return np.asarray(scipy.sparse.csr_matrix(votes, (len(queries), self.items)).toarray(), np.float32)  # adds up


def fit_knn(context: Context) -> NearestTexts:
    """Keep the texts; how many of the nearest count is chosen on validation."""
    examples = context.examples
    vectoriser, vectors = tfidf(examples.train.texts)
    index = NearestNeighbors(metric="cosine", algorithm="brute").fit(vectors)
    numbers = sorted({min(number, len(examples.train)) for number in NEAREST})
    candidates = (NearestTexts(vectoriser, index, examples.train.items, examples.items, number) for number in numbers)
    return choose(candidates, examples.validation)


@dataclass(frozen=True)
class BM25:
    """Okapi BM25 as Lucene computes it (Robertson and Zaragoza, 2009) over one document an item: its training texts."""

    index: Any  # bm25s.BM25
    items: int
    name: str = "BM25"

    def scores(self, queries: Pairs) -> NDArray[np.float32]:
        """(queries, items) sums of the weights of a query's words in each item's document."""
        known = (self.index.get_tokens_ids(words(text)) for text in queries.texts)
        rows = [self.index.get_scores_from_ids(ids) for ids in known]  # unlike get_scores, it takes a text without words
        return np.asarray(rows, np.float32).reshape(len(queries), self.items)


def fit_bm25(context: Context) -> BM25:
    """Index each item's texts. Raises MissingDependency without bm25s."""
    try:
        import bm25s
    except ImportError:
        raise MissingDependency("bm25s", "train") from None
    documents: list[list[str]] = [[] for _ in range(context.examples.items)]
    for text, item in zip(context.examples.train.texts, context.examples.train.items.tolist(), strict=True):
        documents[item] += words(text)
    index = bm25s.BM25(backend="numpy")
    index.index(documents, show_progress=False)
    return BM25(index, len(documents))


def words(text: str) -> list[str]:
    """The single words of a text."""
    return [term for term in analyse(text) if " " not in term]
