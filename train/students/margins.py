"""Margins: by how much the run's matcher prefers the chosen item to a wrong one, for a student to learn (MarginMSE).

After Hofstätter et al., Improving efficient neural ranking models with cross-architecture knowledge distillation, 2020. The wrong
items are drawn from what the run recommends for the text, among which a bi-encoder errs.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from bertrec.catalogue import Catalogue
from bertrec.errors import InvalidData, InvalidRun
from bertrec.matching import MATCHER_FOLDER, Matching, log_odds, tokenised_items
from bertrec.text import TextTokenizer, Tokens
from train.data import Dataset
from train.examples import OWN_TEXT, UNSEEN, Pairs
from train.fingerprint import teacher_fingerprint
from train.matcher.lessons import answers, lessons_of
from train.matcher.network import Matcher, load_matcher
from train.matcher.settings import MATCHER_COMMAND, MatcherSettings
from train.precision import Precision
from train.progress import say
from train.rankers import InterestVectors
from train.run import Run
from train.students.contract import STUDENTS_FOLDER, StudentSettings

BLOCK = 512
"""Texts that the matcher reads between two savings: a minute or so."""


@dataclass(frozen=True)
class Margins:
    """What the matcher says of some texts, each with its chosen item and with wrong ones.

    rows: (texts,) int64 which of the pairs they were asked about; those with a writer and an item of the catalogue. chosen:
    (texts,) int64 items. wrong: (texts, wrong) int64 items. odds: (texts, 1 + wrong) float32 log-odds that the item fits, the
    chosen one's first; those of the first ``done`` texts are known.
    """

    rows: NDArray[np.int64]
    chosen: NDArray[np.int64]
    wrong: NDArray[np.int64]
    odds: NDArray[np.float32]
    done: int = 0

    @property
    def wanted(self) -> NDArray[np.float32]:
        """(texts, wrong): the margins."""
        return self.odds[:, :1] - self.odds[:, 1:]

    def places(self, pairs: int) -> NDArray[np.int64]:
        """(pairs,) int64: of each pair its place among the texts, −1 where it has none."""
        found = np.full(pairs, -1, np.int64)
        found[self.rows] = np.arange(len(self.rows))
        return found

    def loss(self, scores: Tensor, places: NDArray[np.int64]) -> Tensor:
        """Mean squared difference between the margins of (batch, items) ``scores`` and the matcher's, of texts at ``places``.

        Rows of place −1 do not count; 0 where none is left.
        """
        known = np.flatnonzero(places >= 0)
        if not len(known):
            return scores.sum() * 0.0
        texts = places[known]
        scores = scores[torch.from_numpy(known)]
        own = scores.gather(1, torch.from_numpy(self.chosen[texts])[:, None])  # (texts, 1)
        others = scores.gather(1, torch.from_numpy(self.wrong[texts]))  # (texts, wrong)
        return nn.functional.mse_loss(own - others, torch.from_numpy(self.wanted[texts]))

    def save(self, path: Path) -> None:
        """Write the file as a whole or not at all."""
        path.parent.mkdir(exist_ok=True)
        partial = path.with_name(f"{path.name}.partial")
        with partial.open("wb") as file:
            np.savez(file, rows=self.rows, chosen=self.chosen, wrong=self.wrong, odds=self.odds, done=np.int64(self.done))
        os.replace(partial, path)

    @classmethod
    def load(cls, path: Path) -> Margins:
        """Read what :meth:`save` wrote."""
        with np.load(path, allow_pickle=False) as file:
            return cls(file["rows"], file["chosen"], file["wrong"], file["odds"], int(file["done"]))


def matcher_fingerprint(run: Run) -> str:
    """sha256 (64 hex digits) of the weights of the run's matcher. Raises InvalidRun where it has none."""
    path = run.folder / MATCHER_FOLDER / "model.safetensors"
    if not path.is_file():
        raise InvalidRun(f"{run.folder} has no matcher whose margins could be learned. Train it: {MATCHER_COMMAND}")
    return hashlib.sha256(path.read_bytes()).hexdigest()


