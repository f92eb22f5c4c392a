"""Fit the lexical signal: TF-IDF, its truncated singular value decomposition by scikit-learn, and then its projection learned.

The decomposition knows which words go together, not which of them tell items apart. So the projection moves on from it, together
with the item vectors, by the softmax over the catalogue that the BERT learns by: a bag of words and pairs of words (Joulin et
al., 2017) that starts where LSA ends. It stays linear in the words, so reasons stay exact.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer
from torch import Tensor, nn

from bertrec.errors import InvalidData
from bertrec.signals import LexicalSignal, analyse
from train.descent import step_down
from train.items import ItemSide
from train.loss import CatalogueLoss
from train.optimise import set_learning_rates
from train.progress import progress
from train.settings import FitSettings
from train.states import shuffled_batches

COMMON_ENOUGH = 3
"""A term must occur in so many texts, where there are enough texts to ask that of it."""
TERM_DROPOUT = 0.3
"""Share of a text's terms that a step does not see: the others must do without them."""


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


def learn_lexical(
    lexical: LexicalSignal, side: ItemSide, texts: Sequence[str], items: NDArray[np.int64], settings: FitSettings
) -> LexicalSignal:
    """Learn projection and item vectors together; ``side`` is changed in place, the signal is returned anew. Seconds."""
    bags = [lexical.weights(text) for text in texts]
    projection = nn.Parameter(torch.from_numpy(lexical.projection.astype(np.float32)))
    groups = [{"params": [projection]}, {"params": list(side.parameters())}]
    rates = [settings.lexical_learning_rate, settings.item_first_learning_rate]
    optimiser = torch.optim.AdamW(groups, lr=0.0, weight_decay=0.0)
    loss_of = CatalogueLoss(side, dataclasses.replace(settings, matryoshka=()))
    random = np.random.default_rng([settings.seed, 3])
    rows = np.asarray([row for row, (known, _) in enumerate(bags) if len(known)], np.int64)
    total = settings.lexical_epochs * math.ceil(len(rows) / settings.item_batch_size)
    with progress("learning the lexical signal", total) as advance:
        for step, batch in enumerate(shuffled_batches(rows, settings.item_batch_size, settings.lexical_epochs, random)):
            set_learning_rates(optimiser, rates, step / total)
            user = _project([bags[row] for row in batch.tolist()], projection, random)
            loss = step_down(optimiser, loss_of(user, torch.from_numpy(items[batch])))
            advance(note=f"loss {loss:.2f}")
    return dataclasses.replace(lexical, projection=projection.detach().numpy().astype(np.float16))


def _project(
    bags: Sequence[tuple[NDArray[np.int64], NDArray[np.float32]]], projection: Tensor, random: np.random.Generator
) -> Tensor:
    """(batch, lexical) of length 1, each text without some of its terms."""
    terms = torch.from_numpy(np.concatenate([known for known, _ in bags]))
    weights = np.concatenate([weight for _, weight in bags]).astype(np.float32)
    weights *= random.random(len(weights)) >= TERM_DROPOUT
    offsets = torch.from_numpy(np.cumsum([0, *(len(known) for known, _ in bags[:-1])]))
    summed = nn.functional.embedding_bag(terms, projection, offsets, mode="sum", per_sample_weights=torch.from_numpy(weights))
    return nn.functional.normalize(summed, dim=-1)
