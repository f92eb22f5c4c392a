"""Spelling correction before a text is read: words that nobody knows become the likeliest known word that is near.

Near is a Damerau–Levenshtein distance of at most 2, found by symmetric deletes (Garbe, 2012; the symspellpy package); likeliest
is the most frequent one in the training texts at the smallest distance. What the dictionary knows is never changed, nor is
anything but plain English letters: names from the catalogue, Chinese, numbers, addresses and hashtags stay as they were written.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from bertrec.errors import InvalidBundle, MissingDependency

FILE = "spelling.txt"

SHORTEST = 4
"""Letters that a word must have to be corrected; nearly every shorter string is near some word."""
SHORT, LONG_DISTANCE = 5, 2
"""A word of up to so many letters may differ by one edit, a longer one by two."""
PREFIX = 7
"""Letters that are indexed: longer prefixes take more memory and find no more."""

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
            given = match.group()
            meant = self._nearest(given.lower())
            if meant is None:
                return given
            found.append(Correction(given, _in_case_of(given, meant)))
            return found[-1].meant

        return _WORD.sub(replaced, text), tuple(found)

    def _nearest(self, word: str) -> str | None:
        """The likeliest known word that is near an unknown one; None for a known word and one that is near none."""
        if word in self.counts:
            return None
        symspell, closest = self._index
        suggestions = symspell.lookup(word, closest, max_edit_distance=1 if len(word) <= SHORT else LONG_DISTANCE)
        return str(suggestions[0].term) if suggestions else None

    @cached_property
    def _index(self) -> tuple[Any, Any]:
        """Symspellpy's index of the words that can be corrections, and the verbosity that gives the best of them.

        Making it is most of what opening a bundle would cost, so the first unknown word makes it.
        """
        from symspellpy import SymSpell, Verbosity  # 0.1 s, which only who corrects pays

        index = SymSpell(max_dictionary_edit_distance=LONG_DISTANCE, prefix_length=PREFIX)
        for word, count in self.counts.items():
            if count and len(word) >= SHORTEST - 1:
                index.create_dictionary_entry(word, count)
        return index, Verbosity.TOP

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


def _in_case_of(given: str, meant: str) -> str:
    """The word in capitals, with a capital or in small letters, as it was given."""
    if given.isupper():
        return meant.upper()
    return meant.capitalize() if given[0].isupper() else meant
