"""The loops of training: item vectors over vectors that stay as they are, and the encoder's upper layers with their items."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from train.adapters import ALL, Adapters, AdapterSettings, TuningCost, adapt, measure_cost
from train.adversarial import adversarial_backward
from train.augmentation.augmenter import LOOKS, STRENGTH_KEY, Augmenter, adapted
from train.clock import Budget
from train.descent import Descent, move, step_down
from train.encoder import Encoder
from train.items import ItemSide
from train.loss import CatalogueLoss
from train.multi_task import Companion
from train.precision import CPU, Precision, autocast, loss_scaler
from train.progress import progress
from train.settings import FitSettings
from train.states import FrozenStates, length_sorted_batches, shuffled_batches
from train.team import ALONE, Team
from train.tracking import ITEM_LEARNING_RATE, LEARNING_RATE, LOSS, NoTracker, Tracker

WARM_UP = 0.1
"""Share of the steps in which the learning rate rises."""
CHECKPOINT_EVERY_S = 60.0


@dataclass(frozen=True)
class TrainingSet:
    """What the encoder learns from. items: (texts,) the right item of each text. rows: texts to use.

    weights: (texts,) how much each text counts; all alike, if not given. augmenter: changes texts on the way.
    companion: what is learned beside the recommendation, by the same rows.
    """

    states: FrozenStates
    items: NDArray[np.int64]
    rows: NDArray[np.int64]
    weights: NDArray[np.float32] | None = None
    augmenter: Augmenter | None = None
    companion: Companion | None = None

    def weight(self, rows: NDArray[np.int64]) -> float:
        """How much some texts count together."""
        return float(len(rows)) if self.weights is None else float(self.weights[rows].sum())

    def batch(self, rows: NDArray[np.int64], tuning: FineTuning) -> tuple[Tensor, Tensor]:
        """(batch, tokens, hidden) float32 states and (batch, tokens) mask of the texts that the next step learns from."""
        if self.augmenter is None:
            return self.states.batch(rows, tuning.encoder)
        strength = tuning.memory.get(STRENGTH_KEY, self.augmenter.settings.strength)
        rank = tuning.descent.team.rank
        return self.augmenter.batch(rows, self.states, tuning.encoder, step=tuning.step, strength=strength, rank=rank)


def fit_items(
    side: ItemSide,
    users: NDArray[np.float32],
    items: NDArray[np.int64],
    settings: FitSettings,
    deadline: float | None = None,
    *,
    weights: NDArray[np.float32] | None = None,
) -> None:
    """Fit item vectors by softmax to user sides that stay as they are: seconds.

    users: (texts, width) of length 1; a text on which the signal is silent (zeros) teaches nothing. items: (texts,). weights:
    (texts,) how much each counts; all alike, if not given.
    """
    rows = np.flatnonzero(users.any(axis=1))
    optimiser = torch.optim.AdamW(side.parameters(), lr=0.0, weight_decay=0.0)
    random = np.random.default_rng([settings.seed, 1])
    loss_of, device = CatalogueLoss(side, settings), side.vectors.device
    total = settings.item_epochs * math.ceil(len(rows) / settings.item_batch_size)
    with progress("fitting item vectors", total) as advance:
        for step, batch in enumerate(shuffled_batches(rows, settings.item_batch_size, settings.item_epochs, random)):
            if deadline is not None and time.monotonic() > deadline:
                return
            set_learning_rates(optimiser, [settings.item_first_learning_rate], step / total)
            counting = _tensor(weights, batch, device)
            mean = loss_of(torch.from_numpy(users[batch]).to(device), torch.from_numpy(items[batch]).to(device), weights=counting)
            loss = step_down(optimiser, mean)
            advance(note=f"loss {loss:.2f}")


@dataclass
class Training:
    """Modules in training; ``step`` counts the batches that were learned from.

    best: the weights after the pass that ranked the validation texts best, with its NDCG@10; empty before the first. earlier_s:
    seconds that earlier sittings of the run took. memory: numbers that tools of training keep from step to step. tracker: who
    keeps the curves. descent: how gradients become steps. stopped: early, because a pass ranked worse than one before.
    """

    modules: Mapping[str, nn.Module]
    optimiser: torch.optim.Optimizer
    step: int = 0
    best: dict[str, Tensor] = field(default_factory=dict)
    best_ndcg: float = -1.0
    earlier_s: float = 0.0
    stopped: bool = False
    memory: dict[str, float] = field(default_factory=dict)
    tracker: Tracker = field(default_factory=NoTracker)
    descent: Descent = field(default_factory=Descent)

    def trained(self) -> dict[str, Tensor]:
        """Name → parameter, of everything that training changes."""
        named = ((name, module.named_parameters()) for name, module in self.modules.items())
        return {f"{name}.{part}": value for name, parts in named for part, value in parts if value.requires_grad}

    def judge(self, ndcg: float) -> bool:
        """Keep the weights if they rank best so far; False where they do not."""
        if ndcg <= self.best_ndcg:
            return False
        self.best_ndcg = ndcg
        self.best = {name: value.detach().clone() for name, value in self.trained().items()}
        return True

    def state(self) -> dict[str, Tensor]:
        """Name → tensor, of what a checkpoint needs besides."""
        return {}

    def restore(self, state: dict[str, Tensor]) -> None:
        """Go on from a ``state``."""

    @torch.no_grad()
    def restore_best(self) -> None:
        """Go back to the best weights, where a pass was judged."""
        for name, value in self.best.items():
            self.trained()[name].copy_(value)


@dataclass
class FineTuning(Training):
    """The encoder's upper layers and their item vectors in training."""

    encoder: Encoder = field(kw_only=True)
    side: ItemSide = field(kw_only=True)
    adapters: Adapters = field(kw_only=True)
    cost: TuningCost = field(kw_only=True)

    @classmethod
    def begin(
        cls,
        encoder: Encoder,
        side: ItemSide,
        frozen_layers: int,
        *,
        adapters: AdapterSettings = ALL,
        companion: Companion | None = None,
        precision: Precision = Precision.FP32,
        team: Team = ALONE,
    ) -> FineTuning:
        """Set the layers free that are to be trained, or what is put into them; a companion learns as fast as the items."""
        adapted = adapt(encoder, frozen_layers, adapters)
        upper = [parameter for parameter in encoder.parameters() if parameter.requires_grad]
        modules: dict[str, nn.Module] = {"encoder": encoder, "items": side}
        beside = list(side.parameters())
        if companion is not None:
            modules["companion"] = companion.network.to(encoder.device)
            beside += companion.network.parameters()
        groups = [{"params": upper, "weight_decay": 0.01}, {"params": beside, "weight_decay": 0.0}]
        optimiser = torch.optim.AdamW(groups, lr=0.0)
        descent = Descent(team, loss_scaler(precision, encoder.device))
        cost = measure_cost(encoder)
        return cls(modules, optimiser, descent=descent, encoder=encoder, side=side, adapters=adapted, cost=cost)

    def merge(self) -> None:
        """End training: what was learned goes into the encoder's own weights; and say what it cost."""
        self.cost = measure_cost(self.encoder)
        self.adapters.merge()

    def state(self) -> dict[str, Tensor]:
        """The adapters' own."""
        return self.adapters.state()

    def restore(self, state: dict[str, Tensor]) -> None:
        """Go on from a ``state``."""
        self.adapters.restore(state)


