"""What the shape of a batch changes in an engine's vectors, and whether odd texts break it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from bertrec.engine import OnnxEngine
from bertrec.tensors import ATTENTION_MASK, INPUT_IDS, INTEREST_VECTOR
from bertrec.text import BUCKETS, TextTokenizer, Tokens

T = TypeVar("T")
BATCH = 32
"""Texts, of all lengths, that are read together and singly."""
PADDED_TEXTS = 8
"""Texts that are read in every length bucket that holds them."""
TOLERANCE = 1e-5
"""Vectors of one text may differ by so much in any component and count as the same: float32 rounding, no more."""

EXTREMES = {
    "one letter": "a",
    "accents alone, which many tokenizers strip": "\u0301",
    "letters that no vocabulary holds": "\U00010330 " * 20,
    "one word of the greatest length": "x" * 8_192,
    "one word again and again, cut at the greatest length": "coat " * 1_600,
    "punctuation alone": "!?.,;:" * 50,
}
"""Texts that are answered, however odd: from no token but the special ones to as many as the encoder reads."""


@dataclass(frozen=True)
class Shapes:
    """The largest change of a vector's component, and the least cosine, as one text is read in batches of other shapes.

    batch_difference: singly and among 32, padded alike. padding_difference: singly, in its own length bucket and in longer ones.
    cosine_min: over both.
    """

    batch_difference: float
    padding_difference: float
    cosine_min: float

    @property
    def batch_invariant(self) -> bool:
        """Whether a text's vector is the same whatever texts share its batch.

        A text is always padded to its own bucket, so what padding changes is not counted here.
        """
        return self.batch_difference <= TOLERANCE


def probe_shapes(encoder: OnnxEngine, tokenizer: TextTokenizer, tokens: Sequence[Tokens]) -> Shapes:
    """Read some of the texts, of all lengths, in batches of several shapes."""
    return probe(partial(_vectors, encoder), tokens, length=lambda text: len(text.ids), bucket=tokenizer.bucket_length)


def probe(
    read: Callable[[Sequence[T], int], NDArray[np.float32]],
    texts: Sequence[T],
    *,
    length: Callable[[T], int],
    bucket: Callable[[int], int],
) -> Shapes:
    """The same of whatever is read.

    read: texts, all padded to so many tokens → (texts, width) float32. bucket: tokens → the length that they are padded to.
    """
    by_length = sorted(texts, key=length)
    batch = _spread(by_length, BATCH)
    greatest = bucket(length(batch[-1]))
    singly = [read([text], greatest) for text in batch]
    own, longer = [], []
    buckets = sorted({bucket(size) for size in BUCKETS})
    for text in _spread(by_length, PADDED_TEXTS):
        shortest = bucket(length(text))
        vector = read([text], shortest)
        for padded in (size for size in buckets if shortest < size):
            own.append(vector)
            longer.append(read([text], padded))
    batch_difference, batch_cosine = _compared(singly, [read(batch, greatest)])
    padding_difference, padding_cosine = _compared(own, longer)
    return Shapes(batch_difference, padding_difference, min(batch_cosine, padding_cosine))


def reads_extremes(encoder: OnnxEngine, tokenizer: TextTokenizer) -> bool:
    """Whether every one of ``EXTREMES`` gives a vector of finite numbers, alone and together."""
    tokens = tokenizer.tokenise(list(EXTREMES.values()))
    alone = [_vectors(encoder, [text], tokenizer.bucket_length(len(text.ids))) for text in tokens]
    together = _vectors(encoder, tokens, tokenizer.bucket_length(max(len(text.ids) for text in tokens)))
    return bool(np.isfinite(np.vstack([*alone, together])).all())


def cosines(one: NDArray[np.float32], other: NDArray[np.float32]) -> NDArray[np.float64]:
    """(rows,) cosine between the rows of two (rows, hidden); 0 where a row is zero or not finite."""
    a, b = one.astype(np.float64), other.astype(np.float64)
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    usable = np.isfinite(lengths) & (lengths > 0)
    return np.divide((a * b).sum(axis=1), lengths, out=np.zeros(len(a)), where=usable)


def largest_difference(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    """The largest absolute difference; the largest float32 where something is not finite, for NaN has no place in a manifest."""
    most = float(np.finfo(np.float32).max)
    difference = np.abs(np.nan_to_num(one.astype(np.float64) - other, nan=most, posinf=most, neginf=most))
    return float(min(difference.max(initial=0.0), most))


def _spread(texts: Sequence[T], most: int) -> list[T]:
    """Up to so many of the texts, evenly over their order."""
    return [texts[row] for row in np.unique(np.linspace(0, len(texts) - 1, min(most, len(texts))).round().astype(int))]


def _vectors(encoder: OnnxEngine, texts: Sequence[Tokens], length: int) -> NDArray[np.float32]:
    """(texts, hidden) float32, all read at once, padded to ``length``."""
    input_ids = np.zeros((len(texts), length), np.int64)
    mask = np.zeros((len(texts), length), np.int64)
    for row, text in enumerate(texts):
        input_ids[row, : len(text.ids)] = text.ids
        mask[row, : len(text.ids)] = 1
    vectors: NDArray[np.float32] = encoder.run({INPUT_IDS.name: input_ids, ATTENTION_MASK.name: mask})[INTEREST_VECTOR.name]
    return vectors


def _compared(one: Sequence[NDArray[np.float32]], other: Sequence[NDArray[np.float32]]) -> tuple[float, float]:
    """The largest difference and the least cosine; none and 1 where there is nothing to compare."""
    if not one:
        return 0.0, 1.0
    a, b = np.vstack(one), np.vstack(other)
    return largest_difference(a, b), float(cosines(a, b).min())
