"""What the heads learn: for each head its labels, and which of them is right for each text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bertrec.errors import InvalidData
from bertrec.labels import NEGATIVE, NEUTRAL, POSITIVE, SENTIMENT, SENTIMENTS, Head
from train.data import SPLITS, TRAIN, Dataset
from train.examples import OWN_TEXT, Examples

UNLABELLED = -1
MAX_LABELS = 50
"""An attribute of more values is a name or a number, no topic."""
MIN_TEXTS = 20
"""A label of fewer training texts is left out: too little to learn, and nothing to measure."""


@dataclass(frozen=True)
class Task:
    """One head and its right answers. targets: split → (texts,) int64, UNLABELLED where the text has none of the labels."""

    head: Head
    targets: Mapping[str, NDArray[np.int64]]


def make_tasks(dataset: Dataset, examples: Examples) -> list[Task]:
    """Sentiment where the texts are rated from 1 to 5, and a topic for each attribute that has 2 to MAX_LABELS values.

    A value counts with MIN_TEXTS training texts; an item of several values (joined by ``|``) has no label, as a head's labels
    exclude each other. Raises InvalidData where that leaves no head.
    """
    attributes = dict.fromkeys(name for item in dataset.items for name in item.attributes)
    candidates = {name: _attribute(dataset, examples, name) for name in attributes if name != SENTIMENT}
    tasks = [_task(SENTIMENT, _sentiments(dataset, examples), SENTIMENTS)]
    for name, values in candidates.items():
        counts = Counter(value for value in values[TRAIN] if value)
        if len(counts) <= MAX_LABELS:
            tasks.append(_task(name, values, tuple(sorted(counts))))
    found = [task for task in tasks if task is not None]
    if not found:
        raise InvalidData(
            f"data set {dataset.name!r} gives no head anything to learn; accepted are ratings from 1 to 5, or an item "
            f"attribute of 2 to {MAX_LABELS} values, one an item, with {MIN_TEXTS} training texts each"
        )
    return found


def sentiment_of(rating: float | None) -> str:
    """The label of a rating from 1 to 5: up to 2 negative, from 4 positive, neutral between; empty without one."""
    if rating is None:
        return ""
    return NEGATIVE if rating <= 2 else POSITIVE if rating >= 4 else NEUTRAL


def _sentiments(dataset: Dataset, examples: Examples) -> dict[str, list[str]]:
    """Split → the sentiment of each text. None of a scale other than 1 to 5: its middle is not known."""
    ratings = {row.rating for row in dataset.interactions if row.rating is not None}
    on_scale = bool(ratings) and min(ratings) >= 1 and 4 < max(ratings) <= 5
    return {
        split: [
            sentiment_of(dataset.interactions[row].rating) if on_scale and row != OWN_TEXT else ""
            for row in examples.part(split).rows.tolist()
        ]
        for split in SPLITS
    }


def _attribute(dataset: Dataset, examples: Examples, name: str) -> dict[str, list[str]]:
    """Split → the value that each text's item has of one attribute; empty where it has none or several."""
    ranked = [dataset.items[row] for row in examples.catalogue.tolist()]
    found = {}
    for split in SPLITS:
        pairs = examples.part(split)
        items = [
            ranked[item] if row == OWN_TEXT else dataset.items[dataset.interactions[row].item]
            for item, row in zip(pairs.items.tolist(), pairs.rows.tolist(), strict=True)
        ]
        values = [item.attributes.get(name, "") for item in items]
        found[split] = ["" if "|" in value else value for value in values]
    return found


def _task(name: str, values: Mapping[str, list[str]], labels: tuple[str, ...]) -> Task | None:
    """The task over the labels with enough training texts; None where fewer than two have."""
    counts = Counter(values[TRAIN])
    kept = tuple(label for label in labels if counts[label] >= MIN_TEXTS)
    if len(kept) < 2:
        return None
    column = {label: index for index, label in enumerate(kept)}
    targets = {split: np.asarray([column.get(value, UNLABELLED) for value in values[split]], np.int64) for split in SPLITS}
    return Task(Head(name, kept), targets)