def fine_tune(
    tuning: FineTuning,
    data: TrainingSet,
    settings: FitSettings,
    deadline: float | None,
    save: Callable[[], None],
    ndcg: Callable[[], float],
    validation_loss: Callable[[], float],
) -> bool:
    """Train until all epochs are done or one ranks worse than the one before; False where the deadline came first.

    Where the time does not suffice, the learning rate comes down with the time that is left instead of with the steps.
    ``save`` is called every minute, between two steps; a run that continues from what it saved does the same steps. ``ndcg``
    ranks validation texts; where several epochs are run it is called after each, and the best weights are kept.
    ``validation_loss`` is what an adaptive augmentation follows. Of a team every process calls this, and ``save`` in all at once;
    ``ndcg`` and ``validation_loss`` are called in the leader's alone.
    """
    team = tuning.descent.team
    if not len(data.rows):
        return True
    steps_an_epoch = math.ceil(len(data.rows) / settings.batch_size)
    total = settings.epochs * steps_an_epoch
    budget = Budget(time.monotonic(), deadline, tuning.step / total)
    in_time = True

    def improved() -> bool:
        better = bool(team.agree(tuning.judge(ndcg()) if team.leads else 0))
        tuning.encoder.train_upper(data.states.frozen_layers)
        return better

    with progress("fine-tuning BERT and item vectors", total) as advance:
        advance(tuning.step)
        for epoch in range(tuning.step // steps_an_epoch, settings.epochs):
            if tuning.stopped:
                break
            in_time = _epoch(tuning, data, settings, epoch, budget, save, advance, validation_loss)
            if not in_time:
                break
            if settings.epochs > 1:
                tuning.stopped = not improved()
                save()
    if tuning.step > steps_an_epoch and tuning.step % steps_an_epoch:
        improved()  # a pass that the deadline cut short, against the whole ones
    tuning.restore_best()
    return in_time


def _epoch(
    tuning: FineTuning,
    data: TrainingSet,
    settings: FitSettings,
    epoch: int,
    budget: Budget,
    save: Callable[[], None],
    advance: Callable[..., None],
    validation_loss: Callable[[], float],
) -> bool:
    """What is left of one pass; False where the deadline cut it short."""
    random = np.random.default_rng([settings.seed, 2, epoch])
    batches = list(length_sorted_batches(data.states.lengths[data.rows], settings.batch_size, random))
    rates = [settings.encoder_learning_rate * tuning.adapters.learning_rate_factor, settings.item_learning_rate]
    loss_of, team = CatalogueLoss(tuning.side, settings), tuning.descent.team
    saved = time.monotonic()
    for batch in batches[tuning.step - epoch * len(batches) :]:
        done = team.agree(budget.share(tuning.step / (settings.epochs * len(batches))))
        if done > 1.0:
            return False
        rows = data.rows[batch]
        set_learning_rates(tuning.optimiser, rates, done)
        loss = _step(tuning, data, settings, rows, loss_of)
        tuning.step += 1
        tuning.adapters.after_step(tuning.step)
        _adapt(tuning, data, len(batches), validation_loss)
        advance(note=f"loss {loss:.2f}")
        used = [group["lr"] for group in tuning.optimiser.param_groups]
        tuning.tracker.log(tuning.step, **{LOSS: loss, LEARNING_RATE: used[0], ITEM_LEARNING_RATE: used[1]})
        if team.agree(time.monotonic() - saved > CHECKPOINT_EVERY_S):
            save()
            saved = time.monotonic()
    return True


def _step(tuning: FineTuning, data: TrainingSet, settings: FitSettings, rows: NDArray[np.int64], loss_of: CatalogueLoss) -> float:
    """Learn from one batch, of which each process of a team takes its share; returns the loss of the batch."""
    team, scaler, device = tuning.descent.team, tuning.descent.scaler, tuning.encoder.device
    own = team.share_of(rows)
    part = data.weight(own) / data.weight(rows)
    if not len(own):
        step_down(tuning.optimiser, torch.zeros(()), tuning.descent)
        return team.total(0.0)
    hidden, mask = data.batch(own, tuning)  # (batch, tokens, hidden), (batch, tokens)
    items, weights = torch.from_numpy(data.items[own]).to(device), _tensor(data.weights, own, device)

    def loss_at(states: Tensor) -> Tensor:
        with autocast(settings.precision, device):
            interest = tuning.encoder.upper(states, mask, data.states.frozen_layers)  # (batch, hidden)
            loss = loss_of(interest, items, weights=weights) + tuning.adapters.penalty()
            return part * (loss if data.companion is None else loss + data.companion.loss(interest, own))

    if settings.adversarial is None:
        return team.total(step_down(tuning.optimiser, loss_at(hidden), tuning.descent))
    tuning.optimiser.zero_grad()
    loss = adversarial_backward(lambda states: scaler.scale(loss_at(states)), hidden, mask, settings.adversarial)
    scale = scaler.get_scale()  # before the step changes it
    move(tuning.optimiser, tuning.descent)
    return team.total(loss / scale)


def _adapt(tuning: FineTuning, data: TrainingSet, steps_an_epoch: int, validation_loss: Callable[[], float]) -> None:
    """After every eighth of a pass, let an adaptive augmentation follow the validation loss."""
    augmenter = data.augmenter
    if augmenter is None or not augmenter.settings.adaptive or tuning.step % math.ceil(steps_an_epoch / LOOKS):
        return
    team = tuning.descent.team
    if team.leads:
        tuning.memory.update(adapted(tuning.memory, validation_loss(), augmenter.settings))
    tuning.memory[STRENGTH_KEY] = team.agree(tuning.memory.get(STRENGTH_KEY, 0.0))
    tuning.encoder.train_upper(data.states.frozen_layers)


def _tensor(weights: NDArray[np.float32] | None, rows: NDArray[np.int64], device: torch.device = CPU) -> Tensor | None:
    return None if weights is None else torch.from_numpy(weights[rows]).to(device)


def set_learning_rates(optimiser: torch.optim.Optimizer, highest: list[float], done: float) -> None:
    """One cycle (Smith, 2018): up linearly, down by a cosine. ``done``: share of the steps that lie behind."""
    factor = done / WARM_UP if done < WARM_UP else 0.5 * (1.0 + math.cos(math.pi * (done - WARM_UP) / (1.0 - WARM_UP)))
    for group, rate in zip(optimiser.param_groups, highest, strict=True):
        group["lr"] = rate * max(factor, 1e-3)
