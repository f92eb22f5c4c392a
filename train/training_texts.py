"""What is done to training texts before and while they are learned from: corrected, weighed, augmented. Held-out texts stay."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bertrec.spelling import SpellingCorrector
from bertrec.text import TextTokenizer
from train.augmentation import Augmentation, Augmenter, Synonyms, fit_synonyms, token_vectors
from train.encoder import Encoder
from train.examples import OWN_TEXT, Examples, Pairs
from train.optimise import TrainingSet
from train.progress import say
from train.sentiment import sentiment_weights
from train.settings import FitSettings
from train.states import FrozenStates


def corrected(examples: Examples, spelling: SpellingCorrector) -> Examples:
    """The training texts with their spelling corrected, as a server corrects what it is asked."""
    texts = [spelling.correct(text)[0] for text in examples.train.texts]
    changed = sum(one != other for one, other in zip(texts, examples.train.texts, strict=True))
    say(f"corrected the spelling of {changed:,} of {len(texts):,} training texts")
    return dataclasses.replace(examples, train=dataclasses.replace(examples.train, texts=texts))


def training_set(
    states: FrozenStates,
    examples: Examples,
    encoder: Encoder,
    tokenizer: TextTokenizer,
    vocabulary: Mapping[str, int],
    settings: FitSettings,
) -> TrainingSet:
    """The texts that were read, how much each counts, and what changes them on the way, as the settings ask for.

    states: of the training texts first. vocabulary: token → row of the encoder's input embeddings.
    Raises InvalidInput for a folder that holds no WordNet, MissingDependency without vaderSentiment where it is wanted.
    """
    pairs = examples.train
    weights = weights_of(pairs) if settings.weigh_by_sentiment else None
    augmenter = augmenter_of(pairs.texts, encoder, tokenizer, vocabulary, settings)
    return TrainingSet(states, pairs.items, np.flatnonzero(states.done[: len(pairs)]), weights, augmenter)


def weights_of(pairs: Pairs) -> NDArray[np.float32]:
    """(pairs,) how much each text counts by its sentiment; an item's own text is nobody's opinion, and counts whole."""
    return np.where(pairs.rows == OWN_TEXT, np.float32(1.0), sentiment_weights(pairs.texts))


def augmenter_of(
    texts: Sequence[str], encoder: Encoder, tokenizer: TextTokenizer, vocabulary: Mapping[str, int], settings: FitSettings
) -> Augmenter | None:
    """What changes the training texts, with the synonyms that it may use; None where they stay.

    vocabulary: token → row of the encoder's input embeddings. Raises InvalidInput for a folder that holds no WordNet.
    """
    wanted = settings.augmentation
    if wanted is None:
        return None
    synonyms: Synonyms = {}
    if Augmentation.SYNONYMS in wanted.methods:
        synonyms = fit_synonyms(texts, vocabulary, token_vectors(encoder), Path(wanted.wordnet) if wanted.wordnet else None)
        say(f"{len(synonyms):,} of the words that the training texts use have synonyms")
    return Augmenter(wanted, texts, tokenizer, synonyms, settings.seed)
