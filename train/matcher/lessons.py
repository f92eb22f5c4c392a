"""What a matcher learns from: texts with the right item and with wrong ones, and texts alone with their writers' verdicts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bertrec.catalogue import Catalogue
from bertrec.matching import PairInputs, pair_batches, tokenised_items
from bertrec.tensors import ATTENTION_MASK, INPUT_IDS, TOKEN_TYPE_IDS
from bertrec.text import Tokens
from train.data import Dataset
from train.examples import OWN_TEXT, UNSEEN, Pairs
from train.matcher.network import Matcher
from train.matcher.settings import MatcherSettings
from train.metrics import top_items
from train.precision import autocast
from train.progress import progress
from train.rankers import InterestVectors, fused_ranker
from train.run import Run

UNKNOWN = -1
"""Verdict of a text whose writer gave none."""
BLOCK = 1_024
"""Texts whose candidates are ranked at once."""


@dataclass(frozen=True)
class Lessons:
    """Texts of one part, and what was right.

    items: (texts,) the right item, UNSEEN where the catalogue lacks it. candidates: (texts, top) what the run recommends, best
    first, UNSEEN behind the last. scores: (texts, top) float32 what the run gives them. verdicts: (texts,) 1 where the writer
    recommends, 0 where not, UNKNOWN. item_ids: token ids of every item.
    """

    tokens: list[Tokens]
    items: NDArray[np.int64]
    candidates: NDArray[np.int64]
    scores: NDArray[np.float32]
    verdicts: NDArray[np.int64]
    item_ids: list[list[int]]

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def lengths(self) -> NDArray[np.int64]:
        """(texts,) tokens of each text."""
        return np.asarray([len(text.ids) for text in self.tokens], np.int64)

    @property
    def judged(self) -> NDArray[np.int64]:
        """The texts whose writers gave a verdict."""
        return np.flatnonzero(self.verdicts != UNKNOWN)

    def wrong(self, random: np.random.Generator, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """A wrong item for each text, drawn from its candidates; from the whole catalogue where it has no other."""
        drawn = np.empty(len(rows), np.int64)
        for place, row in enumerate(rows.tolist()):
            others = self.candidates[row][(self.candidates[row] != self.items[row]) & (self.candidates[row] != UNSEEN)]
            drawn[place] = random.choice(others) if len(others) else (self.items[row] + 1) % len(self.item_ids)
        return drawn

    def take(self, rows: NDArray[np.int64]) -> Lessons:
        """Some of the texts."""
        tokens = [self.tokens[row] for row in rows.tolist()]
        return Lessons(tokens, self.items[rows], self.candidates[rows], self.scores[rows], self.verdicts[rows], self.item_ids)


def lessons_of(run: Run, interest: InterestVectors, pairs: Pairs, dataset: Dataset, settings: MatcherSettings) -> Lessons:
    """The lessons of some pairs; items' own texts are left out, since the matcher reads them with the item."""
    pairs = pairs.take(np.flatnonzero(pairs.rows != OWN_TEXT))
    item_ids = tokenised_items(Catalogue.load(run.catalogue_file), interest.tokenizer, settings.item_tokens)
    candidates, scores = _candidates(run, interest, pairs, settings)
    labels = [dataset.interactions[row].label for row in pairs.rows.tolist()]
    verdicts = np.asarray([UNKNOWN if label is None else int(label > 0) for label in labels], np.int64)
    return Lessons(interest.tokenizer.tokenise(pairs.texts), pairs.items, candidates, scores, verdicts, item_ids)


def _candidates(
    run: Run, interest: InterestVectors, pairs: Pairs, settings: MatcherSettings
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """(texts, top) the best items of each text, those of its history left out, and their scores."""
    ranker = fused_ranker(run, interest)
    top = min(settings.top, run.record["items"])
    best, scores = np.zeros((len(pairs), top), np.int64), np.zeros((len(pairs), top), np.float32)
    with autocast(settings.precision):
        interest(pairs.texts)  # at once, so that texts of one length are read together
    for start in range(0, len(pairs), BLOCK):
        rows = np.arange(start, min(start + BLOCK, len(pairs)))
        block = np.array(ranker.scores(pairs.take(rows)), np.float32)  # (block, items)
        for place, row in enumerate(rows.tolist()):
            block[place, list(pairs.histories[row])] = -np.inf
        best[rows] = top_items(block, top)
        scores[rows] = np.take_along_axis(block, np.argsort(-block, axis=1, kind="stable")[:, :top], axis=1)
    return best, scores


def tensors(inputs: PairInputs) -> tuple[Tensor, Tensor, Tensor]:
    """Ids, mask and types, as the network takes them."""
    ids, mask, types = (torch.from_numpy(inputs[spec.name]) for spec in (INPUT_IDS, ATTENTION_MASK, TOKEN_TYPE_IDS))
    return ids, mask, types


def answers(matcher: Matcher, texts: list[Tokens], items: list[list[int]], label: str, *, precision: str) -> NDArray[np.float32]:
    """(pairs,) float32: the matcher's probability for each text with its item, which is empty for a text alone."""
    found = np.zeros(len(texts), np.float32)
    matcher.eval()
    with progress(label, len(texts)) as advance, torch.inference_mode(), autocast(precision):
        for rows, inputs in pair_batches(texts, items, padded=False):
            found[rows] = matcher(*tensors(inputs))[:, 0].numpy()
            advance(len(rows))
    return found
