"""The run's own rankers: the fused recommender, parts of it, and each signal alone, by the very code that serves them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from torch import nn

from bertrec.fusion import Gates, Signals
from bertrec.tensors import PRIOR, TEXT_SIGNAL
from bertrec.text import TextTokenizer
from train.encoder import Encoder
from train.examples import Pairs
from train.run import Run
from train.states import encode_texts

FUSED = "fused"

Encode = Callable[[Sequence[str]], NDArray[np.float32]]
"""Texts → (texts, hidden) interest vectors."""


@dataclass
class InterestVectors:
    """An encoder or a student, which reads every text once, however many rankers ask."""

    encoder: nn.Module
    tokenizer: TextTokenizer
    _known: dict[str, NDArray[np.float32]] = field(default_factory=dict)

    @classmethod
    def of(cls, run: Run) -> InterestVectors:
        """The encoder as it was fine-tuned."""
        return cls(Encoder.load(run.encoder_folder), TextTokenizer(run.tokenizer_file, run.settings["max_tokens"]))

    def __call__(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """(texts, hidden) float32."""
        new = [text for text in dict.fromkeys(texts) if text not in self._known]
        if new:
            vectors = encode_texts(self.encoder, self.tokenizer, new, "encoding with the fine-tuned network")
            self._known.update(zip(new, vectors, strict=True))
        if not len(texts):
            return encode_texts(self.encoder, self.tokenizer, [], "encoding")
        return np.stack([self._known[text] for text in texts])


@dataclass(frozen=True)
class RunRanker:
    """The score of the run, or of a part of its signals. popularity: how strongly the prior counts, 1 as chosen."""

    name: str
    signals: Signals
    items: Mapping[str, NDArray[np.float32]]  # signal → (items, width)
    encode: Encode
    popularity: float = 1.0

    def scores(self, queries: Pairs) -> NDArray[np.float32]:
        """(queries, items) float32: everything is one inner product."""
        hidden = self.items[TEXT_SIGNAL].shape[1]
        silent = TEXT_SIGNAL not in self.signals.gates.biases  # then the encoder need not read anything
        interest = np.zeros((len(queries), hidden), np.float32) if silent else self.encode(queries.texts)
        weights = [self.popularity] * len(queries)
        vectors = self.signals.query_vectors(queries.texts, interest, queries.histories, weights)
        return np.asarray(vectors @ np.hstack(list(self.items.values())).T, np.float32)

    def with_gates(self, name: str, gates: Gates) -> RunRanker:
        """The same run with another gate."""
        return dataclasses.replace(self, name=name, signals=dataclasses.replace(self.signals, gates=gates))

    def without(self, *signals: str) -> RunRanker:
        """The same run with some signals switched off; the others' weights stay."""
        return self.with_gates(f"{self.name} without {' and '.join(signals)}", self.signals.gates.without(*signals))

    def alone(self, signal: str) -> RunRanker:
        """One signal of the run."""
        return self.with_gates(f"{signal} alone", Gates({signal: 0.0}))


def fused_ranker(run: Run, encode: Encode | None = None) -> RunRanker:
    """The run's recommender. encode: what reads texts, where it is shared; else the run's encoder."""
    items = {signal: run.array(f"items/{signal}") for signal in run.record["signals"]}
    return RunRanker(FUSED, Signals.load(run.signals_folder), items, encode or InterestVectors.of(run))


def signal_rankers(fused: RunRanker) -> list[RunRanker]:
    """Each signal of the run alone, but the prior, which is the baseline popularity."""
    return [fused.alone(signal) for signal in fused.items if signal != PRIOR]
