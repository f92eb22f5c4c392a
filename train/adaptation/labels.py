"""Fewer labels, and guessed ones.

A share of the training texts keeps its item; the others count as unlabelled. Self-training then gives an unlabelled text the item
that the recommender is sure of (Scudder, 1965; Xie et al., Noisy Student, 2020, https://arxiv.org/abs/1911.04252).
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bertrec.errors import InvalidInput
from train.data import Dataset, Split
from train.examples import cleaned

CONFIDENCE = 0.9
"""Probability of the best item from which on a guess counts as a label."""
_BATCH = 256


@dataclass(frozen=True)
class Labels:
    """What is left of a split. split: its training part holds labelled interactions only. unlabelled: rows of the others."""

    split: Split
    unlabelled: NDArray[np.int64]


def keep_labels(dataset: Dataset, split: Split, share: float, seed: int) -> Labels:
    """Keep a share of the training labels, drawn item by item; at least one text in all.

    What is drawn for a smaller share is among what is drawn for a larger one, of the same seed. Raises InvalidInput for a share
    that is not above 0 and up to 1.
    """
    if not 0 < share <= 1:
        raise InvalidInput(f"labels is {share}; accepted is a share above 0 and up to 1, such as 0.01, 0.1 or 1")
    if share == 1:
        return Labels(split, np.zeros(0, np.int64))
    order = np.random.default_rng([seed, 6]).permutation(np.asarray(split.train, np.int64))
    items = np.asarray([dataset.interactions[row].item for row in order.tolist()], np.int64)
    places = _places(items)  # the n-th text of an item is kept with its fraction
    kept = places < share
    if not kept.any():
        kept[np.argmin(places)] = True
    return Labels(dataclasses.replace(split, train=np.sort(order[kept])), np.sort(order[~kept]))


def _places(items: NDArray[np.int64]) -> NDArray[np.float64]:
    """Where each text stands among those of its item, from 0 to 1.

    The first lies anywhere, so that shares come out right even where an item has few texts.
    """
    counts = np.bincount(items)
    seen = np.zeros(len(counts), np.int64)
    shifts = np.random.default_rng(len(items)).random(len(counts))
    places = np.empty(len(items))
    for row, item in enumerate(items.tolist()):
        places[row] = (seen[item] + shifts[item]) / counts[item]
        seen[item] += 1
    return places


@dataclass(frozen=True)
class PseudoLabels:
    """rows: positions among the texts asked. items: (rows,) the guessed item of each. confidence: (rows,) its probability."""

    rows: NDArray[np.int64]
    items: NDArray[np.int64]
    confidence: NDArray[np.float32]


def pseudo_labels(
    interest: NDArray[np.float32],
    items: NDArray[np.float32],
    log_prior: NDArray[np.float32],
    *,
    confidence: float = CONFIDENCE,
) -> PseudoLabels:
    """Guess the items of texts by the text signal's softmax; texts of which it is less sure than ``confidence`` are left out.

    interest: (texts, hidden) float32. items: (items, hidden) the vectors of the signal. log_prior: (items,), added to the scores.
    """
    best, sure = np.zeros(len(interest), np.int64), np.zeros(len(interest), np.float32)
    for start in range(0, len(interest), _BATCH):
        scores = interest[start : start + _BATCH] @ items.T + log_prior  # (batch, items)
        probabilities = np.exp(scores - scores.max(axis=1, keepdims=True))
        probabilities /= probabilities.sum(axis=1, keepdims=True)
        best[start : start + _BATCH], sure[start : start + _BATCH] = probabilities.argmax(axis=1), probabilities.max(axis=1)
    rows = np.flatnonzero(sure >= confidence)
    return PseudoLabels(rows, best[rows], sure[rows])


def texts_of(dataset: Dataset, rows: NDArray[np.int64]) -> list[str]:
    """The cleaned texts of some interactions, without those that have none."""
    texts = [cleaned(dataset.interactions[row].text) for row in rows.tolist() if dataset.interactions[row].text]
    return [text for text in texts if text]
