"""Heads that are learned together with the recommendation, on the encoder that both share: which, and how much each counts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from bertrec.errors import InvalidInput

if TYPE_CHECKING:
    from train.settings import FitSettings

WEIGHT = 0.1
"""Of a head's cross-entropy beside the recommendation's, which it shall help and not displace."""


class HeadsKind(str, Enum):
    """How heads come to be: on a run's encoder as it stands, or together with it."""

    FROZEN = "frozen"
    MULTI_TASK = "multi-task"


@dataclass(frozen=True)
class MultiTaskSettings:
    """weight: of every head's loss; weights: (head, weight) of those that have one of their own, 0: it is not learned."""

    weight: float = WEIGHT
    weights: tuple[tuple[str, float], ...] = ()

    def __post_init__(self) -> None:
        for name, weight in (("the heads", self.weight), *self.weights):
            if not 0 <= weight < math.inf:
                raise InvalidInput(f"the weight of {name} is {weight}; accepted is 0 or more, such as {WEIGHT}")

    def of(self, names: Sequence[str]) -> dict[str, float]:
        """Head → its weight, those of 0 left out. Raises InvalidInput for a weight of a head that is not among the names."""
        if unknown := [name for name, _ in self.weights if name not in names]:
            raise InvalidInput(f"a weight is given for head {unknown[0]!r}; the data gives the heads {', '.join(names)}")
        own = dict(self.weights)
        found = {name: own.get(name, self.weight) for name in names}
        if not any(found.values()):
            raise InvalidInput("every head has the weight 0, so there is nothing to learn beside the recommendation")
        return {name: weight for name, weight in found.items() if weight > 0}


class Companion(Protocol):
    """What is learned beside the recommendation, from the same interest vectors."""

    @property
    def network(self) -> nn.Module:
        """Its own weights."""

    def begin_on(self, vectors: NDArray[np.float32], rows: NDArray[np.int64], settings: FitSettings) -> None:
        """Learn from vectors that stay as they are, (texts, hidden) of the texts ``rows``, before the encoder moves."""

    def loss(self, interest: Tensor, rows: NDArray[np.int64]) -> Tensor:
        """What is added to the recommendation's loss: of (batch, hidden) interest vectors of the training texts ``rows``."""
