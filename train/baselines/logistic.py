"""Multinomial logistic regression from TF-IDF to items: the strongest of the classical text classifiers.

scikit-learn's solvers take hours for 18,000 texts and 1,069 classes; the same objective, minimised by Adam over sparse batches,
takes a minute or two.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import scipy.sparse
import torch
from numpy.typing import NDArray
from sklearn.feature_extraction.text import TfidfVectorizer
from torch import Tensor, nn

from train.baselines.contract import Context, choose
from train.baselines.words import tfidf
from train.examples import Examples, Pairs
from train.items import PRIOR_SHRINKAGE
from train.progress import progress

TERMS = 20_000
MAX_WEIGHTS = 200_000_000
"""Weights, terms times items, beyond which rarer terms are left out: with Adam's two moments and the gradient, 3.2 GB."""
EPOCHS = 8
BATCH = 256
LEARNING_RATE = 0.05


@dataclass(frozen=True)
class LogisticRegression:
    """weights: (terms, items) and bias: (items,), float32."""

    vectoriser: TfidfVectorizer
    weights: NDArray[np.float32]
    bias: NDArray[np.float32]
    name: str = "logistic regression"

    def scores(self, queries: Pairs) -> NDArray[np.float32]:
        """(queries, items) logits."""
        return np.asarray(self.vectoriser.transform(queries.texts) @ self.weights + self.bias, np.float32)


def fit_logistic_regression(context: Context) -> LogisticRegression:
    """Fit by Adam; instead of a penalty on the weights, the epoch with the best NDCG@10 on validation is kept."""
    examples = context.examples
    terms = max(1, min(TERMS, MAX_WEIGHTS // examples.items))
    vectoriser, vectors = tfidf(examples.train.texts, terms)  # (texts, terms), sparse
    epochs = _epochs(vectors, examples, np.random.default_rng(context.seed))
    return choose((LogisticRegression(vectoriser, *parameters) for parameters in epochs), examples.validation)


def _epochs(
    vectors: scipy.sparse.csr_matrix, examples: Examples, random: np.random.Generator
) -> Iterator[tuple[NDArray[np.float32], NDArray[np.float32]]]:
    """Weights and bias after each epoch."""
    shrunk = torch.from_numpy(examples.counts).float() + PRIOR_SHRINKAGE
    bias = nn.Parameter(torch.log(shrunk / shrunk.sum()))
    weights = nn.Parameter(torch.zeros(vectors.shape[1], examples.items))
    optimiser = torch.optim.Adam([weights, bias], lr=LEARNING_RATE, fused=True)
    with progress("fitting logistic regression", EPOCHS) as advance:
        for _ in range(EPOCHS):
            order = random.permutation(vectors.shape[0])
            for rows in np.split(order, range(BATCH, len(order), BATCH)):
                logits = torch.sparse.mm(_tensor(vectors[rows]), weights) + bias  # (batch, items)
                loss = nn.functional.cross_entropy(logits, torch.from_numpy(examples.train.items[rows]))
                optimiser.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]  # torch's own
                optimiser.step()
            advance(note=f"loss {float(loss.detach()):.2f}")
            yield weights.detach().numpy().copy(), bias.detach().numpy().copy()


def _tensor(rows: scipy.sparse.csr_matrix) -> Tensor:
    """(batch, terms), sparse."""
    coo = rows.tocoo()
    return torch.sparse_coo_tensor(np.stack([coo.row, coo.col]), torch.from_numpy(coo.data), coo.shape, check_invariants=False)
