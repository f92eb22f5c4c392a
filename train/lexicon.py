"""Phrases for entities: the forms of a name, and the checked-in lexicon of other words for it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bertrec.graph import words_of

PATH = Path(__file__).parent / "lexicon.json"

_CAMEL_CASE = re.compile(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_LONE_LETTER = re.compile(r"(?<!['’\w])(?!a\s)\w(?!\w)")
_WITHOUT_PHRASE = frozenset("true false yes no none unknown other misc various all any new na".split())
"""Values that a text holds without meaning them."""
MAX_WORDS = 5
"""A longer value is a sentence and names nothing."""


@dataclass(frozen=True)
class Lexicon:
    """Other words for values of the catalogue, by the value's name; entities of its own by attribute and name, with theirs."""

    values: Mapping[str, Sequence[str]]
    words: Mapping[str, Mapping[str, Sequence[str]]]


def read_lexicon(path: Path = PATH) -> Lexicon:
    """The checked-in lexicon."""
    content = json.loads(path.read_text(encoding="utf-8"))
    return Lexicon(content["values"], content["words"])


def phrase_of(name: str) -> str:
    """The words of a name as a phrase of the gazetteer; empty where it names nothing.

    A name that would lose a letter (V-neck → neck; not an article's), one without letters and a sentence have no phrase.
    """
    words = words_of(name)
    lossy = any(letter not in words for letter in _LONE_LETTER.findall(name.lower()))
    sentence = len(words) > MAX_WORDS and name.isascii()
    if lossy or sentence or not any(letter.isalpha() for word in words for letter in word):
        return ""
    phrase = " ".join(words)
    return "" if phrase in _WITHOUT_PHRASE else phrase


def forms(name: str) -> list[str]:
    """Phrases for a name: the name itself first, its parts (Shirts & Tops, TextEditor), each in singular and plural."""
    parts = [name, *re.split(r"[&/,]", name), _CAMEL_CASE.sub(" ", name)]
    phrases = [phrase for part in parts if (phrase := phrase_of(part))]
    return list(dict.fromkeys([*phrases, *(other for phrase in phrases for other in _other_number(phrase))]))


def _other_number(phrase: str) -> list[str]:
    """The regular English plural of a phrase's last word, or its singular."""
    head, _, word = phrase.rpartition(" ")
    if len(word) < 3 or not (word.isascii() and word.isalpha()):
        return []
    if word.endswith("ies") and len(word) > 4:
        other = word[:-3] + "y"
    elif word.endswith(("sses", "shes", "ches", "xes")):
        other = word[:-2]
    elif word.endswith("s") and not word.endswith("ss"):
        other = word[:-1]
    elif word.endswith("y") and word[-2] not in "aeiou":
        other = word[:-1] + "ies"
    else:
        other = word + ("es" if word.endswith(("s", "x", "z", "ch", "sh")) else "s")
    return [f"{head} {other}".strip()]
