"""Fit the spelling corrector: count the words of the training texts, and know those of the catalogue and of English."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from importlib.resources import files

from bertrec.errors import MissingDependency
from bertrec.spelling import LONG_DISTANCE, SHORTEST, SpellingCorrector, corrections, reach_of

COMMON_ENOUGH = 3
"""A word that is neither English nor in the catalogue must occur so often to count as known."""
SLIP_RATIO = 100
"""One that is so many times rarer than an English word at one edit is that word, misspelt."""

_ENGLISH = "frequency_dictionary_en_82_765.txt"
_CONTRACTION = re.compile(r"\b([a-z]+)['’]([a-z]+)\b")  # also written didnt, or didn t
_WORD = re.compile(r"(?<![\w'’])[a-z]+(?![\w'’])")


def fit_spelling(texts: Sequence[str], titles: Sequence[str], *, vocabulary: Iterable[str] = ()) -> SpellingCorrector:
    """Learn from the training texts which words are meant.

    titles: names and attribute values, never to be corrected. vocabulary: that of the encoder's tokenizer; what it has as one
    word is known as well, such as the American forms that symspellpy's dictionary lacks (theater, jewelry).
    Raises MissingDependency where symspellpy is not installed.
    """
    counts = Counter(word for text in texts for word in _WORD.findall(text.lower()))
    given = _english() | {word for word in vocabulary if _WORD.fullmatch(word)}
    given |= {word for title in titles for word in _WORD.findall(title.lower())}
    given |= {form for text in texts for parts in _CONTRACTION.findall(text.lower()) for form in (parts[0], "".join(parts))}
    known = {word: count for word, count in counts.items() if word in given}
    common = {word: count for word, count in counts.items() if word not in known and count >= COMMON_ENOUGH}
    jargon = {word: count for word, count in common.items() if not _is_slip(word, count, known)}
    return SpellingCorrector({**dict.fromkeys(sorted(given), 0), **known, **jargon})


def within_reach(corrector: SpellingCorrector) -> SpellingCorrector:
    """The same corrections from fewer words: without those that need not be known.

    They are the words too short to be corrected, and those that are no corrections and near none: unknown they stay as well.
    Seconds; what is near is found by symmetric deletes (Garbe, 2012). Raises MissingDependency where symspellpy is not installed.
    """
    try:
        from symspellpy import SymSpell, Verbosity
    except ModuleNotFoundError:
        raise MissingDependency("symspellpy") from None
    index = SymSpell(max_dictionary_edit_distance=LONG_DISTANCE)
    for word in corrections(corrector.counts):
        index.create_dictionary_entry(word, corrector.counts[word])

    def needed(word: str) -> bool:
        near = index.lookup(word, Verbosity.TOP, max_edit_distance=reach_of(word)) if len(word) >= SHORTEST else []
        return bool(near)

    return SpellingCorrector({word: count for word, count in corrector.counts.items() if count or needed(word)})


def _english() -> set[str]:
    """The words of symspellpy's English dictionary (82,765, from SCOWL and Google's n-grams)."""
    try:
        lines = (files("symspellpy") / _ENGLISH).read_text(encoding="utf-8-sig").splitlines()
    except ModuleNotFoundError:
        raise MissingDependency("symspellpy") from None
    return {word for line in lines if (word := line.split(" ")[0]).isalpha() and word.isascii()}


def _is_slip(word: str, count: int, known: dict[str, int]) -> bool:
    """Whether one edit (Norvig, 2007) leads to a much more frequent known word."""
    return any(known.get(other, 0) >= SLIP_RATIO * count for other in _one_edit_away(word))


def _one_edit_away(word: str) -> set[str]:
    letters = "abcdefghijklmnopqrstuvwxyz"
    splits = [(word[:at], word[at:]) for at in range(len(word) + 1)]
    deletes = {left + right[1:] for left, right in splits if right}
    swaps = {left + right[1] + right[0] + right[2:] for left, right in splits if len(right) > 1}
    replaces = {left + letter + right[1:] for left, right in splits if right for letter in letters}
    inserts = {left + letter + right for left, right in splits for letter in letters}
    return deletes | swaps | replaces | inserts
