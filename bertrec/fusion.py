"""The user side of the score: every signal's view of one query, weighted and laid one after another.

    score(item | query) = Σ_s  g_s(query) · ⟨u_s(query), v_s(item)⟩ + rules

The weights g are a gate that was learned on validation queries (a log-linear pool of experts, Hinton, 2002). Training measures
with this very code, so what is served is what was measured.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bertrec.errors import InvalidBundle
from bertrec.graph import GAZETTEER_FILE, GraphSignal
from bertrec.history import FACTORS_FILE, BehaviourSignal
from bertrec.sentiment import open_analyser, sentiments
from bertrec.signals import LexicalSignal, analyse
from bertrec.tensors import BEHAVIOUR, GRAPH, LEXICAL, PRIOR, SIGNALS, TEXT_SIGNAL

GATES_FILE = "gates.json"
FEATURES = ("words", "known words", "entities", "history")
"""What the gate knows of a query: how long it is, the share of its words that the lexical signal knows, whether it names an
entity, and how long the user's history is; each between 0 and about 1."""
SENTIMENT = "sentiment"
"""What it may know besides: whether the text complains or praises, from −1 to 1 (bertrec/sentiment.py)."""
LONG_TEXT, LONG_HISTORY = 60, 20


@dataclass(frozen=True)
class Gates:
    """g_s(query) = exp(bias_s + Σ_f weight_sf · feature_f(query)); a signal that is not named has g = 0.

    features: FEATURES, or these and SENTIMENT.
    """

    biases: Mapping[str, float]
    weights: Mapping[str, Sequence[float]] = field(default_factory=dict)  # signal → one number a feature
    features: tuple[str, ...] = FEATURES

    def values(self, features: NDArray[np.float32], signal: str) -> NDArray[np.float32]:
        """(queries, features) → (queries,) the weight of one signal."""
        if signal not in self.biases:
            return np.zeros(len(features), np.float32)
        exponents = features @ np.asarray(self.weights.get(signal, [0.0] * features.shape[1]), np.float32)
        return np.asarray(np.exp(self.biases[signal] + exponents), np.float32)

    def without(self, *signals: str) -> Gates:
        """The gate with some signals switched off."""
        return Gates({name: bias for name, bias in self.biases.items() if name not in signals}, self.weights, self.features)

    def save(self, folder: Path) -> Path:
        """Write the gate as JSON."""
        folder.mkdir(parents=True, exist_ok=True)
        content = {
            "features": self.features,
            "biases": dict(self.biases),
            "weights": {k: list(v) for k, v in self.weights.items()},
        }
        (folder / GATES_FILE).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
        return folder / GATES_FILE

    @classmethod
    def load(cls, folder: Path) -> Gates:
        """Read what :meth:`save` wrote. Raises InvalidBundle for a gate that asks for other features."""
        content = json.loads((folder / GATES_FILE).read_text(encoding="utf-8"))
        features = tuple(content["features"])
        if features not in (FEATURES, (*FEATURES, SENTIMENT)):
            raise InvalidBundle(
                f"{folder / GATES_FILE} weighs by {', '.join(map(str, features))}; this release knows {', '.join(FEATURES)}, and "
                f"{SENTIMENT} behind them. Use the release that wrote it"
            )
        return cls(content["biases"], content["weights"], features)


@dataclass(frozen=True)
class Signals:
    """Everything that turns a query into its user sides but the BERT, whose vectors are handed in.

    ``graph`` and ``behaviour`` are None where the data gave nothing to fit them on.
    """

    lexical: LexicalSignal
    graph: GraphSignal | None
    behaviour: BehaviourSignal | None
    gates: Gates

    @classmethod
    def load(cls, folder: Path) -> Signals:
        """Read the files that the signals and the gate saved into one folder.

        Raises InvalidBundle for a gate of another release, MissingDependency where it asks for the sentiment and vaderSentiment
        is not installed.
        """
        gates = Gates.load(folder)
        if SENTIMENT in gates.features:
            open_analyser()
        return cls(
            lexical=LexicalSignal.load(folder),
            graph=GraphSignal.load(folder) if (folder / GAZETTEER_FILE).is_file() else None,
            behaviour=BehaviourSignal.load(folder) if (folder / FACTORS_FILE).is_file() else None,
            gates=gates,
        )

    def save(self, folder: Path) -> None:
        """Write what :meth:`load` reads."""
        for part in (self.lexical, self.graph, self.behaviour, self.gates):
            if part is not None:
                part.save(folder)

    def features(self, texts: Sequence[str], histories: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        """(queries, features of the gate) float32: what it decides by."""
        rows = []
        for text, history in zip(texts, histories, strict=True):
            words = [term for term in analyse(text) if " " not in term]
            known = sum(self.lexical.knows(word) for word in words)
            named = self.graph is not None and bool(self.graph.mentions(text))
            rows.append(
                (
                    math.log1p(len(words)) / math.log1p(LONG_TEXT),
                    known / len(words) if words else 0.0,
                    float(named),
                    math.log1p(len(history)) / math.log1p(LONG_HISTORY),
                )
            )
        found = np.asarray(rows, np.float32).reshape(-1, len(FEATURES))
        if SENTIMENT not in self.gates.features:
            return found
        return np.hstack([found, sentiments(texts)[:, None]])

    def user_sides(
        self, texts: Sequence[str], interest: NDArray[np.float32], histories: Sequence[Sequence[int]]
    ) -> dict[str, NDArray[np.float32]]:
        """Signal → (queries, width) float32, in the order of ``SIGNALS``; each row is of length 1, or zeros where it is silent.

        interest: (queries, hidden) what the encoder made of the texts. histories: indices of the items chosen before.
        """
        sides = {TEXT_SIGNAL: interest, LEXICAL: self.lexical.vectors(texts)}
        if self.graph is not None:
            sides[GRAPH] = self.graph.vectors_of(texts)
        if self.behaviour is not None:
            sides[BEHAVIOUR] = self.behaviour.vectors(histories)
        sides[PRIOR] = np.ones((len(texts), 1), np.float32)
        assert list(sides) == [name for name in SIGNALS if name in sides]
        return sides

    def query_vectors(
        self,
        texts: Sequence[str],
        interest: NDArray[np.float32],
        histories: Sequence[Sequence[int]],
        popularity: Sequence[float] | None = None,
    ) -> NDArray[np.float32]:
        """(queries, Σ widths) float32: the weighted user sides, one after another.

        popularity: for each query, how strongly the prior counts beside what was learned: 1 as learned, 0 not at all.
        """
        features = self.features(texts, histories)
        sides = self.user_sides(texts, interest, histories)
        weighted = {name: side * self.gates.values(features, name)[:, None] for name, side in sides.items()}
        if popularity is not None:
            weighted[PRIOR] = weighted[PRIOR] * np.asarray(popularity, np.float32)[:, None]
        return np.hstack(list(weighted.values())).astype(np.float32)
