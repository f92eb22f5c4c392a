"""Self-training: a first recommender labels the texts it is sure of, and a second one learns from these as well."""

from __future__ import annotations

import numpy as np

from bertrec.tensors import PRIOR, TEXT_SIGNAL
from bertrec.text import TextTokenizer
from train.adaptation.labels import pseudo_labels
from train.encoder import Encoder
from train.examples import OWN_TEXT, Examples, Pairs
from train.progress import say
from train.run import Run
from train.states import encode_texts


def guessed_pairs(teacher: Run, examples: Examples, texts: list[str], confidence: float) -> Pairs:
    """The texts of which the run ``teacher`` is sure, with the items that it gives them.

    examples: those that the teacher was trained on, since the items are numbered as in its catalogue. texts: cleaned.
    """
    tokenizer = TextTokenizer(teacher.tokenizer_file, teacher.settings["max_tokens"])
    interest = encode_texts(Encoder.load(teacher.encoder_folder), tokenizer, texts, "labelling texts")
    weight = float(teacher.settings["prior_weight"])
    items, prior = teacher.array(f"items/{TEXT_SIGNAL}"), teacher.array(f"items/{PRIOR}")[:, 0]
    found = pseudo_labels(interest, items, np.asarray(weight * prior, np.float32), confidence=confidence)
    assert len(items) == examples.items
    say(f"self-training: {len(found.rows):,} of {len(texts):,} texts without a label got one at {confidence:.0%} confidence")
    return Pairs([texts[row] for row in found.rows.tolist()], found.items)


def with_guessed(train: Pairs, guessed: Pairs) -> Pairs:
    """The guessed pairs, and behind them the training pairs, whose end is expected to be the items' own texts."""
    if not len(guessed):
        return train
    return Pairs(
        guessed.texts + train.texts,
        np.concatenate([guessed.items, train.items]),
        guessed.histories + train.histories,
        np.concatenate([np.full(len(guessed), OWN_TEXT, np.int64), train.rows]),
    )
