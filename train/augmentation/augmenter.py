"""Batches of training texts, half of them augmented anew in every pass.

What stays as written comes from the states of the frozen layers that were computed once; what is augmented is tokenised and read
by the frozen layers anew. A batch is drawn by the seed and the step alone, so that a run that continues does the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bertrec.text import TextTokenizer
from train.augmentation.misspelling import misspelt
from train.augmentation.settings import Augmentation, AugmentationSettings
from train.augmentation.synonyms import Synonyms
from train.augmentation.words import cropped, with_swaps, with_synonyms, without_words
from train.encoder import Encoder
from train.states import FrozenStates, padded

AS_WRITTEN = 0.5
"""Share of the texts of a batch that stay, as EDA keeps the originals beside what it makes of them."""
LOOKS = 8
"""How often in a pass an adaptive strength looks at the validation loss."""
RAISE, LOWER = 1.25, 0.5
LOWEST, HIGHEST = 0.02, 0.5
"""Between which an adaptive strength stays; above half of the words little is left of a text."""
_STREAM = 4
"""Of the seed's random streams, the one of augmentation."""


@dataclass(frozen=True)
class Augmenter:
    """texts: (texts,) cleaned, row by row those of the states that batches are made of. synonyms: empty where none are wanted."""

    settings: AugmentationSettings
    texts: Sequence[str]
    tokenizer: TextTokenizer
    synonyms: Synonyms
    seed: int

    def batch(
        self, rows: NDArray[np.int64], states: FrozenStates, encoder: Encoder, *, step: int, strength: float, rank: int = 0
    ) -> tuple[Tensor, Tensor]:
        """(batch, tokens, hidden) float32 states and (batch, tokens) mask of some texts, about half of them augmented.

        rank: of the process in its team, each of which draws its own.
        """
        random = np.random.default_rng([self.seed, _STREAM, step, *([rank] if rank else [])])
        changed = np.flatnonzero(random.random(len(rows)) >= AS_WRITTEN)
        same = np.setdiff1d(np.arange(len(rows)), changed)
        texts = [self.augmented(self.texts[row], random, strength) for row in rows[changed].tolist()]
        parts = [(same, states.batch(rows[same], encoder))] if len(same) else []
        if texts:
            input_ids, mask = padded([text.ids for text in self.tokenizer.tokenise(texts)])
            input_ids, mask = input_ids.to(encoder.device), mask.to(encoder.device)
            with torch.no_grad():
                parts.append((changed, (encoder.lower(input_ids, mask, states.frozen_layers), mask)))
        longest = max(mask.shape[1] for _, (_, mask) in parts)
        hidden = torch.zeros(len(rows), longest, encoder.hidden, device=encoder.device)
        masks = torch.zeros(len(rows), longest, dtype=torch.int64, device=encoder.device)
        for places, (part, mask) in parts:
            hidden[places, : part.shape[1]] = part.float()
            masks[places, : mask.shape[1]] = mask
        return hidden, masks

    def augmented(self, text: str, random: np.random.Generator, strength: float) -> str:
        """The text, changed in one way that is drawn from those of the settings; never empty."""
        method = self.settings.methods[int(random.integers(len(self.settings.methods)))]
        if method is Augmentation.SYNONYMS:
            return with_synonyms(text, random, strength, self.synonyms)
        if method is Augmentation.TYPOS:
            return misspelt(text, random, strength)
        change = {Augmentation.DROPOUT: without_words, Augmentation.SWAP: with_swaps, Augmentation.CROP: cropped}[method]
        return change(text, random, strength)


def adapted(memory: Mapping[str, float], loss: float, settings: AugmentationSettings) -> dict[str, float]:
    """The strength after a look at the validation loss, and that loss.

    Where the loss fell since the look before, the strength is multiplied by ``RAISE``: the encoder copes, so it is given more to
    cope with. Where it did not, by ``LOWER``: texts are changed beyond what they meant. It stays within ``LOWEST`` and
    ``HIGHEST``. The first look changes nothing. memory: what was returned before, or nothing.
    """
    strength = memory.get(STRENGTH_KEY, settings.strength)
    if LOSS_KEY in memory:
        strength = float(np.clip(strength * (RAISE if loss < memory[LOSS_KEY] else LOWER), LOWEST, HIGHEST))
    return {STRENGTH_KEY: strength, LOSS_KEY: loss}


STRENGTH_KEY, LOSS_KEY = "augmentation strength", "validation loss"