def margins_of(run: Run, dataset: Dataset, pairs: Pairs, part: str, settings: StudentSettings) -> Margins:
    """The matcher's margins for some pairs of the run; computed once, and kept in the run's folder ``students``.

    part: what the pairs are called in the file's name. An interrupted computation continues behind the last whole block, to the
    same margins. Raises InvalidRun without a matcher, InvalidData where the catalogue gives nothing wrong to draw.
    """
    made_by = f"{matcher_fingerprint(run)[:12]}-{teacher_fingerprint(run)[:12]}-{settings.seed}-{settings.wrong_items}"
    path = run.folder / STUDENTS_FOLDER / f"margins-{part}-{len(pairs)}-{made_by}.npz"
    known = Margins.load(path) if path.is_file() else None
    if known is not None and known.done == len(known.rows):
        return known
    loaded = load_matcher(run)
    if loaded is None:
        raise InvalidRun(f"{run.folder} has no finished matcher whose margins could be learned. Train it: {MATCHER_COMMAND}")
    matcher, matching = loaded
    if known is None:
        known = _drawn(run, dataset, pairs, matching, settings)
        known.save(path)
    return _asked(matcher, _Read.of(run, pairs.take(known.rows), matching), known, path)


def _drawn(run: Run, dataset: Dataset, pairs: Pairs, matching: Matching, settings: StudentSettings) -> Margins:
    """The wrong items of each text, drawn by the seed from what the run recommends; nothing is asked of the matcher yet."""
    rows = np.flatnonzero((pairs.rows != OWN_TEXT) & (pairs.items != UNSEEN))
    reading = MatcherSettings(item_tokens=matching.item_tokens, top=matching.top, precision=Precision.FP32.value)
    lessons = lessons_of(run, InterestVectors.of(run), pairs.take(rows), dataset, reading)
    if len(lessons.item_ids) < 2:
        raise InvalidData("the catalogue has a single item, and margins are against wrong ones; distil without margins")
    random = np.random.default_rng([settings.seed, 10])
    places = np.arange(len(rows))
    wrong = [lessons.wrong(random, places) for _ in range(settings.wrong_items)]
    odds = np.zeros((len(rows), 1 + settings.wrong_items), np.float32)
    return Margins(rows, lessons.items, np.stack(wrong, axis=1), odds)


@dataclass(frozen=True)
class _Read:
    """What the matcher reads: the texts, and the token ids of every item, as it was trained to read them."""

    tokens: list[Tokens]
    item_ids: list[list[int]]

    @classmethod
    def of(cls, run: Run, pairs: Pairs, matching: Matching) -> _Read:
        tokenizer = TextTokenizer(run.tokenizer_file, run.settings["max_tokens"])
        items = tokenised_items(Catalogue.load(run.catalogue_file), tokenizer, matching.item_tokens)
        return cls(tokenizer.tokenise(pairs.texts), items)


def _asked(matcher: Matcher, read: _Read, margins: Margins, path: Path) -> Margins:
    """The margins with every text's log-odds, saved block by block."""
    if margins.done:
        say(f"continuing behind {margins.done:,} of {len(margins.rows):,} texts that the matcher has read")
    odds = margins.odds.copy()
    for start in range(margins.done, len(margins.rows), BLOCK):
        block = np.arange(start, min(start + BLOCK, len(margins.rows)))
        items = np.concatenate([margins.chosen[block, None], margins.wrong[block]], axis=1)  # (block, 1 + wrong)
        texts = [read.tokens[row] for row in block.tolist() for _ in range(items.shape[1])]
        pairs = [read.item_ids[item] for item in items.ravel().tolist()]
        label = f"margins of texts {start:,} to {block[-1] + 1:,} of {len(margins.rows):,}"
        found = log_odds(answers(matcher, texts, pairs, label, precision=Precision.FP32.value))
        odds[block] = found.reshape(items.shape)
        margins = Margins(margins.rows, margins.chosen, margins.wrong, odds, int(block[-1]) + 1)
        margins.save(path)
    return margins
