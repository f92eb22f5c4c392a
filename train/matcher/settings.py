"""Settings of a matcher's training."""

from __future__ import annotations

from dataclasses import dataclass

from bertrec.errors import InvalidInput
from train.precision import Precision

MATCHER_COMMAND = "python -m train matcher --run runs/NAME"


@dataclass(frozen=True)
class MatcherSettings:
    """How a matcher is trained.

    epochs: passes over the training texts; the pass that told validation pairs apart best is kept. item_tokens: it reads so many
    tokens of an item. top: the recommender's best items for a text, which its wrong pairs are drawn from and which it reranks.
    precision: of the matrix products while training.
    """

    seed: int = 0
    epochs: int = 2
    batch_size: int = 32
    learning_rate: float = 1e-4
    item_tokens: int = 24
    top: int = 50
    precision: str = Precision.AUTO.value
    max_minutes: float | None = None

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "item_tokens", "top"):
            if getattr(self, name) < 1:
                raise InvalidInput(f"{name} is {getattr(self, name)}; accepted is 1 or more")
        if self.precision not in [one.value for one in Precision]:
            raise InvalidInput(f"precision is {self.precision!r}; accepted are {', '.join(one.value for one in Precision)}")
        if self.max_minutes is not None and not self.max_minutes > 0:
            raise InvalidInput(f"max_minutes is {self.max_minutes}; accepted is a number above 0")
