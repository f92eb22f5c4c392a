"""Fit the behaviour signal: item factors by alternating least squares (Hu, Koren and Volinsky, 2008), from implicit."""

from __future__ import annotations

import numpy as np
import scipy.sparse
from implicit.als import AlternatingLeastSquares
from numpy.typing import NDArray
from sklearn.preprocessing import normalize
from threadpoolctl import threadpool_limits

from bertrec.history import BehaviourSignal
from train.data import Dataset
from train.examples import UNSEEN, Examples

ITERATIONS = 15
CONFIDENCE = 20.0
"""How much surer a choice is than its absence; Hu, Koren and Volinsky use 40 on counts of views."""


def fit_behaviour(
    dataset: Dataset, examples: Examples, training: NDArray[np.int64], *, dimensions: int, seed: int
) -> BehaviourSignal | None:
    """Factors of the ranked items from who chose what in training; None where no user chose two of them."""
    chosen = _choices(dataset, examples, training)
    if not len(chosen.data) or chosen.getnnz(axis=1).max() < 2:
        return None
    with threadpool_limits(1, "blas"):  # implicit has threads of its own, and BLAS's would fight them
        model = AlternatingLeastSquares(
            factors=dimensions, iterations=ITERATIONS, alpha=CONFIDENCE, random_state=seed, num_threads=1
        )
        model.fit(chosen, show_progress=False)
    factors = np.asarray(model.item_factors, np.float32)
    factors[chosen.getnnz(axis=0) == 0] = 0.0
    return BehaviourSignal(normalize(factors).astype(np.float16))


def _choices(dataset: Dataset, examples: Examples, training: NDArray[np.int64]) -> scipy.sparse.csr_matrix:
    """(users, items) float32, 1 where a user chose an item in training."""
    index_of = np.full(len(dataset.items), UNSEEN, np.int64)
    index_of[examples.catalogue] = np.arange(examples.items)
    users: dict[str, int] = {}
    pairs = {
        (users.setdefault(interaction.user_id, len(users)), int(index_of[interaction.item]))
        for interaction in (dataset.interactions[row] for row in training.tolist())
        if interaction.user_id
    }
    rows, columns = np.asarray(sorted(pairs), np.int64).reshape(-1, 2).T
    return scipy.sparse.csr_matrix((np.ones(len(pairs), np.float32), (rows, columns)), (len(users), examples.items))
