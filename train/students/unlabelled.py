"""Texts without an item that a student learns from besides: the teacher knows what to make of them, and nobody else need."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from bertrec.errors import InvalidData
from train.adaptation.labels import texts_of
from train.data import Dataset
from train.evaluate import run_labels
from train.examples import Examples, cleaned
from train.progress import say
from train.run import Run


def unlabelled_texts(run: Run, dataset: Dataset, examples: Examples, given: Sequence[str]) -> list[str]:
    """The training texts whose item was withheld from the run (``fit --labels``), and those ``given``, each once.

    A text that training, validation or test has is left out: in training it stands with its item, the others are held out.
    Raises InvalidData where nothing is left of what was given.
    """
    known = {text.casefold() for pairs in (examples.train, examples.validation, examples.test) for text in pairs.texts}

    def new(texts: Sequence[str]) -> list[str]:
        found = {text.casefold(): text for text in reversed(texts) if text.casefold() not in known}
        known.update(found)
        return list(reversed(found.values()))

    withheld = new(texts_of(dataset, run_labels(run, dataset).unlabelled))
    added = new(given)
    if given and not added:
        raise InvalidData(f"--texts has no text that {dataset.name!r} does not have itself; give others, or distil without it")
    if withheld or added:
        left_out = f"; {len(given) - len(added):,} are repeated, or the data's own" if given else ""
        say(f"{len(withheld) + len(added):,} texts without an item to learn from besides{left_out}")
    return withheld + added


def read_texts(file: Path) -> list[str]:
    """One text a line, cleaned; blank lines do not count. Raises InvalidData for a file that is not of that kind."""
    try:
        content = file.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise InvalidData(f"{file} cannot be read ({error.strerror}); --texts takes a UTF-8 file with one text a line") from None
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise InvalidData(f"{file}, line {line}, is not UTF-8; --texts takes a UTF-8 file with one text a line") from None
    texts = [text for line in content.split("\n") if (text := cleaned(line))]
    if not texts:
        raise InvalidData(f"{file} has no texts; --texts takes a UTF-8 file with one text a line")
    return texts


def fingerprint_of(texts: Sequence[str]) -> str:
    """sha256 over texts without line breaks (64 hex digits)."""
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()
