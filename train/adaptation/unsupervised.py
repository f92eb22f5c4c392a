"""Unsupervised adaptation of the encoder's upper layers to a domain's texts.

mlm: the masked words are guessed from the others (Gururangan et al., Don't Stop Pretraining, 2020,
https://arxiv.org/abs/2004.10964). simcse: a text, read twice with other dropout, is told from the other texts of its batch (Gao
et al., SimCSE, 2021, https://arxiv.org/abs/2104.08821).
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from bertrec.errors import InvalidInput
from bertrec.text import Tokens
from train.adaptation.kinds import Adaptation
from train.checkpoint import FILE as CHECKPOINT_FILE
from train.encoder import Encoder
from train.optimise import Training
from train.passes import Batches, Passes
from train.progress import say
from train.records import writing
from train.states import length_sorted_batches, padded

TEMPERATURE = 0.05
"""Of SimCSE, as in its paper."""
MASKED, BECOME_MASK, BECOME_RANDOM = 0.15, 0.8, 0.1
"""Share of a text's tokens that are guessed, and what these become; the others stay (Devlin et al., BERT, 2018)."""
NO_TARGET = -100
"""What cross-entropy leaves out."""


@dataclass(frozen=True)
class AdaptationSettings:
    """How to adapt. mask_id: the tokenizer's mask token, for mlm alone."""

    kind: Adaptation
    trained_layers: int
    seed: int = 0
    epochs: int = 1
    batch_size: int = 32
    learning_rate: float = 5e-5
    mask_id: int | None = None


def adapt_to_texts(
    encoder: Encoder, tokens: Sequence[Tokens], settings: AdaptationSettings, folder: Path, *, minutes: float | None = None
) -> int:
    """Train the upper layers on texts without labels, in place; returns the number of steps.

    It continues from the checkpoint in ``folder``, where there is one, and leaves its own there. minutes: of all sittings, after
    which to stop; the learning rate has come down by then. Raises InvalidInput for mlm on a causal backbone or one without a mask
    token.
    """
    if settings.kind is Adaptation.NONE or not tokens:
        return 0
    lesson: _Masking | _Contrast = _Contrast(encoder) if settings.kind is Adaptation.SIMCSE else _Masking(encoder, settings)
    encoder.train_upper(max(encoder.layers - settings.trained_layers, 0))
    encoder.blocks.train()
    moved = [value for value in encoder.parameters() if value.requires_grad]
    optimiser = torch.optim.AdamW([*moved, *lesson.head.parameters()], lr=0.0, weight_decay=0.01)
    training = Training({"encoder": encoder, "head": lesson.head}, optimiser)
    lengths = np.asarray([len(text.ids) for text in tokens], np.int64)
    passes = Passes(
        f"adapting to texts without labels: {settings.kind.value}",
        settings.epochs,
        steps=math.ceil(len(tokens) / settings.batch_size),
        learning_rate=settings.learning_rate,
        folder=folder,
        guard=json.dumps({**asdict(settings), "texts": len(tokens)}, sort_keys=True),
        started=time.monotonic(),
    )
    folder.mkdir(parents=True, exist_ok=True)
    passes.resume(training)

    def begin(epoch: int) -> Batches:
        random = np.random.default_rng([settings.seed, 5, epoch])
        return list(length_sorted_batches(lengths, settings.batch_size, random))

    def loss_of(rows: NDArray[np.int64]) -> Tensor:
        return lesson.loss(*padded([tokens[row].ids for row in rows]))

    deadline = None if minutes is None else passes.started + 60.0 * minutes - training.earlier_s
    passes.learn(training, begin, loss_of, deadline=deadline)
    encoder.eval()
    return training.step


def adapted_encoder(
    encoder: Encoder, tokens: Sequence[Tokens], folder: Path, settings: AdaptationSettings, *, minutes: float | None = None
) -> Encoder:
    """The encoder adapted to the texts, read from ``folder`` where it lies there already, and else left there.

    minutes: to spend at most, besides the epochs of ``settings``. Where it was interrupted, the same call continues.
    """
    if not folder.is_dir():
        partial = folder.with_name(f"{folder.name}.partial")
        steps = adapt_to_texts(encoder, tokens, settings, partial, minutes=minutes)
        say(f"adapted to {len(tokens):,} texts without labels: {settings.kind.value}, {steps:,} steps")
        with writing(partial):
            encoder.bert.save_pretrained(partial)
        os.replace(partial, folder)
    (folder / CHECKPOINT_FILE).unlink(missing_ok=True)
    return Encoder.load(folder)


