"""From a data set to what is trained on and what is asked: the catalogue and pairs of (text, item)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bertrec.errors import InvalidData, InvalidInput
from bertrec.text import clean
from train.data import Dataset, Split

UNSEEN = -1
"""Catalogue index of an item that is not in the catalogue: a query for it is a miss."""


@dataclass(frozen=True)
class Pairs:
    """Texts and the catalogue index of the item that each belongs to, (n,) int64; UNSEEN where there is none."""

    texts: list[str]
    items: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.texts)


@dataclass(frozen=True)
class Examples:
    """What one split of a data set gives.

    catalogue: indices into Dataset.items of the ranked items, in order: every item with a training interaction or a text of
    its own. counts: (items,) training interactions of each, with or without text.
    train: training reviews and the items' own texts. validation, test: queries.
    """

    catalogue: NDArray[np.int64]
    counts: NDArray[np.int64]
    train: Pairs
    validation: Pairs
    test: Pairs

    @property
    def items(self) -> int:
        """Size of the catalogue."""
        return len(self.catalogue)


def make_examples(dataset: Dataset, split: Split) -> Examples:
    """Pairs of text and item for each part. Raises InvalidData where nothing can be learned from."""
    own = [_cleaned(item.own_text) for item in dataset.items]
    counts = np.bincount([dataset.interactions[row].item for row in split.train], minlength=len(dataset.items))
    catalogue = np.flatnonzero((counts > 0) | np.asarray([bool(text) for text in own]))
    index_of = np.full(len(dataset.items), UNSEEN, np.int64)
    index_of[catalogue] = np.arange(len(catalogue))
    own_pairs = _pairs((own[item], int(index_of[item])) for item in catalogue.tolist())
    train = _interaction_pairs(dataset, split.train.tolist(), index_of)
    train = Pairs(train.texts + own_pairs.texts, np.concatenate([train.items, own_pairs.items]))
    if not len(train):
        raise InvalidData(f"data set {dataset.name!r} has no training text: give interactions or items a text")
    return Examples(
        catalogue=catalogue,
        counts=counts[catalogue],
        train=train,
        validation=_interaction_pairs(dataset, split.validation.tolist(), index_of),
        test=_interaction_pairs(dataset, split.test.tolist(), index_of),
    )


def _interaction_pairs(dataset: Dataset, rows: Sequence[int], index_of: NDArray[np.int64]) -> Pairs:
    chosen = [dataset.interactions[row] for row in rows]
    return _pairs((_cleaned(row.text), int(index_of[row.item])) for row in chosen)


def _pairs(candidates: Iterable[tuple[str, int]]) -> Pairs:
    kept = [(text, item) for text, item in candidates if text]
    return Pairs([text for text, _ in kept], np.asarray([item for _, item in kept], np.int64))


def _cleaned(text: str) -> str:
    """The text as it would be served, empty where it could not be."""
    try:
        return clean(text)
    except InvalidInput:
        return ""
