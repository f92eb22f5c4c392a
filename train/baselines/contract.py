"""What every baseline is given and gives back, and how it chooses its settings."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from bertrec.errors import InvalidInput
from train.data import Dataset
from train.encoder import DEFAULT_BACKBONE
from train.examples import Examples, Pairs
from train.metrics import ndcg, top_items

CHOOSING_QUERIES = 2_500
"""Validation queries that a baseline chooses its settings by."""
QUERY_BLOCK = 256
"""Queries scored at once while choosing: (256, 100,000) float32 scores are 100 MB."""


class Ranker(Protocol):
    """A fitted baseline."""

    @property
    def name(self) -> str:
        """What a report calls it."""

    def scores(self, queries: Pairs) -> NDArray[np.float32]:
        """(queries, items) score of every item for every query, higher is better; −inf for an item that is left out."""


@dataclass(frozen=True)
class PlainSettings:
    """The two-label BERT classifier's recipe, and what may be spent on it.

    max_minutes: training stops there, and the report says so; None: it does not. max_queries: how many queries
    ``PlainRecipe.sample`` draws. negatives: items drawn at random for each pair of a wish and its item.
    """

    max_minutes: float | None = 30.0
    max_queries: int = 100
    epochs: int = 5
    batch_size: int = 16
    max_tokens: int = 128
    learning_rate: float = 2e-5
    negatives: int = 1

    def __post_init__(self) -> None:
        if self.max_minutes is not None and not self.max_minutes > 0:
            raise InvalidInput(f"max_minutes is {self.max_minutes}; accepted is a number above 0, or None")
        for name in ("max_queries", "epochs", "batch_size", "max_tokens", "negatives"):
            if getattr(self, name) < 1:
                raise InvalidInput(f"{name} is {getattr(self, name)}; accepted is 1 or more")


@dataclass(frozen=True)
class Context:
    """What a baseline is fitted on.

    seed: the one that split the data set. backbone, max_tokens: of the pre-trained encoder. train_vectors: (training texts,
    hidden) its vectors where they are known already. encode: texts → (texts, hidden) by it, where the caller keeps vectors.
    """

    examples: Examples
    dataset: Dataset
    seed: int = 0
    backbone: str | Path = DEFAULT_BACKBONE
    max_tokens: int = 64
    train_vectors: NDArray[np.float32] | None = None
    encode: Callable[[Sequence[str]], NDArray[np.float32]] | None = None
    plain: PlainSettings = field(default_factory=PlainSettings)


AnyRanker = TypeVar("AnyRanker", bound=Ranker)


def choose(candidates: Iterable[AnyRanker], validation: Pairs) -> AnyRanker:
    """The candidate with the best NDCG@10 on validation; the first of several, and where there are no queries."""
    return max(candidates, key=lambda ranker: validation_ndcg(ranker, validation))


def validation_ndcg(ranker: Ranker, validation: Pairs) -> float:
    """Mean NDCG@10 of at most ``CHOOSING_QUERIES`` queries, 0 where there are none."""
    count = min(len(validation), CHOOSING_QUERIES)
    gains = []
    for start in range(0, count, QUERY_BLOCK):
        block = validation.take(np.arange(start, min(start + QUERY_BLOCK, count)))
        gains.append(ndcg(top_items(ranker.scores(block)), block.items))
    return float(np.concatenate(gains).mean()) if gains else 0.0