class _Contrast:
    """SimCSE: two readings of a text lie closer than those of two texts. head: what is learned beside the encoder, nothing."""

    def __init__(self, encoder: Encoder) -> None:
        self._encoder, self.head = encoder, nn.Module()

    def loss(self, input_ids: Tensor, mask: Tensor) -> Tensor:
        """(batch, tokens) ids and mask → InfoNCE within the batch."""
        first, second = self._encoder(input_ids, mask), self._encoder(input_ids, mask)  # (batch, hidden), of length 1
        return nn.functional.cross_entropy(first @ second.T / TEMPERATURE, torch.arange(len(first)))


class _Masking:
    """Guessing masked tokens by BERT's ``head``, whose products with the token embeddings are the logits."""

    def __init__(self, encoder: Encoder, settings: AdaptationSettings) -> None:
        embeddings: Tensor = encoder.bert.get_input_embeddings().weight  # (vocabulary, embedding size)
        if encoder.family.causal:
            raise InvalidInput(
                f"adaptation 'mlm' needs a backbone that reads in both directions, and a "
                f"{encoder.bert.config.model_type!r} model does not; accepted for it are simcse and none"
            )
        if settings.mask_id is None:
            raise InvalidInput("adaptation 'mlm' needs a mask token, and the tokenizer has none; accepted are simcse and none")
        self._encoder, self._embeddings, self._mask_id = encoder, embeddings.detach(), settings.mask_id
        vocabulary, size = embeddings.shape
        self._transform = nn.Sequential(nn.Linear(encoder.hidden, size), nn.GELU(), nn.LayerNorm(size))
        if size == encoder.hidden:  # begin as if there were no head, since this one was not pre-trained
            nn.init.eye_(self._transform[0].weight)  # type: ignore[arg-type]  # a Linear's
        self._bias = nn.Parameter(torch.zeros(vocabulary))
        self.head = nn.Module()
        self.head.transform, self.head.bias = self._transform, self._bias

    def loss(self, input_ids: Tensor, mask: Tensor) -> Tensor:
        """(batch, tokens) ids and mask → cross-entropy of the tokens that were masked."""
        inputs, targets = masked(input_ids, mask, mask_id=self._mask_id, vocabulary=len(self._bias))
        hidden = self._encoder.last(self._encoder.lower(inputs, mask, 0), mask, 0)  # (batch, tokens, hidden)
        chosen = targets != NO_TARGET
        logits = self._transform(hidden[chosen]) @ self._embeddings.T + self._bias  # (masked, vocabulary)
        return nn.functional.cross_entropy(logits, targets[chosen])


def masked(input_ids: Tensor, mask: Tensor, *, mask_id: int, vocabulary: int) -> tuple[Tensor, Tensor]:
    """(batch, tokens) ids and mask → the same with tokens masked, and the targets, NO_TARGET where nothing is to be guessed.

    The first and the last token of a text are left alone, since they stand around it; at least one of the others is guessed.
    """
    place, lengths = torch.arange(input_ids.shape[1])[None], mask.sum(1, keepdim=True)  # (1, tokens), (batch, 1)
    inner = (place > 0) & (place < lengths - 1)
    inner |= (lengths <= 2) & (place == 0)  # of a text without any
    chance = torch.rand(input_ids.shape).masked_fill(~inner, 2.0)
    chosen = (chance < MASKED) | (chance == chance.min(1, keepdim=True).values) & inner
    fate = torch.rand(input_ids.shape)
    becomes = torch.where(fate < BECOME_MASK, mask_id, input_ids)
    anything = torch.randint(vocabulary, input_ids.shape)
    becomes = torch.where((fate >= BECOME_MASK) & (fate < BECOME_MASK + BECOME_RANDOM), anything, becomes)
    return torch.where(chosen, becomes, input_ids), torch.where(chosen, input_ids, NO_TARGET)
