"""The two loops of training: item vectors over frozen vectors, then the encoder's upper layers with them."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from train.encoder import Encoder
from train.items import ItemSide
from train.progress import progress
from train.settings import FitSettings
from train.states import FrozenStates, length_sorted_batches

WARM_UP = 0.1
"""Share of the steps in which the learning rate rises."""
CLIP_NORM = 1.0
CHECKPOINT_EVERY_S = 60.0


@dataclass(frozen=True)
class TrainingSet:
    """What both loops learn from. lexical: (texts, dimensions). items: (texts,) the right item. rows: texts to use."""

    states: FrozenStates
    lexical: NDArray[np.float32]
    items: NDArray[np.int64]
    rows: NDArray[np.int64]


def fit_items(side: ItemSide, data: TrainingSet, settings: FitSettings, deadline: float | None) -> None:
    """Fit the item vectors by softmax over all items, with the pre-trained encoder's vectors as they are: seconds."""
    optimiser = torch.optim.AdamW(side.parameters(), lr=0.0, weight_decay=0.0)
    random = np.random.default_rng([settings.seed, 1])
    steps_an_epoch = math.ceil(len(data.rows) / settings.item_batch_size)
    total = settings.item_epochs * steps_an_epoch
    with progress("fitting item vectors", total) as advance:
        step = 0
        for _ in range(settings.item_epochs):
            order = data.rows[random.permutation(len(data.rows))]
            for rows in np.split(order, range(settings.item_batch_size, len(order), settings.item_batch_size)):
                if deadline is not None and time.monotonic() > deadline:
                    return
                _set_learning_rates(optimiser, [settings.item_first_learning_rate], step / total)
                logits = side(torch.from_numpy(data.states.zero_shot[rows]), torch.from_numpy(data.lexical[rows]))
                loss = _step(optimiser, logits, torch.from_numpy(data.items[rows]))
                step += 1
                advance(note=f"loss {loss:.2f}")


@dataclass
class FineTuning:
    """The encoder's upper layers and the item vectors in training; ``step`` counts the batches that were learned from."""

    encoder: Encoder
    side: ItemSide
    optimiser: torch.optim.Optimizer
    step: int = 0

    @classmethod
    def begin(cls, encoder: Encoder, side: ItemSide, frozen_layers: int) -> FineTuning:
        """Set the layers free that are to be trained."""
        encoder.train_upper(frozen_layers)
        upper = [parameter for parameter in encoder.parameters() if parameter.requires_grad]
        groups = [{"params": upper, "weight_decay": 0.01}, {"params": list(side.parameters()), "weight_decay": 0.0}]
        return cls(encoder, side, torch.optim.AdamW(groups, lr=0.0))


def fine_tune(
    tuning: FineTuning, data: TrainingSet, settings: FitSettings, deadline: float | None, save: Callable[[], None]
) -> bool:
    """Train until all epochs are done, and say so; False where the deadline came first.

    ``save`` is called every minute, between two steps; a run that continues from what it saved does the same steps.
    """
    if not len(data.rows):
        return True
    lengths = data.states.lengths[data.rows]
    steps_an_epoch = math.ceil(len(data.rows) / settings.batch_size)
    total = settings.epochs * steps_an_epoch
    rates = [settings.encoder_learning_rate, settings.item_learning_rate]
    saved = time.monotonic()
    with progress("fine-tuning BERT and item vectors", total) as advance:
        advance(tuning.step)
        for epoch in range(tuning.step // steps_an_epoch, settings.epochs):
            random = np.random.default_rng([settings.seed, 2, epoch])
            batches = list(length_sorted_batches(lengths, settings.batch_size, random))
            for batch in batches[tuning.step - epoch * steps_an_epoch :]:
                if deadline is not None and time.monotonic() > deadline:
                    return False
                rows = data.rows[batch]
                _set_learning_rates(tuning.optimiser, rates, tuning.step / total)
                hidden, mask = data.states.batch(rows, tuning.encoder)  # (batch, tokens, hidden), (batch, tokens)
                interest = tuning.encoder.upper(hidden, mask, data.states.frozen_layers)  # (batch, hidden)
                logits = tuning.side(interest, torch.from_numpy(data.lexical[rows]))  # (batch, items)
                loss = _step(tuning.optimiser, logits, torch.from_numpy(data.items[rows]))
                tuning.step += 1
                advance(note=f"loss {loss:.2f}")
                if time.monotonic() - saved > CHECKPOINT_EVERY_S:
                    save()
                    saved = time.monotonic()
    return True


def _step(optimiser: torch.optim.Optimizer, logits: Tensor, items: Tensor) -> float:
    loss = nn.functional.cross_entropy(logits, items)
    optimiser.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]  # torch's own
    nn.utils.clip_grad_norm_([parameter for group in optimiser.param_groups for parameter in group["params"]], CLIP_NORM)
    optimiser.step()
    return float(loss.detach())


def _set_learning_rates(optimiser: torch.optim.Optimizer, highest: list[float], done: float) -> None:
    """One cycle (Smith, 2018): up linearly, down by a cosine. ``done``: share of the steps that lie behind."""
    factor = done / WARM_UP if done < WARM_UP else 0.5 * (1.0 + math.cos(math.pi * (done - WARM_UP) / (1.0 - WARM_UP)))
    for group, rate in zip(optimiser.param_groups, highest, strict=True):
        group["lr"] = rate * max(factor, 1e-3)
