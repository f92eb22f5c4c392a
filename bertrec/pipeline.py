"""From texts to recommendations. The one road, taken by Triton's ``recommend`` model and by the edge alike.

What differs between them is only who runs the two engines, so they hand in two functions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bertrec.answers import Options, RankedItem, Reason, Recommendation
from bertrec.bundle import Bundle
from bertrec.errors import InvalidInput
from bertrec.tensors import (
    ALLOWED,
    ATTENTION_MASK,
    INPUT_IDS,
    INTEREST_VECTOR,
    ITEM_INDEX,
    LEXICAL_VECTOR,
    MAX_BATCH_SIZE,
    SCORE,
    SIGNALS,
    TERMS,
)
from bertrec.text import Tokens, batches, clean

Tensors = Mapping[str, NDArray[Any]]
RunModel = Callable[[Tensors], Tensors]
"""Runs one model: inputs by name → outputs by name, as :mod:`bertrec.tensors` says."""


@dataclass(frozen=True)
class Query:
    """One text that can be answered, and how."""

    text: str  # cleaned
    k: int
    allowed: NDArray[np.bool_]  # (items,)


class Pipeline:
    """Answers texts from one bundle."""

    def __init__(self, bundle: Bundle, *, encoder: RunModel, ranker: RunModel, engine: str) -> None:
        """``encoder`` and ``ranker`` run the bundle's engines; ``engine`` is the encoder engine's name, for the answers."""
        self._bundle = bundle
        self._encoder = encoder
        self._ranker = ranker
        self._engine = engine
        self._tokenizer = bundle.tokenizer()
        self._lexical = bundle.lexical()
        self._catalogue = bundle.catalogue()
        self._item_lexical = bundle.item_lexical()

    def recommend(self, texts: Sequence[str], options: Sequence[Options]) -> list[Recommendation]:
        """One recommendation for each text and its options.

        Raises InvalidInput for a text or an option that cannot be answered; then nothing of the list was computed.
        """
        return self.answer(self.queries(texts, options))

    def queries(self, texts: Sequence[object], options: Sequence[Options]) -> list[Query]:
        """What is asked, checked: the part that can fail on bad input, cheap enough to do before requests are joined.

        Raises InvalidInput, naming the text by its position, for a text or an option that cannot be answered.
        """
        return [
            Query(clean(text, position), wanted.k, self.allowed(wanted))
            for position, (text, wanted) in enumerate(zip(texts, options, strict=True))
        ]

    def answer(self, queries: Sequence[Query]) -> list[Recommendation]:
        """One recommendation for each query."""
        tokens = self._tokenizer.tokenise([query.text for query in queries])
        interest = self.encode(tokens)  # (texts, hidden)
        lexical = self._lexical.vectors([query.text for query in queries])  # (texts, lexical)
        answers: list[Recommendation] = []
        for start in range(0, len(queries), MAX_BATCH_SIZE):
            rows = slice(start, start + MAX_BATCH_SIZE)
            allowed = np.stack([query.allowed for query in queries[rows]])  # (batch, items)
            ranked = self._ranker(
                {INTEREST_VECTOR.name: interest[rows], LEXICAL_VECTOR.name: lexical[rows], ALLOWED.name: allowed}
            )
            for row, query in enumerate(queries[rows]):
                items = self._items(query.text, query.k, {name: values[row] for name, values in ranked.items()})
                answers.append(Recommendation(items, tokens[start + row].truncated, self._engine, self._bundle.fingerprint))
        return answers

    def allowed(self, options: Options) -> NDArray[np.bool_]:
        """(items,) bool: the mask of one text's options. Raises InvalidInput where they cannot be honoured."""
        if options.k > self._bundle.manifest.max_k:
            raise InvalidInput(f"k is {options.k}; accepted is 1 to {self._bundle.manifest.max_k}")
        return self._catalogue.allowed(options)

    def encode(self, tokens: Sequence[Tokens]) -> NDArray[np.float32]:
        """(texts, hidden) float32: the interest vectors, one engine call for each batch of similar lengths."""
        vectors: NDArray[np.float32] | None = None
        for batch in batches(tokens, self._tokenizer):
            inputs = {INPUT_IDS.name: batch.input_ids, ATTENTION_MASK.name: batch.attention_mask}
            output = self._encoder(inputs)[INTEREST_VECTOR.name]  # (batch, hidden)
            if vectors is None:
                vectors = np.empty((len(tokens), output.shape[1]), np.float32)
            vectors[batch.rows] = output
        return vectors if vectors is not None else np.empty((0, 0), np.float32)

    def _items(self, text: str, k: int, ranked: Tensors) -> tuple[RankedItem, ...]:
        """The first ``k`` rows of the ranker's answer to one text, as items with reasons; masked rows are dropped."""
        kept = np.isfinite(ranked[SCORE.name][:k])
        indices = ranked[ITEM_INDEX.name][:k][kept].tolist()
        scores = ranked[SCORE.name][:k][kept].tolist()
        terms = ranked[TERMS.name][:k][kept].tolist()
        words = self._lexical.carriers(text, self._item_lexical[indices])
        return tuple(
            self._item(index, score, _reasons(parts, carriers))
            for index, score, parts, carriers in zip(indices, scores, terms, words, strict=True)
        )

    def _item(self, index: int, score: float, reasons: tuple[Reason, ...]) -> RankedItem:
        item = self._catalogue.items[index]
        return RankedItem(item.item_id, score, item.title, reasons, item.attributes)


def _reasons(terms: Sequence[float], words: tuple[str, ...]) -> tuple[Reason, ...]:
    """One reason for each signal, the strongest first."""
    reasons = [Reason(signal, score, words if signal == "lexical" else ()) for signal, score in zip(SIGNALS, terms, strict=True)]
    return tuple(sorted(reasons, key=lambda reason: -reason.score))
