"""The data set, as the rest of training sees it: items, interactions, and a split.

Reading files and checking them is :mod:`train.tables`; the bundled reviews are :mod:`train.clothing`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

TRAIN, VALIDATION, TEST = "train", "validation", "test"
SPLITS = (TRAIN, VALIDATION, TEST)


@dataclass(frozen=True)
class Item:
    """One item of the data set. ``title`` and ``text`` may be empty; several values of one attribute are joined by ``|``."""

    item_id: str
    title: str = ""
    text: str = ""
    attributes: Mapping[str, str] = field(default_factory=dict)

    @property
    def own_text(self) -> str:
        """What the item says of itself: title and text, empty where it has neither."""
        return ". ".join(part for part in (self.title, self.text) if part)


@dataclass(frozen=True)
class Interaction:
    """Somebody's words for, or choice of, one item. ``text`` may be empty; then only the choice itself counts.

    headline: the beginning of ``text`` that sums it up, where there is one. segments: what the asker or the text is, for reports
    that tell them apart, such as the age band or the language.
    """

    item: int  # index into Dataset.items
    text: str = ""
    user_id: str = ""
    timestamp: float | None = None  # seconds since 1970, UTC
    rating: float | None = None
    label: float | None = None
    split: str = ""  # train, validation or test; empty: drawn by seed
    headline: str = ""
    segments: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Dataset:
    """Items, interactions in the order of their file, and the user's own triples (head, relation, tail)."""

    name: str
    items: tuple[Item, ...]
    interactions: tuple[Interaction, ...]
    triples: tuple[tuple[str, str, str], ...] = ()

    @property
    def fingerprint(self) -> str:
        """sha256 over the content (64 hex digits)."""
        digest = hashlib.sha256()
        for row in (*self.items, *self.interactions, *self.triples):
            digest.update(repr(row).encode("utf-8", "surrogatepass") + b"\n")
        return digest.hexdigest()


@dataclass(frozen=True)
class Split:
    """Indices into Dataset.interactions, each (n,) int64."""

    train: NDArray[np.int64]
    validation: NDArray[np.int64]
    test: NDArray[np.int64]

    def part(self, name: str) -> NDArray[np.int64]:
        """The indices of one part, by its name in ``SPLITS``."""
        return {TRAIN: self.train, VALIDATION: self.validation, TEST: self.test}[name]


def split_interactions(dataset: Dataset, seed: int) -> Split:
    """80/10/10 at random by ``seed``, nothing held out of fewer than ten; an interaction whose ``split`` is given stays there."""
    drawn = np.asarray([index for index, row in enumerate(dataset.interactions) if not row.split], np.int64)
    drawn = drawn[np.random.default_rng(seed).permutation(len(drawn))]
    first, second = (int(0.8 * len(drawn)), int(0.9 * len(drawn))) if len(drawn) >= 10 else (len(drawn), len(drawn))
    parts = {TRAIN: drawn[:first], VALIDATION: drawn[first:second], TEST: drawn[second:]}
    for name in SPLITS:
        given = [index for index, row in enumerate(dataset.interactions) if row.split == name]
        parts[name] = np.concatenate([parts[name], np.asarray(given, np.int64)])
    return Split(parts[TRAIN], parts[VALIDATION], parts[TEST])
