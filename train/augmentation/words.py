"""Word dropout, word swaps, cropping to a sentence, and replacement by synonyms.

All but the crop are of EDA (Wei and Zou, 2019, https://arxiv.org/abs/1901.11196). Chinese and the like, which has no spaces
between words, is one word here and stays as it is.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np

_SENTENCE_END = re.compile(r"(?<=[.!?;])\s+|(?<=[。！？；])")
_WORD = re.compile(r"(?<![\w'’-])[A-Za-z]{3,}(?![\w'’-])")


def with_synonyms(text: str, random: np.random.Generator, rate: float, synonyms: Mapping[str, Sequence[str]]) -> str:
    """The text with so large a share of the words that have synonyms replaced by one of theirs, in the case of the word."""

    def perhaps(found: re.Match[str]) -> str:
        others = synonyms.get(found[0].lower(), ())
        if not others or random.random() >= rate:
            return found[0]
        other = others[int(random.integers(len(others)))]
        return other.capitalize() if found[0][0].isupper() else other

    return _WORD.sub(perhaps, text)


def without_words(text: str, random: np.random.Generator, rate: float) -> str:
    """The text without so large a share of its words; one word is left at least."""
    words = text.split()
    kept = [word for word, drawn in zip(words, random.random(len(words)), strict=True) if drawn >= rate]
    return " ".join(kept or words[:1])


def with_swaps(text: str, random: np.random.Generator, rate: float) -> str:
    """The text with two words swapped, for so large a share of its words, and once at least; a single word stays."""
    words = text.split()
    if len(words) < 2:
        return text
    for _ in range(max(1, round(rate * len(words) / 2))):
        one, other = random.choice(len(words), 2, replace=False)
        words[one], words[other] = words[other], words[one]
    return " ".join(words)


def cropped(text: str, random: np.random.Generator, rate: float) -> str:
    """The text without sentences at its ends: a run of sentences that is drawn at random.

    rate: the share of sentences that goes, rounded up; one sentence is left at least, and a single sentence stays.
    """
    sentences = sentences_of(text)
    left = max(1, len(sentences) - max(1, round(rate * len(sentences))))
    first = int(random.integers(len(sentences) - left + 1))
    return " ".join(sentences[first : first + left])


def shuffled(text: str, random: np.random.Generator) -> str:
    """The words of every sentence in another order (Pham et al., 2021, https://arxiv.org/abs/2012.15180)."""
    sentences = (sentence.split() for sentence in sentences_of(text))
    return " ".join(words[place] for words in sentences for place in random.permutation(len(words)))


def sentences_of(text: str) -> list[str]:
    """The sentences of a text, which ends as one; a text without an end of a sentence is one."""
    return [part for part in _SENTENCE_END.split(text) if part.strip()] or [text]
