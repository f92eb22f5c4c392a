"""One pass over the batches, as distillation and the matcher make it: within a budget, with checkpoints on the way."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from train.clock import Budget
from train.descent import step_down
from train.optimise import CHECKPOINT_EVERY_S, Training, set_learning_rates


def learn_pass(
    training: Training,
    batches: Sequence[NDArray[np.int64]],
    loss_of: Callable[[NDArray[np.int64]], Tensor],
    *,
    epoch: int,
    epochs: int,
    learning_rate: float,
    budget: Budget,
    save: Callable[[], None],
    advance: Callable[..., None],
) -> bool:
    """Learn from what is left of pass ``epoch``; False where the deadline cut it short.

    loss_of: the rows of a batch → their loss.
    """
    saved = time.monotonic()
    for rows in batches[training.step - epoch * len(batches) :]:
        done = budget.share(training.step / (epochs * len(batches)))
        if done > 1.0:
            return False
        set_learning_rates(training.optimiser, [learning_rate], done)
        loss = step_down(training.optimiser, loss_of(rows), training.descent)
        training.step += 1
        advance(note=f"loss {loss:.3f}")
        if time.monotonic() - saved > CHECKPOINT_EVERY_S:
            save()
            saved = time.monotonic()
    return True
