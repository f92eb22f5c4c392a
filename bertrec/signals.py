"""The lexical signal: latent semantic analysis of TF-IDF, the vector space model.

A text becomes counts of its words and pairs of words; counts become sublinear TF-IDF weights; the weights are projected and
scaled to length 1. The projection begins as the leading singular vectors of the training texts (Deerwester et al., 1990) and is
then learned, as train/lexical.py says; here it runs on numpy alone.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bertrec.compact import Int8Matrix, load_matrix, save_matrix

_CJK = "\u3400-\u4dbf\u4e00-\u9fff"
_WORD = re.compile(rf"[{_CJK}]|[^\W{_CJK}]{{2,}}")

TERMS_FILE = "lexical_terms.json"
IDF_FILE = "lexical_idf.npy"
PROJECTION_FILE = "lexical_projection.npy"

_FUNCTION_WORDS = frozenset(
    "a about after all am an and are as at be been but by can could did do does for from had has have i if in is it its me my "
    "no not of on or our so some that the their them then there they this to too very was we were what when which who will "
    "with would you your".split()
)
"""English words that carry a score by their number and tell a reader nothing; a term made only of them is no reason."""


def analyse(text: str) -> list[str]:
    """The words of a text, lower-cased, and its pairs of neighbouring words. Chinese characters are words of their own."""
    words = _WORD.findall(text.lower())
    return words + [f"{first} {second}" for first, second in zip(words, words[1:], strict=False)]


@dataclass(frozen=True)
class LexicalSignal:
    """A fitted TF-IDF vocabulary and its projection onto the latent dimensions.

    projection: half precision, or int8 with ``scales``. The rows are summed, so what rounding does to them averages out.
    """

    terms: tuple[str, ...]
    idf: NDArray[np.float32]  # (terms,)
    projection: NDArray[np.float16] | NDArray[np.int8]  # (terms, lexical)
    scales: NDArray[np.float32] | None = None  # (terms,) what the rows of an int8 projection are multiplied by

    @cached_property
    def _row_of(self) -> dict[str, int]:
        return {term: row for row, term in enumerate(self.terms)}

    @property
    def dimensions(self) -> int:
        """Length of a lexical vector."""
        return int(self.projection.shape[1])

    def knows(self, term: str) -> bool:
        """Whether a word or pair of words is in the vocabulary."""
        return term in self._row_of

    def vectors(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """(batch, lexical) float32, each row of length 1, or all zeros where no word of the text is known."""
        vectors = np.zeros((len(texts), self.dimensions), np.float32)
        for row, text in enumerate(texts):
            known, weights = self.weights(text)
            vectors[row] = weights @ self.directions(known)  # (terms of the text) @ (terms of the text, lexical)
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        return np.divide(vectors, lengths, out=np.zeros_like(vectors), where=lengths > 0)

    def directions(self, known: NDArray[np.int64]) -> NDArray[np.float32]:
        """(known, lexical) float32: the rows of the projection; only those that a text asks for are ever unpacked."""
        rows = self.projection[known].astype(np.float32)
        return rows if self.scales is None else rows * self.scales[known, None]

    def carriers(self, text: str, item_vectors: NDArray[np.float32], most: int = 3) -> list[tuple[str, ...]]:
        """For each item (items, lexical), the words of the text that raised its lexical score most, strongest first.

        Exact: the score is linear in the terms' weights, so each term's share is its weight times ⟨its projection, item⟩.
        """
        known, weights = self.weights(text)
        if not len(known):
            return [()] * len(item_vectors)
        shares = weights[:, None] * (self.directions(known) @ item_vectors.T)  # (terms of the text, items)
        found = [self.terms[row] for row in known]
        return [_strongest(found, shares[:, item], most) for item in range(len(item_vectors))]

    def keywords(self, texts: Sequence[str], most: int) -> tuple[str, ...]:
        """The single words that tell these texts from others: share of the texts that have them, times idf squared."""
        having = Counter(row for text in texts for term in set(analyse(text)) if (row := self._row_of.get(term)) is not None)
        least = 2 if len(texts) > 2 else 1  # one reviewer's word is not yet the item's
        scored = [
            (count / len(texts) * float(self.idf[row]) ** 2, self.terms[row])
            for row, count in having.items()
            if count >= least and " " not in self.terms[row]
        ]
        return tuple(term for _, term in sorted(scored, key=lambda pair: (-pair[0], pair[1]))[:most])

    def weights(self, text: str) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """(terms of the text,) each: rows of its known terms, in vocabulary order, and their TF-IDF weights."""
        counts = Counter(row for term in analyse(text) if (row := self._row_of.get(term)) is not None)
        known = np.asarray(sorted(counts), np.int64)
        frequency = np.asarray([counts[row] for row in known.tolist()], np.float32)
        return known, (1.0 + np.log(frequency, where=frequency > 0, out=np.zeros_like(frequency))) * self.idf[known]

    def save(self, folder: Path) -> list[Path]:
        """Write the signal as three files, or four with scales, that open without pickle; returns their paths."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / TERMS_FILE).write_text(json.dumps(self.terms, ensure_ascii=False), encoding="utf-8")
        np.save(folder / IDF_FILE, self.idf, allow_pickle=False)
        projection = self.projection if self.scales is None else Int8Matrix(self.projection.astype(np.int8), self.scales)
        return [folder / TERMS_FILE, folder / IDF_FILE, *save_matrix(folder / PROJECTION_FILE, projection)]

    @classmethod
    def load(cls, folder: Path) -> LexicalSignal:
        """Read what :meth:`save` wrote. Raises InvalidBundle for an int8 projection without its scales."""
        terms = tuple(json.loads((folder / TERMS_FILE).read_text(encoding="utf-8")))
        idf = np.load(folder / IDF_FILE, allow_pickle=False)
        projection = load_matrix(folder / PROJECTION_FILE)
        if isinstance(projection, Int8Matrix):
            return cls(terms, idf, projection.values, projection.scales)
        return cls(terms, idf, projection)


def _strongest(terms: Sequence[str], shares: NDArray[np.float32], most: int) -> tuple[str, ...]:
    """The terms with the largest positive shares that say something; one that shares a word with a chosen one is left out."""
    chosen: list[str] = []
    said: set[str] = set()
    for row in np.argsort(-shares, kind="stable").tolist():
        if shares[row] <= 0 or len(chosen) == most:
            break
        words = set(terms[row].split())
        if not words & said and not words <= _FUNCTION_WORDS:
            chosen.append(terms[row])
            said |= words
    return tuple(chosen)
