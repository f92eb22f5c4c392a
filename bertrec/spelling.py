"""Spelling correction before a text is read: words that nobody knows become the likeliest known word that is near.

Near is a Damerau–Levenshtein distance of at most 2 (optimal string alignment, by the symspellpy package); likeliest is the most
frequent one in the training texts at the smallest distance. The words that are near are found by going through all: some 10,000
take less than a millisecond, since their lengths and letters rule out nearly all. SymSpell's index of deletes is faster for a
word, and costs more to make than a process that serves ever saves. What the dictionary knows is never changed, nor is
anything but plain English letters: names from the catalogue, Chinese, numbers, addresses and hashtags stay as they were written.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bertrec.errors import InvalidBundle, MissingDependency

FILE = "spelling.txt"

SHORTEST = 4
"""Letters that a word must have to be corrected; nearly every shorter string is near some word."""
SHORT, LONG_DISTANCE = 5, 2
"""A word of up to so many letters may differ by one edit, a longer one by two."""
_LONGEST = 100
"""Letters beyond which words count as equally long."""
_SET_BITS = np.unpackbits(np.arange(2**16, dtype=np.uint16).view(np.uint8)).reshape(-1, 16).sum(axis=1, dtype=np.uint8)
"""(65536,) how many bits a number has."""

_WORD = re.compile(r"(?<![\w@#./:'’-])[A-Za-z]{4,}(?![\w@/]|[.:'’-]\w)")


@dataclass(frozen=True)
class Correction:
    """A word as it was given, and the word that was read in its place."""

    given: str
    meant: str


@dataclass(frozen=True)
class SpellingCorrector:
    """counts: lower-case word → how often the training texts have it; 0 for a word that is known but never a correction."""

    counts: Mapping[str, int]

    def correct(self, text: str) -> tuple[str, tuple[Correction, ...]]:
        """The text with its misspelt words replaced, and what was replaced, in order; case and everything else stay."""
        found: list[Correction] = []

        def replaced(match: re.Match[str]) -> str:
            """One word as it was meant, which is noted."""
            given = match.group()
            meant = self._nearest(given.lower())
            if meant is None:
                return given
            found.append(Correction(given, _in_case_of(given, meant)))
            return found[-1].meant

        return _WORD.sub(replaced, text), tuple(found)

    def _nearest(self, word: str) -> str | None:
        """The likeliest known word that is near an unknown one; None for a known word and one that is near none."""
        candidates: _Candidates = self._candidates
        return None if word in self.counts else candidates.best(word)

    @cached_property
    def _candidates(self) -> _Candidates:
        """The words that can be corrections; of use to texts that have an unknown word, so the first one makes them."""
        return _Candidates.of(self.counts)

    def save(self, folder: Path) -> list[Path]:
        """Write ``spelling.txt``, one word and its count a line; returns its path."""
        folder.mkdir(parents=True, exist_ok=True)
        lines = [f"{word} {count}\n" for word, count in sorted(self.counts.items())]
        (folder / FILE).write_text("".join(lines), encoding="utf-8")
        return [folder / FILE]

    @classmethod
    def load(cls, folder: Path) -> SpellingCorrector:
        """Read what :meth:`save` wrote. Raises InvalidBundle for a broken file, MissingDependency without symspellpy."""
        try:
            rows = [line.split(" ") for line in (folder / FILE).read_text(encoding="utf-8").splitlines()]
            corrector = cls({word: int(count) for word, count in rows})
        except ValueError as error:
            raise InvalidBundle(
                f"{folder / FILE} cannot be read as one word and its count a line ({error}); export again"
            ) from None
        if find_spec("symspellpy") is None:
            raise MissingDependency("symspellpy")
        return corrector


def corrections(counts: Mapping[str, int]) -> list[str]:
    """The words that can be corrections, of word → count: those that the training texts have, but for the shortest."""
    return [word for word, count in counts.items() if count and len(word) >= SHORTEST - 1]


def reach_of(word: str) -> int:
    """The edits by which an unknown word may differ from what was meant."""
    return 1 if len(word) <= SHORT else LONG_DISTANCE


@dataclass(frozen=True)
class _Candidates:
    """Words that can be corrections, the most frequent first, and what tells most of them to be far without comparing letters.

    words: (words,). lengths: (words,) int8 letters of each. letters: (words,) uint32, a bit for each letter that a word has.
    """

    words: list[str]
    lengths: NDArray[np.int8]
    letters: NDArray[np.uint32]

    @classmethod
    def of(cls, counts: Mapping[str, int]) -> _Candidates:
        """Those of word → count, in an order that does not depend on theirs."""
        ordered = sorted(corrections(counts), key=lambda word: (-counts[word], word))
        lengths = np.asarray([min(len(word), _LONGEST) for word in ordered], np.int8)
        return cls(ordered, lengths, np.asarray([_letters(word) for word in ordered], np.uint32))

    def best(self, word: str) -> str | None:
        """The nearest of the words to an unknown one, the most frequent of several; None where none is near."""
        reach = reach_of(word)
        # An edit changes a word's length by at most one letter, and which letters it has by at most two.
        alike = np.abs(self.lengths - min(len(word), _LONGEST)) <= reach
        alike &= _bits(self.letters ^ np.uint32(_letters(word))) <= 2 * reach
        distance = _distance()
        found: str | None = None
        for row in np.flatnonzero(alike).tolist():
            known: str = self.words[row]
            edits = distance(word, known, reach)
            if edits == 1:
                return known
            if edits == 2 and found is None:
                found = known
        return found


def _letters(word: str) -> int:
    """A bit for each letter that the word has; a to z have bits of their own."""
    bits = 0
    for letter in word:
        bits |= 1 << (ord(letter) & 31)
    return bits


def _bits(numbers: NDArray[np.uint32]) -> NDArray[np.uint8]:
    """How many bits each number has."""
    counts: NDArray[np.uint8] = _SET_BITS[numbers & np.uint32(0xFFFF)] + _SET_BITS[numbers >> np.uint32(16)]
    return counts


@lru_cache(maxsize=1)
def _distance() -> Callable[[str, str, int], int]:
    """The edits between two words, a swap of neighbours being one; -1 where they are more than the third argument says."""
    from symspellpy.editdistance import DistanceAlgorithm, EditDistance  # 20 ms, which only who corrects pays

    compare: Callable[[str, str, int], int] = EditDistance(DistanceAlgorithm.DAMERAU_OSA_FAST).compare
    return compare


def _in_case_of(given: str, meant: str) -> str:
    """The word in capitals, with a capital or in small letters, as it was given."""
    if given.isupper():
        return meant.upper()
    return meant.capitalize() if given[0].isupper() else meant
