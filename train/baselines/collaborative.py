"""Collaborative filtering: what others with the same history chose. No word of the query is read."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import scipy.sparse
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from bertrec.errors import InvalidData, InvalidInput, MissingDependency
from train.baselines.contract import Context, choose
from train.data import split_interactions
from train.examples import UNSEEN, Pairs

FACTORS = (32, 128)
REGULARISATIONS = (0.1, 10.0)
CONFIDENCES = (1.0, 10.0)
NEIGHBOURS = (20, 100, 400)
"""Settings that validation chooses among: with untuned ones ALS is a straw man (Rendle et al., 2021)."""
TIE_BREAK = 1e-6
"""Weight of popularity, as a share of the most popular item's: it orders what the history does not."""


@dataclass(frozen=True)
class AlternatingLeastSquares:
    """Matrix factorisation of implicit feedback (Hu, Koren and Volinsky, 2008); a query's user vector comes from its history."""

    model: Any  # implicit's
    counts: NDArray[np.int64]
    name: str = "ALS"

    def scores(self, queries: Pairs) -> NDArray[np.float32]:
        """(queries, items) inner products of user and item factors; without a history, popularity."""
        history = _histories(queries, len(self.counts))
        with threadpool_limits(1, "blas"):  # the library runs threads of its own, and warns of any beside them
            users = self.model.recalculate_user(np.arange(len(queries)), history)  # (queries, factors)
        return _finish(users @ self.model.item_factors.T, history, self.counts)


@dataclass(frozen=True)
class ItemNeighbours:
    """Cosines between items by the users who chose both (Sarwar et al., 2001), added up over the history."""

    similarity: scipy.sparse.csr_matrix  # (items, items), the nearest of each row
    counts: NDArray[np.int64]
    name: str = "item neighbours"

    def scores(self, queries: Pairs) -> NDArray[np.float32]:
        """(queries, items) sums of cosines to the items of the history; without one, popularity."""
        history = _histories(queries, len(self.counts))
        return _finish((history @ self.similarity).toarray(), history, self.counts)


def fit_als(context: Context) -> AlternatingLeastSquares:
    """Factorise for each setting, choose on validation. Raises InvalidData without users, MissingDependency without implicit."""
    try:
        from implicit.cpu.als import AlternatingLeastSquares as Model
    except ImportError:
        raise MissingDependency("implicit", "train") from None
    chosen = _user_items(context)

    def fitted(factors: int, regularization: float, alpha: float) -> AlternatingLeastSquares:
        with threadpool_limits(1, "blas"):
            model = Model(factors, regularization, alpha, random_state=context.seed)
            model.fit(chosen, show_progress=False)
        return AlternatingLeastSquares(model, context.examples.counts)

    candidates = (fitted(*setting) for setting in product(FACTORS, REGULARISATIONS, CONFIDENCES))
    return choose(candidates, _with_history(context.examples.validation))


def fit_item_knn(context: Context) -> ItemNeighbours:
    """Compare items, choose the number of neighbours on validation. Raises InvalidData without users, or MissingDependency."""
    try:
        from implicit.nearest_neighbours import CosineRecommender
        from implicit.utils import ParameterWarning
    except ImportError:
        raise MissingDependency("implicit", "train") from None
    chosen = _user_items(context)

    def fitted(neighbours: int) -> ItemNeighbours:
        model = CosineRecommender(neighbours)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ParameterWarning)  # of the library's own matrix
            model.fit(chosen, show_progress=False)
        return ItemNeighbours(model.similarity, context.examples.counts)

    return choose((fitted(neighbours) for neighbours in NEIGHBOURS), _with_history(context.examples.validation))


def _user_items(context: Context) -> scipy.sparse.csr_matrix:
    """(users, items) float32: 1 where a training interaction joins the two."""
    rows = split_interactions(context.dataset, context.seed).train.tolist()
    index_of = np.full(len(context.dataset.items), UNSEEN, np.int64)
    index_of[context.examples.catalogue] = np.arange(context.examples.items)
    interactions = [context.dataset.interactions[row] for row in rows]
    items = index_of[[interaction.item for interaction in interactions]]
    if UNSEEN in items or (np.bincount(items, minlength=context.examples.items) != context.examples.counts).any():
        raise InvalidInput(f"seed {context.seed} does not split the data set as the examples are split; give their seed")
    named = np.asarray([bool(interaction.user_id) for interaction in interactions])
    if not named.any():
        raise InvalidData(f"data set {context.dataset.name!r} names no users in training; give interactions a user_id")
    _, users = np.unique([interaction.user_id for interaction in interactions if interaction.user_id], return_inverse=True)
    shape = (int(users.max()) + 1, context.examples.items)
    matrix = scipy.sparse.csr_matrix((np.ones(len(users), np.float32), (users, items[named])), shape)
    matrix.data[:] = 1.0  # chosen twice is chosen
    return matrix


def _histories(queries: Pairs, items: int) -> scipy.sparse.csr_matrix:
    """(queries, items) float32: 1 where the item is in the query's history."""
    lengths = [len(history) for history in queries.histories]
    columns = np.asarray([item for history in queries.histories for item in history], np.int32)
    starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    return scipy.sparse.csr_matrix((np.ones(len(columns), np.float32), columns, starts), (len(queries), items))


def _finish(scores: NDArray[np.float32], history: scipy.sparse.csr_matrix, counts: NDArray[np.int64]) -> NDArray[np.float32]:
    """The scores with ties broken by popularity, and without what was chosen before."""
    scores = np.asarray(scores + TIE_BREAK * counts / counts.max(), np.float32)
    scores[history.nonzero()] = -np.inf
    return scores


def _with_history(queries: Pairs) -> Pairs:
    """The queries that a setting makes a difference for."""
    return queries.take(np.flatnonzero([len(history) > 0 for history in queries.histories]))
