"""From texts to interest vectors: one bundle's tokenizer and the encoder engine that reads its ids."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bertrec.bundle import Bundle
from bertrec.tensors import ATTENTION_MASK, INPUT_IDS, INTEREST_VECTOR
from bertrec.text import Tokens, batches

Tensors = Mapping[str, NDArray[Any]]
RunModel = Callable[[Tensors], Tensors]
"""Runs one model: inputs by name → outputs by name, as :mod:`bertrec.tensors` says."""


class TextEncoder:
    """Encodes texts. engine: name of the encoder engine."""

    def __init__(self, bundle: Bundle, run: RunModel, engine: str) -> None:
        """``run`` runs the bundle's encoder engine of that name."""
        self.engine = engine
        self._run = run
        self._hidden = bundle.manifest.signals["text"]
        self._tokenizer = bundle.tokenizer(engine)

    def tokenise(self, texts: Sequence[str]) -> list[Tokens]:
        """The cleaned texts as the encoder reads them."""
        return self._tokenizer.tokenise(texts)

    def encode(self, tokens: Sequence[Tokens]) -> NDArray[np.float32]:
        """(texts, hidden) float32: the interest vectors, one engine call for each batch of similar lengths."""
        vectors = np.empty((len(tokens), self._hidden), np.float32)
        for batch in batches(tokens, self._tokenizer):
            inputs = {INPUT_IDS.name: batch.input_ids, ATTENTION_MASK.name: batch.attention_mask}
            vectors[batch.rows] = self._run(inputs)[INTEREST_VECTOR.name]  # (batch, hidden)
        return vectors
