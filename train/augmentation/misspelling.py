"""Typing errors: letters swapped, dropped, doubled, or hit beside the key (Pruthi et al., 2019)."""

from __future__ import annotations

import re

import numpy as np

# Letters on a US keyboard, row under row; a key touches its neighbours in the row and the two keys above and below it.
_KEYBOARD = ("qwertyuiop", "asdfghjkl", "zxcvbnm")
_WORD_OF_FOUR = re.compile(r"(?<![^\W_])[A-Za-z]{4,}(?![^\W_])")


def misspelt(text: str, random: np.random.Generator, rate: float) -> str:
    """The text with an error in so large a share of its words of four letters or more."""

    def perhaps(found: re.Match[str]) -> str:
        return _with_error(found[0], random) if random.random() < rate else found[0]

    return _WORD_OF_FOUR.sub(perhaps, text)


def _with_error(word: str, random: np.random.Generator) -> str:
    """The word of four letters or more with one error between the first and the last letter."""
    error = ("swap", "drop", "double", "neighbour")[int(random.integers(4))]
    at = int(random.integers(1, len(word) - (2 if error == "swap" else 1)))
    before, letter, after = word[:at], word[at], word[at + 1 :]
    if error == "swap" and after[0] != letter:
        return before + after[0] + letter + after[1:]
    if error == "double":
        return before + letter + letter + after
    if error == "neighbour":
        near = _neighbours(letter)
        return before + near[int(random.integers(len(near)))] + after
    return before + after  # two equal letters cannot be swapped: one is dropped


def _neighbours(letter: str) -> str:
    """The keys that touch a letter's, in its case."""
    row = next(row for row, keys in enumerate(_KEYBOARD) if letter.lower() in keys)
    at = _KEYBOARD[row].index(letter.lower())
    places = [(row, at - 1), (row, at + 1), (row - 1, at), (row - 1, at + 1), (row + 1, at - 1), (row + 1, at)]
    keys = "".join(_KEYBOARD[r][c] for r, c in places if 0 <= r < len(_KEYBOARD) and 0 <= c < len(_KEYBOARD[r]))
    return keys.upper() if letter.isupper() else keys
