"""Fine-tuning within a run: the encoder and the item vectors of the text signal learned together, judged, saved and continued."""

from __future__ import annotations

import json
import logging
import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from bertrec.errors import InvalidInput, InvalidRun
from bertrec.text import TextTokenizer
from train.adapters import AdapterSettings
from train.checkpoint import load_checkpoint, save_checkpoint
from train.clock import Clock
from train.encoder import Encoder
from train.examples import UNSEEN, Examples
from train.fusion import gains
from train.items import ItemSide, centroids
from train.optimise import FineTuning, TrainingSet, fine_tune, fit_items
from train.progress import say
from train.run import Run
from train.settings import FitSettings
from train.states import FrozenStates, compute_states, encode_states
from train.team import ALONE, Team
from train.tracking import VALIDATION_NDCG, Tracking, tracker_of

log = logging.getLogger(__name__)

# Shares of a time budget after which a stage stops, so that the ones behind it still get their turn.
READING_SHARE, ITEMS_SHARE, TUNING_SHARE = 0.70, 0.74, 0.95
JUDGING_TEXTS = 1_000
"""Validation texts that the passes of fine-tuning are compared by."""
FOLLOWING_TEXTS = 250
"""Validation texts whose loss an adaptive augmentation follows, eight times in a pass."""


def frozen_states(
    run: Run,
    encoder: Encoder,
    tokenizer: TextTokenizer,
    examples: Examples,
    settings: FitSettings,
    clock: Clock,
    *,
    team: Team = ALONE,
) -> FrozenStates:
    """The training and the validation texts, read with the layers that stay.

    Raises InvalidInput where the time budget suffices for no training text.
    """
    states = compute_states(
        encoder,
        tokenizer.tokenise(examples.train.texts + examples.validation.texts),
        trained_layers=settings.trained_layers,
        seed=settings.seed,
        deadline=clock.deadline(READING_SHARE),
        precision=settings.precision,
        team=team,
    )
    if clock.max_minutes is not None and not states.done[: len(examples.train)].any():
        raise InvalidInput(
            f"{run.folder}: the time budget of {clock.max_minutes:g} minutes sufficed for no text at all. The same command with "
            "a larger --max-minutes continues"
        )
    return states


def learn_text(
    run: Run,
    encoder: Encoder,
    data: TrainingSet,
    examples: Examples,
    settings: FitSettings,
    clock: Clock,
    track: Tracking,
    *,
    team: Team = ALONE,
) -> FineTuning:
    """The encoder and the item vectors of the text signal, learned together; continues from a checkpoint.

    Of a team every process calls this; what comes back is whole in the leader's alone. Raises InvalidRun where only some of its
    processes find the checkpoint.
    """
    states, count = data.states, len(examples.train)
    first = centroids(states.zero_shot[:count], examples.train, examples.items)
    side = ItemSide(first, examples.counts, settings.prior_weight, settings.text_scale)
    side.to(encoder.device)
    if len(data.rows) < count:
        log.warning(
            "the time budget sufficed for %d of %d texts; the others only counted for words and popularity", len(data.rows), count
        )
    steps = settings.epochs * math.ceil(len(data.rows) / settings.batch_size)
    adapters = AdapterSettings(settings.tuning, settings.rank, settings.alpha, settings.bottleneck, max(steps, 1))
    tuning = FineTuning.begin(
        encoder,
        side,
        states.frozen_layers,
        adapters=adapters,
        companion=data.companion,
        precision=settings.precision,
        team=team,
    )
    guard = json.dumps({name: value for name, value in run.settings.items() if name != "max_minutes"}, sort_keys=True)
    _begin(run, tuning, data, guard, settings, clock)
    if team.leads:
        tuning.tracker = tracker_of(run, track, tuning.step)
    places = np.flatnonzero(states.done[count:])[:JUDGING_TEXTS]
    judge = _Judge(tuning, states, places + count, examples.validation.items[places])

    def save() -> None:
        save_checkpoint(run.folder, tuning, guard, clock.spent_s + tuning.earlier_s)

    if not fine_tune(tuning, data, settings, clock.deadline(TUNING_SHARE), save, judge.ndcg, judge.loss):
        say(f"the time budget of {settings.max_minutes:g} minutes sufficed for {tuning.step} of {steps} steps of fine-tuning")
    tuning.merge()
    return tuning


@dataclass(frozen=True)
class _Judge:
    """Validation texts by which the passes are compared. rows: of the states. items: the right one of each."""

    tuning: FineTuning
    states: FrozenStates
    rows: NDArray[np.int64]
    items: NDArray[np.int64]

    def ndcg(self) -> float:
        """NDCG@10 of the text signal alone; said, and tracked."""
        found = float(gains(self._logits(np.arange(len(self.rows))), torch.from_numpy(self.items)).mean())
        say(f"NDCG@10 on validation after {self.tuning.step} steps, text alone: {found:.4f}")
        self.tuning.tracker.log(self.tuning.step, **{VALIDATION_NDCG: found})
        return found

    def loss(self) -> float:
        """Cross-entropy of the first texts whose item is in the catalogue; 0 without any."""
        seen = np.flatnonzero(self.items != UNSEEN)[:FOLLOWING_TEXTS]
        return float(nn.functional.cross_entropy(self._logits(seen), torch.from_numpy(self.items[seen]))) if len(seen) else 0.0

    def _logits(self, places: NDArray[np.int64]) -> Tensor:
        """(texts, items), of the texts at some places among the rows."""
        encoder = self.tuning.encoder
        with torch.inference_mode():
            interest = torch.from_numpy(encode_states(encoder, self.states, self.rows[places])).to(encoder.device)
            return self.tuning.side(interest).cpu()  # type: ignore[no-any-return]


def _begin(run: Run, tuning: FineTuning, data: TrainingSet, guard: str, settings: FitSettings, clock: Clock) -> None:
    """Continue from the checkpoint, or fit the item vectors to the encoder as it is; all processes have the same then."""
    team, states, rows = tuning.descent.team, data.states, data.rows
    found = load_checkpoint(run.folder, tuning, guard)
    if team.total(found) not in (0, team.size):
        raise InvalidRun(f"only some of the {team.size} processes find the checkpoint in {run.folder}; all need the same folder")
    if found:
        say(f"continuing from step {tuning.step} of the checkpoint in {run.folder}")
        return
    if team.leads:
        read, counting = states.zero_shot[rows], None if data.weights is None else data.weights[rows]
        fit_items(tuning.side, read, data.items[rows], settings, clock.deadline(ITEMS_SHARE), weights=counting)
        if data.companion is not None:
            data.companion.begin_on(read, rows, settings)
    team.tell(tuning.trained().values())
