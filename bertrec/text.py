"""From a person's words to token ids: cleaning, tokenising, length buckets."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from bertrec.errors import InvalidInput
from bertrec.tensors import MAX_BATCH_SIZE

BUCKETS = (16, 32, 64, 128, 256, 512)
"""Token lengths that texts are padded to: few shapes to warm up, and a short wish does not pay for a long one beside it."""

MAX_CHARACTERS = 8_192
"""Longer texts are cut here before any work is done: twice as much as 512 English word pieces need."""

_CONTROL_TO_SPACE = dict.fromkeys((*range(0x20), *range(0x7F, 0xA0)), " ")  # Unicode category Cc


def clean(text: object, position: int = 0) -> str:
    """The text with control characters turned into spaces, cut at ``MAX_CHARACTERS``.

    Raises InvalidInput, naming ``position``, for anything that is not a string, is not valid Unicode or has nothing to read.
    """
    if not isinstance(text, str):
        raise InvalidInput(f"text {position} is of type {type(text).__name__}; accepted is str")
    cut = text[:MAX_CHARACTERS]
    try:
        cut.encode("utf-8")
    except UnicodeEncodeError as error:
        raise InvalidInput(
            f"text {position} is not valid Unicode: lone surrogate at character {error.start}; decode it as UTF-8 first"
        ) from None
    cleaned = cut.translate(_CONTROL_TO_SPACE).strip()
    if not any(unicodedata.category(character)[0] not in "ZC" for character in cleaned):
        raise InvalidInput(f"text {position} is empty; say in a few words what is wanted")
    return cleaned


@dataclass(frozen=True)
class Tokens:
    """The token ids of one text, special tokens included, and whether the text was longer than the encoder reads."""

    ids: list[int]
    truncated: bool


@dataclass(frozen=True)
class Batch:
    """Texts of similar length, padded to one bucket. ``rows`` says which texts of the request they are."""

    rows: NDArray[np.int64]  # (batch,)
    input_ids: NDArray[np.int64]  # (batch, tokens)
    attention_mask: NDArray[np.int64]  # (batch, tokens)


class TextTokenizer:
    """The bundle's tokenizer.json with the number of tokens that the encoder was trained to read."""

    def __init__(self, path: Path, max_tokens: int) -> None:
        self._tokenizer = Tokenizer.from_file(str(path))
        self._tokenizer.no_padding()
        self._tokenizer.encode_special_tokens = True  # somebody who writes "[SEP]" means the letters
        self._tokenizer.enable_truncation(max_tokens)
        self._max_tokens = max_tokens

    def tokenise(self, texts: Sequence[str]) -> list[Tokens]:
        """Token ids of each cleaned text."""
        encodings = self._tokenizer.encode_batch_fast(list(texts))  # without offsets, which nobody reads
        return [
            Tokens(ids=encoding.ids, truncated=bool(encoding.overflowing) or len(text) >= MAX_CHARACTERS)
            for text, encoding in zip(texts, encodings, strict=True)
        ]

    def bucket_length(self, tokens: int) -> int:
        """The padded length for a text of so many tokens."""
        return min(next((size for size in BUCKETS if size >= tokens), tokens), self._max_tokens)


def batches(tokens: Sequence[Tokens], tokenizer: TextTokenizer, max_rows: int = MAX_BATCH_SIZE) -> Iterator[Batch]:
    """The texts joined by length bucket, at most ``max_rows`` at once, shortest bucket first."""
    by_length: dict[int, list[int]] = {}
    for row, text in enumerate(tokens):
        by_length.setdefault(tokenizer.bucket_length(len(text.ids)), []).append(row)
    for length in sorted(by_length):
        rows = by_length[length]
        for start in range(0, len(rows), max_rows):
            yield _pad([tokens[row] for row in rows[start : start + max_rows]], rows[start : start + max_rows], length)


def _pad(tokens: Sequence[Tokens], rows: Sequence[int], length: int) -> Batch:
    input_ids = np.zeros((len(tokens), length), np.int64)
    attention_mask = np.zeros((len(tokens), length), np.int64)
    for row, text in enumerate(tokens):
        input_ids[row, : len(text.ids)] = text.ids
        attention_mask[row, : len(text.ids)] = 1
    return Batch(np.asarray(rows, np.int64), input_ids, attention_mask)
