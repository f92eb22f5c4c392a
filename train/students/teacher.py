"""What the teacher says of the texts that a student learns from: training texts and others, and parts of them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from bertrec.tensors import TEXT_SIGNAL
from bertrec.text import TextTokenizer, Tokens
from train.encoder import Encoder
from train.examples import UNSEEN, Examples
from train.fingerprint import teacher_fingerprint
from train.items import log_prior
from train.run import Run
from train.states import encode_texts
from train.students.contract import STUDENTS_FOLDER, StudentSettings
from train.students.margins import Margins
from train.students.unlabelled import fingerprint_of

CROP_WORDS = (3, 16)
"""Fewest and most words of a part: as long as what people type into a search field."""


@dataclass(frozen=True)
class Lessons:
    """Texts, and what the teacher makes of each.

    tokens: of each text. items: (texts,) int64 the right item, UNSEEN where nobody said. vectors: (texts, hidden) float32, the
    teacher's. item_vectors: (items, hidden) and prior: (items,), by which both rank. margins: of the training texts, which stand
    first; None where the matcher is not asked.
    """

    tokens: Sequence[Tokens]
    items: NDArray[np.int64]
    vectors: NDArray[np.float32]
    item_vectors: Tensor
    prior: Tensor
    margins: Margins | None = None

    @cached_property
    def places(self) -> NDArray[np.int64]:
        """(texts,) int64: where each text stands among the margins, −1 where it does not."""
        texts = len(self.tokens)
        return np.full(texts, -1, np.int64) if self.margins is None else self.margins.places(texts)

    @property
    def labelled(self) -> NDArray[np.int64]:
        """Rows of the texts that have an item."""
        return np.flatnonzero(self.items != UNSEEN)

    @property
    def lengths(self) -> NDArray[np.int64]:
        """(texts,) tokens of each text."""
        return np.asarray([len(text.ids) for text in self.tokens], np.int64)

    def scores(self, vectors: Tensor) -> Tensor:
        """(batch, hidden) interest vectors → (batch, items) scores of the text signal and popularity."""
        return vectors @ self.item_vectors.T + self.prior

    def loss(self, vectors: Tensor, rows: NDArray[np.int64], settings: StudentSettings) -> Tensor:
        """How far a student's ``vectors``, (batch, hidden), are from the teacher's of the texts ``rows``, and from the items.

        The divergence between the distributions over the items (Hinton et al., 2015), 1 − cosine, the right item's cross-entropy
        (of a text without one: nothing), and the distance from the matcher's margins where they are wanted.
        """
        wanted = torch.from_numpy(self.vectors[rows])
        scores = nn.functional.log_softmax(self.scores(vectors), dim=-1)  # shifts a row's scores alike: margins stay
        teacher = nn.functional.log_softmax(self.scores(wanted), dim=-1)
        divergence = nn.functional.kl_div(scores, teacher, reduction="batchmean", log_target=True)
        distance = 1.0 - (vectors * wanted).sum(-1).mean()
        items = torch.from_numpy(self.items[rows])
        label = nn.functional.nll_loss(scores, items, ignore_index=UNSEEN, reduction="sum") / len(rows)
        loss = divergence + settings.embedding_weight * distance + settings.label_weight * label
        if self.margins is None:
            return loss
        return loss + settings.margin_weight * self.margins.loss(scores, self.places[rows])


def prepare_lessons(
    run: Run,
    teacher: Encoder,
    examples: Examples,
    settings: StudentSettings,
    margins: Margins | None = None,
    unlabelled: Sequence[str] = (),
) -> Lessons:
    """Read the training texts, the ``unlabelled``, and their parts with the teacher; what it said is kept for the next student.

    margins: the matcher's, of the training texts.
    """
    whole = [*examples.train.texts, *unlabelled]
    texts, items = list(whole), np.concatenate([examples.train.items, np.full(len(unlabelled), UNSEEN, np.int64)])
    for crop in range(settings.crops):
        random = np.random.default_rng([settings.seed, 5, crop])
        texts += [part_of(text, random) for text in whole]
    tokenizer = TextTokenizer(run.tokenizer_file, run.settings["max_tokens"])
    also = f"-{fingerprint_of(unlabelled)[:12]}" if unlabelled else ""
    kept = f"teacher-{teacher_fingerprint(run)[:12]}-{settings.seed}-{settings.crops}{also}.npy"
    path = run.folder / STUDENTS_FOLDER / kept
    if path.is_file():
        vectors = np.load(path, allow_pickle=False)
    else:
        vectors = encode_texts(teacher, tokenizer, texts, "reading texts with the teacher").astype(np.float16)
        _save(path, vectors)
    prior = float(run.settings["prior_weight"]) * log_prior(examples.counts)
    item_vectors = torch.from_numpy(run.array(f"items/{TEXT_SIGNAL}").astype(np.float32))
    return Lessons(
        tokenizer.tokenise(texts),
        np.tile(items, 1 + settings.crops),
        vectors.astype(np.float32),
        item_vectors,
        torch.from_numpy(prior),
        margins,
    )


def part_of(text: str, random: np.random.Generator) -> str:
    """A few neighbouring words of a text; a short text whole."""
    words = text.split()
    length = int(random.integers(CROP_WORDS[0], CROP_WORDS[1] + 1))
    if len(words) <= length:
        return text
    first = int(random.integers(0, len(words) - length + 1))
    return " ".join(words[first : first + length])


def _save(path: Path, vectors: NDArray[np.float16]) -> None:
    path.parent.mkdir(exist_ok=True)
    partial = path.with_name(f"{path.name}.partial")
    with partial.open("wb") as file:
        np.save(file, vectors, allow_pickle=False)
    os.replace(partial, path)
