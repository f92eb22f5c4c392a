"""Passes over the texts, as distillation, the matcher and adaptation make them: within a budget, with checkpoints on the way."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from train.checkpoint import load_checkpoint, save_checkpoint
from train.clock import Budget
from train.descent import step_down
from train.optimise import CHECKPOINT_EVERY_S, Training, set_learning_rates
from train.progress import progress, say

Batches = Sequence[NDArray[np.int64]]
"""Each the rows of some texts."""


@dataclass(frozen=True)
class Passes:
    """So many passes of so many steps, which continue from the checkpoint in ``folder`` if its ``guard`` is theirs.

    label: what the progress says. started: ``time.monotonic()`` when the sitting began.
    """

    label: str
    epochs: int
    steps: int
    learning_rate: float
    folder: Path
    guard: str
    started: float

    @property
    def total(self) -> int:
        """Steps of all passes."""
        return self.epochs * self.steps

    def resume(self, training: Training) -> None:
        """Go on from the checkpoint, where there is one."""
        if load_checkpoint(self.folder, training, self.guard):
            say(f"continuing from step {training.step} of the checkpoint in {self.folder}")

    def learn(
        self,
        training: Training,
        begin: Callable[[int], Batches],
        loss_of: Callable[[NDArray[np.int64]], Tensor],
        *,
        deadline: float | None,
        judge: Callable[[], float] | None = None,
    ) -> bool:
        """Make what is left of the passes; False where the deadline, by ``time.monotonic()``, cut them short.

        begin: makes ready for a pass, and returns its batches. loss_of: the rows of a batch → their loss. judge: how well the
        weights do after a pass, or after the part of it that there was time for.
        """
        budget = Budget(time.monotonic(), deadline, training.step / self.total)
        with progress(self.label, self.total) as advance:
            advance(training.step)
            for epoch in range(training.step // self.steps, self.epochs):
                before = training.step
                in_time = self._pass(training, epoch, begin(epoch), loss_of, budget, advance)
                if judge is not None and training.step > before:
                    training.judge(judge())
                self._save(training)
                if not in_time:
                    return False
        return True

    def _pass(
        self,
        training: Training,
        epoch: int,
        batches: Batches,
        loss_of: Callable[[NDArray[np.int64]], Tensor],
        budget: Budget,
        advance: Callable[..., None],
    ) -> bool:
        """What is left of one pass; False where the deadline cut it short."""
        saved = time.monotonic()
        for rows in batches[training.step - epoch * self.steps :]:
            done = budget.share(training.step / self.total)
            if done > 1.0:
                return False
            set_learning_rates(training.optimiser, [self.learning_rate], done)
            loss = step_down(training.optimiser, loss_of(rows), training.descent)
            training.step += 1
            advance(note=f"loss {loss:.3f}")
            if time.monotonic() - saved > CHECKPOINT_EVERY_S:
                self._save(training)
                saved = time.monotonic()
        return True

    def _save(self, training: Training) -> None:
        save_checkpoint(self.folder, training, self.guard, time.monotonic() - self.started + training.earlier_s)
