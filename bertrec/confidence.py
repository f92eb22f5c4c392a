"""Whether an answer's first item can be relied on: a threshold on how sure the ranking is of it, as in selective prediction.

``python -m train threshold`` chooses measure and threshold on held-out questions (docs/faq.md); an exported bundle carries them.
Training measures with this very code, so what is served is what was measured.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bertrec.errors import InvalidBundle

CONFIDENCE = "confidence"
"""The manifest's key under ``model``."""

Scores = NDArray[np.float32]
"""(questions, candidates), −inf where an item is masked."""


def _margin(scores: Scores) -> NDArray[np.float64]:
    best = np.sort(scores.astype(np.float64), axis=1)[:, -2:]
    return np.asarray(best[:, -1] - best[:, 0])


def _probability(scores: Scores) -> NDArray[np.float64]:
    return np.asarray(1.0 / np.exp(scores.astype(np.float64) - scores.max(axis=1, keepdims=True)).sum(axis=1))


SURENESS: Mapping[str, Callable[[Scores, Scores], NDArray[np.float64]]] = {
    "score": lambda fused, text: fused.max(axis=1).astype(np.float64),
    "margin": lambda fused, text: _margin(fused),
    "probability": lambda fused, text: _probability(fused),
    "text": lambda fused, text: text.max(axis=1).astype(np.float64),
}
"""Of the first of the ranker's candidates: its score, its lead over the second, its softmax share; or what the BERT alone gives
at best: ⟨interest vector, item⟩, unweighted."""


@dataclass(frozen=True)
class Confidence:
    """An answer is confident where its sureness by ``measure``, a name of SURENESS, is at least ``threshold``."""

    measure: str
    threshold: float

    def confident(self, scores: NDArray[np.float32], text: NDArray[np.float32]) -> bool:
        """(candidates,) scores without rules, and what the BERT alone gives them. Of no candidate nothing can be sure."""
        return bool(len(scores) and SURENESS[self.measure](scores[None], text[None])[0] >= self.threshold)

    @classmethod
    def read(cls, given: Any) -> Confidence:  # noqa: ANN401  # whatever the JSON held
        """What a manifest or threshold.json says. Raises InvalidBundle for anything but a known measure and a number."""
        try:
            measure, threshold = str(given["measure"]), float(given["threshold"])
        except (KeyError, TypeError, ValueError) as error:
            raise InvalidBundle(
                f"confidence is {given!r} ({type(error).__name__}: {error}); accepted are measure and threshold"
            ) from None
        if measure not in SURENESS or math.isnan(threshold):
            raise InvalidBundle(f"confidence is {given!r}; accepted are a number and one of the measures {', '.join(SURENESS)}")
        return cls(measure, threshold)
