"""From a data set to what is trained on and what is asked: the catalogue and pairs of (text and history, item)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from bertrec.errors import InvalidData, InvalidInput
from bertrec.history import MAX_HISTORY, profile
from bertrec.text import clean
from train.data import Dataset, Split

UNSEEN = -1
"""Catalogue index of an item that is not in the catalogue: a query for it is a miss."""
OWN_TEXT = -1
"""Row of a pair that is no interaction but an item's own text."""


@dataclass(frozen=True)
class Pairs:
    """What was asked, and the item that was right.

    texts: cleaned. items: (n,) int64 catalogue index of the right item, UNSEEN where it has none. histories: catalogue indices
    of the items that the same user chose before, oldest first. rows: (n,) int64 index into Dataset.interactions, or OWN_TEXT.
    """

    texts: list[str]
    items: NDArray[np.int64]
    histories: list[tuple[int, ...]] = field(default_factory=list)
    rows: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))

    def __post_init__(self) -> None:
        if not self.histories:
            object.__setattr__(self, "histories", [()] * len(self.texts))
        if not len(self.rows):
            object.__setattr__(self, "rows", np.full(len(self.texts), OWN_TEXT, np.int64))

    def __len__(self) -> int:
        return len(self.texts)

    def take(self, positions: NDArray[np.int64]) -> Pairs:
        """The pairs at some positions."""
        chosen = positions.tolist()
        return Pairs(
            [self.texts[p] for p in chosen], self.items[positions], [self.histories[p] for p in chosen], self.rows[positions]
        )


@dataclass(frozen=True)
class Examples:
    """What one split of a data set gives.

    catalogue: indices into Dataset.items of the ranked items, in order: every item with a training interaction or a text of
    its own. counts: (items,) training interactions of each, with or without text. own_texts: what each ranked item says of
    itself, cleaned; empty where it says nothing.
    train: training interactions and the items' own texts. validation, test: queries.
    """

    catalogue: NDArray[np.int64]
    counts: NDArray[np.int64]
    own_texts: list[str]
    train: Pairs
    validation: Pairs
    test: Pairs

    @property
    def items(self) -> int:
        """Size of the catalogue."""
        return len(self.catalogue)

    def part(self, name: str) -> Pairs:
        """The pairs of one part, by its name in ``SPLITS``."""
        pairs: Pairs = getattr(self, name)
        return pairs


def make_examples(dataset: Dataset, split: Split) -> Examples:
    """Pairs for each part. Raises InvalidData where nothing can be learned from.

    An interaction without text whose user chose something before asks with a text written from that history.
    """
    own = [cleaned(item.own_text) for item in dataset.items]
    counts = np.bincount([dataset.interactions[row].item for row in split.train], minlength=len(dataset.items))
    catalogue = np.flatnonzero((counts > 0) | np.asarray([bool(text) for text in own]))
    index_of = np.full(len(dataset.items), UNSEEN, np.int64)
    index_of[catalogue] = np.arange(len(catalogue))
    histories = _histories(dataset, split)
    parts = {
        name: _interaction_pairs(dataset, split.part(name).tolist(), histories, index_of)
        for name in ("train", "validation", "test")
    }
    train = _with_own_texts(parts["train"], [own[item] for item in catalogue.tolist()])
    if not len(train):
        raise InvalidData(f"data set {dataset.name!r} has no training text: give interactions or items a text")
    return Examples(
        catalogue=catalogue,
        counts=counts[catalogue],
        own_texts=[own[item] for item in catalogue.tolist()],
        train=train,
        validation=parts["validation"],
        test=parts["test"],
    )


def _histories(dataset: Dataset, split: Split) -> Mapping[int, tuple[int, ...]]:
    """Interaction → the items (indices into Dataset.items) that its user chose before it, oldest first.

    Where every interaction of a user has a time, that is what lies before; otherwise the user's other training interactions.
    """
    of_user: dict[str, list[int]] = defaultdict(list)
    for row, interaction in enumerate(dataset.interactions):
        if interaction.user_id:
            of_user[interaction.user_id].append(row)
    training = set(split.train.tolist())
    found: dict[int, tuple[int, ...]] = {}
    for rows in of_user.values():
        times = {row: dataset.interactions[row].timestamp for row in rows}
        if None not in times.values():
            rows = sorted(rows, key=lambda row: (times[row], row))
        for position, row in enumerate(rows):
            before = (
                rows[:position] if None not in times.values() else [other for other in rows if other in training and other != row]
            )
            items = dict.fromkeys(dataset.interactions[other].item for other in before)
            items.pop(dataset.interactions[row].item, None)
            found[row] = tuple(items)[-MAX_HISTORY:]
    return found


def _interaction_pairs(
    dataset: Dataset, rows: Sequence[int], histories: Mapping[int, tuple[int, ...]], index_of: NDArray[np.int64]
) -> Pairs:
    texts: list[str] = []
    items: list[int] = []
    known: list[tuple[int, ...]] = []
    kept: list[int] = []
    for row in rows:
        interaction = dataset.interactions[row]
        history = [item for item in histories.get(row, ()) if index_of[item] != UNSEEN]
        text = cleaned(interaction.text or profile([dataset.items[item].title for item in history]))
        if text:
            texts.append(text)
            items.append(int(index_of[interaction.item]))
            known.append(tuple(int(index_of[item]) for item in history))
            kept.append(row)
    return Pairs(texts, np.asarray(items, np.int64), known, np.asarray(kept, np.int64))


def _with_own_texts(pairs: Pairs, own: Sequence[str]) -> Pairs:
    """The pairs, and behind them one for each item that has a text of its own."""
    having = [item for item, text in enumerate(own) if text]
    return Pairs(
        pairs.texts + [own[item] for item in having],
        np.concatenate([pairs.items, np.asarray(having, np.int64)]),
        pairs.histories + [()] * len(having),
        np.concatenate([pairs.rows, np.full(len(having), OWN_TEXT, np.int64)]),
    )


def cleaned(text: str) -> str:
    """The text as it would be served, empty where it could not be."""
    try:
        return clean(text)
    except InvalidInput:
        return ""
