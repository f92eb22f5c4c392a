"""Augmented batches: deterministic by seed and step, half as written, and as strong as the validation loss allows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from bertrec.errors import InvalidInput
from bertrec.text import TextTokenizer
from tests import tiny
from train.augmentation import Augmentation, AugmentationSettings, Augmenter
from train.augmentation.augmenter import HIGHEST, LOSS_KEY, LOWEST, STRENGTH_KEY, adapted
from train.encoder import Encoder
from train.states import FrozenStates, compute_states, padded

TEXTS = [f"I want {tiny.item_text(item)}. It is warm and long! Please" for item in range(12)]
ROWS = np.asarray([7, 0, 3, 11, 5, 2, 9, 1], np.int64)
ALL = tuple(Augmentation)


@pytest.fixture(scope="module")
def encoder(tiny_backbone: Path) -> Encoder:
    return Encoder.load(tiny_backbone)


@pytest.fixture(scope="module")
def tokenizer(tiny_backbone: Path) -> TextTokenizer:
    return TextTokenizer(tiny_backbone / "tokenizer.json", 64)


@pytest.fixture(scope="module")
def states(encoder: Encoder, tokenizer: TextTokenizer) -> FrozenStates:
    return compute_states(encoder, tokenizer.tokenise(TEXTS), trained_layers=1, seed=0)


def augmenter(tokenizer: TextTokenizer, methods: tuple[Augmentation, ...] = ALL, *, seed: int = 0) -> Augmenter:
    return Augmenter(AugmentationSettings(methods), TEXTS, tokenizer, {"warm": ("cosy",), "want": ("wish",)}, seed)


def test_a_batch_depends_on_seed_and_step_alone(encoder: Encoder, tokenizer: TextTokenizer, states: FrozenStates) -> None:
    encoder.train_upper(1)

    def hidden(*, seed: int = 0, step: int = 5) -> torch.Tensor:
        return augmenter(tokenizer, seed=seed).batch(ROWS, states, encoder, step=step, strength=0.5)[0]

    torch.testing.assert_close(hidden(), hidden(), rtol=0, atol=0)
    assert not torch.equal(hidden()[:, 0], hidden(step=6)[:, 0])
    assert not torch.equal(hidden()[:, 0], hidden(seed=1)[:, 0])
    assert not hidden().requires_grad


def test_half_of_the_texts_stay_and_the_others_are_read_anew(
    encoder: Encoder, tokenizer: TextTokenizer, states: FrozenStates
) -> None:
    """Every row is either what the cache holds, or what the frozen layers make of the augmented text."""
    encoder.train_upper(1)
    dropping = augmenter(tokenizer, (Augmentation.DROPOUT,))
    rows = np.resize(ROWS, 200)
    hidden, mask = dropping.batch(rows, states, encoder, step=0, strength=0.9)
    kept, kept_mask = states.batch(rows, encoder)
    same = [
        bool(mask[row].sum() == kept_mask[row].sum()) and torch.equal(hidden[row, 0], kept[row, 0]) for row in range(len(rows))
    ]
    assert np.mean(same) == pytest.approx(0.5, abs=0.12)
    changed = [row for row, kept in enumerate(same) if not kept]
    assert mask[changed].sum(1).float().mean() < 0.5 * kept_mask.sum(1).float().mean()


def test_what_is_augmented_is_the_encoding_of_the_changed_text(
    encoder: Encoder, tokenizer: TextTokenizer, states: FrozenStates
) -> None:
    encoder.train_upper(1)
    shorter = augmenter(tokenizer, (Augmentation.CROP,))
    hidden, mask = shorter.batch(ROWS, states, encoder, step=1, strength=1.0)
    sentences = [sentence for text in TEXTS for sentence in (text.split(". ")[0] + ".", "It is warm and long!", "Please")]
    ids, lengths = padded([tokens.ids for tokens in tokenizer.tokenise(sentences)])
    with torch.no_grad():
        expected = encoder.lower(ids, lengths, 1)
    found = 0
    for row, places in zip(hidden, mask.sum(1).tolist(), strict=True):
        found += any(
            places == length and torch.allclose(row[:places], one[:places], atol=1e-5)
            for one, length in zip(expected, lengths.sum(1).tolist(), strict=True)
        )
    as_written = int((mask.sum(1) == torch.from_numpy(states.lengths[ROWS])).sum())
    assert found + as_written == len(ROWS)
    assert found > 0


def test_every_method_has_its_turn(tokenizer: TextTokenizer) -> None:
    random = np.random.default_rng(0)
    found = {augmenter(tokenizer, (method,)).augmented(TEXTS[0], random, 1.0) for method in ALL}
    assert TEXTS[0] not in found
    assert len(found) == len(ALL)
    assert augmenter(tokenizer, (Augmentation.SYNONYMS,)).augmented(TEXTS[0], random, 1.0).startswith("I wish amber")


def test_strength_follows_the_validation_loss() -> None:
    settings = AugmentationSettings(ALL, strength=0.1, adaptive=True)
    memory: dict[str, float] = {}
    strengths = []
    for loss in (5.0, 4.0, 3.0, 3.5, 3.5, 3.0):
        memory = adapted(memory, loss, settings)
        strengths.append(memory[STRENGTH_KEY])
        assert memory[LOSS_KEY] == loss
    np.testing.assert_allclose(strengths, [0.1, 0.125, 0.15625, 0.078125, 0.0390625, 0.048828125])
    for losses, bound in ((np.arange(50, 0, -1), HIGHEST), (np.arange(50), LOWEST)):
        for loss in losses.tolist():
            memory = adapted(memory, loss, settings)
        assert memory[STRENGTH_KEY] == bound


def test_settings_that_cannot_be_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="'shout'; accepted are some of synonyms, dropout, swap, typos, crop"):
        AugmentationSettings(("typos", "shout"))  # type: ignore[arg-type]  # as a command line gives them
    with pytest.raises(InvalidInput, match="'none'"):
        AugmentationSettings(())
    with pytest.raises(InvalidInput, match=r"strength is 1\.5"):
        AugmentationSettings(ALL, strength=1.5)
    with pytest.raises(InvalidInput, match="add synonyms"):
        AugmentationSettings((Augmentation.CROP,), wordnet=str(tmp_path))
    with pytest.raises(InvalidInput, match="holds no WordNet"):
        AugmentationSettings(ALL, wordnet=str(tmp_path))
    assert AugmentationSettings(("crop", "typos")).methods == (Augmentation.TYPOS, Augmentation.CROP)  # type: ignore[arg-type]
