"""Choose, on validation queries only, how the signals are weighed: constants first, then the per-query gate if it helps."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from bertrec.fusion import FEATURES, Gates
from bertrec.tensors import PRIOR
from train.examples import UNSEEN
from train.items import shrink
from train.metrics import CUTOFF

LIKELIHOOD_STEPS, LIKELIHOOD_DECAY, NEARLY_NOTHING = 100, 1e-4, 0.02
"""Of the likeliest weights' fit; a weight below that share of the largest is left out."""
WEIGHTS = (0.0, 0.1, 0.2, 0.35, 0.5, 0.7, 0.85, 1.0, 1.2, 1.5, 2.0, 3.0)
SWEEPS = 3
"""Of the weights that rank best: what each may be, and how often each is chosen anew."""
SHRINKAGES = (0.5, 1.0, 2.0, 4.0, 8.0)
"""Interactions that the map of an item's description may be worth."""
MOST_SCORES = 40_000_000
"""Scores of one signal that are held at once; of a catalogue of 100,000 items that leaves 400 queries to choose by."""
GATE_STEPS, GATE_RATE, GATE_DECAY = 60, 0.05, 0.02


@dataclass(frozen=True)
class Asked:
    """Validation queries: the user sides by signal, the gate's features and what they are, the histories, and the right items."""

    sides: Mapping[str, NDArray[np.float32]]  # signal → (queries, width)
    features: NDArray[np.float32]  # (queries, names)
    histories: Sequence[tuple[int, ...]]
    relevant: NDArray[np.int64]  # (queries,)
    names: tuple[str, ...] = FEATURES


@dataclass(frozen=True)
class Fusion:
    """The chosen gate, NDCG@10 on the queries that chose it, and that of constant weights by cross-validation and the gate's."""

    gates: Gates
    ndcg_at_10: float
    constant_ndcg_at_10: float
    gated_ndcg_at_10: float


def default_fusion(signals: Sequence[str], prior_weight: float) -> Fusion:
    """The weights of training, for data that leaves nothing to choose by."""
    nothing = float("nan")
    return Fusion(Gates({name: math.log(prior_weight) if name == PRIOR else 0.0 for name in signals}), nothing, nothing, nothing)


def choose_fusion(asked: Asked, items: Mapping[str, NDArray[np.float32]], prior_weight: float) -> Fusion:
    """Constant weights, the likeliest ones or those that rank best, and a gate over the query's features.

    Two-fold cross-validation by NDCG@10 says which constants, and whether the gate.

    items: signal → (items, width).
    """
    most = max(1, MOST_SCORES // len(items[PRIOR]))
    scores = _Scores.of(asked, items, most)
    if not len(scores.relevant):
        return default_fusion(list(items), prior_weight)
    halves = np.arange(len(scores.relevant)) % 2 == 0
    folds = [(scores.where(half), scores.where(~half)) for half in (halves, ~halves)]
    constants, constant = _chosen(folds, prior_weight)
    gated = []
    for learning, judging in folds:
        weights = constants(learning, prior_weight)
        gated.append(_ndcg(judging, weights, _gate(learning, weights)))
    weights = constants(scores, prior_weight)
    gate = _gate(scores, weights) if np.mean(gated) > constant else None
    biases = {name: math.log(weight) for name, weight in zip(scores.names, weights.tolist(), strict=True) if weight > 0}
    by_feature: dict[str, list[float]] = {}
    features: tuple[str, ...] = FEATURES  # constants ask for nothing, so for no sentiment either
    if gate is not None:
        features = asked.names
        shift = (gate @ torch.from_numpy(scores.mean)).tolist()
        biases = {name: bias - shift[scores.names.index(name)] for name, bias in biases.items()}
        by_feature = {name: gate[scores.names.index(name)].tolist() for name in biases}
    return Fusion(Gates(biases, by_feature, features), _ndcg(scores, weights, gate), constant, float(np.mean(gated)))


def choose_shrinkage(
    learned: NDArray[np.float32], mapped: NDArray[np.float32], counts: NDArray[np.int64], asked: Asked, signal: str, prior: Tensor
) -> float:
    """How many interactions the map is worth: by NDCG@10 of the signal with the prior, on validation queries."""
    most = max(1, MOST_SCORES // len(learned))
    user, relevant = torch.from_numpy(asked.sides[signal][:most]), torch.from_numpy(asked.relevant[:most])
    if not len(relevant):
        return SHRINKAGES[0]
    found = [
        gains(user @ torch.from_numpy(shrink(learned, mapped, counts, strength)).T + prior, relevant).mean()
        for strength in SHRINKAGES
    ]
    return SHRINKAGES[int(np.argmax(found))]


def gains(scores: Tensor, relevant: Tensor) -> NDArray[np.float64]:
    """(queries,) NDCG@10 of each query's relevant item, ties going to the lower index."""
    known = relevant.clamp(min=0)
    own = scores.gather(1, known[:, None])  # (queries, 1)
    before = torch.arange(scores.shape[1])[None, :] < known[:, None]
    ranks = 1 + ((scores > own) | ((scores == own) & before)).sum(1)
    hit = (ranks <= CUTOFF) & (relevant != UNSEEN)
    return np.asarray(torch.where(hit, 1.0 / torch.log2(ranks + 1.0), torch.zeros(())).double())


@dataclass(frozen=True)
class _Scores:
    """What every signal says of every item, and what is masked."""

    names: list[str]
    terms: Tensor  # (signals, queries, items)
    features: Tensor  # (queries, features), minus their mean
    mean: NDArray[np.float32]  # (features,)
    relevant: Tensor  # (queries,)

    @classmethod
    def of(cls, asked: Asked, items: Mapping[str, NDArray[np.float32]], most: int) -> _Scores:
        rows = slice(0, most)
        terms = torch.stack([torch.from_numpy(asked.sides[name][rows] @ vectors.T) for name, vectors in items.items()])
        relevant = torch.from_numpy(asked.relevant[rows]).clone()
        for row, history in enumerate(asked.histories[rows]):
            terms[:, row, list(history)] = -1e4  # chosen before, so not recommended again
            if int(relevant[row]) in history:
                relevant[row] = UNSEEN  # chosen once more, which no weight can bring
        mean = asked.features.mean(axis=0) if len(asked.features) else np.zeros(asked.features.shape[1], np.float32)
        return cls(list(items), terms, torch.from_numpy(asked.features[rows] - mean), mean, relevant)

    def where(self, chosen: NDArray[np.bool_]) -> _Scores:
        rows = torch.from_numpy(np.flatnonzero(chosen))
        return _Scores(self.names, self.terms[:, rows], self.features[rows], self.mean, self.relevant[rows])


def _chosen(folds: Sequence[tuple[_Scores, _Scores]], prior_weight: float) -> tuple[_Constants, float]:
    """The way to constant weights that ranks best what it has not seen, and its NDCG@10 there.

    folds: queries to learn from, and others to judge by.
    """
    found = {
        constants: float(np.mean([_ndcg(judging, constants(learning, prior_weight)) for learning, judging in folds]))
        for constants in (_likeliest, _ranking_best)
    }
    return max(found.items(), key=lambda one: one[1])


def _likeliest(scores: _Scores, prior_weight: float) -> Tensor:
    """(signals,) constant weights that make the right items likeliest; what is nearly nothing beside the largest becomes nothing.

    A conditional logit (McFadden, 1974), whose log-likelihood is concave in the weights. The decay holds where a signal always
    knows the right item and no weight is too large.
    """
    began = _begin(scores, prior_weight).log()
    logs = began.clone().requires_grad_(True)
    seen = scores.relevant != UNSEEN
    terms, relevant = scores.terms[:, seen], scores.relevant[seen]
    optimiser = torch.optim.LBFGS([logs], max_iter=LIKELIHOOD_STEPS, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimiser.zero_grad()
        found = nn.functional.cross_entropy(torch.einsum("s,sqi->qi", logs.exp(), terms), relevant)
        found = found + LIKELIHOOD_DECAY * (logs - began).square().sum()
        found.backward()  # type: ignore[no-untyped-call]  # torch's own
        return found

    if len(relevant):
        optimiser.step(loss)  # type: ignore[no-untyped-call]  # torch's own
    weights = logs.detach().exp()
    return torch.where(weights < NEARLY_NOTHING * weights.max(), 0.0, weights)


def _ranking_best(scores: _Scores, prior_weight: float) -> Tensor:
    """(signals,) constant weights by coordinate ascent on NDCG@10, which sees no more than the top of the list."""
    weights = _begin(scores, prior_weight)
    total = torch.einsum("s,sqi->qi", weights, scores.terms)
    best = gains(total, scores.relevant).mean()
    for _ in range(SWEEPS):
        for signal in range(len(scores.names)):
            rest = total - weights[signal] * scores.terms[signal]
            for weight in WEIGHTS:
                found = gains(rest + weight * scores.terms[signal], scores.relevant).mean()
                if found > best:
                    best, weights[signal] = found, weight
            total = rest + weights[signal] * scores.terms[signal]
    return weights


def _begin(scores: _Scores, prior_weight: float) -> Tensor:
    """(signals,) the weights of training."""
    return torch.tensor([prior_weight if name == PRIOR else 1.0 for name in scores.names])


_Constants = Callable[[_Scores, float], Tensor]


def _gate(scores: _Scores, weights: Tensor) -> Tensor:
    """(signals, features) log-weights that make the right items likeliest, beside the constant weights."""
    gate = torch.zeros(len(scores.names), scores.features.shape[1], requires_grad=True)
    sharpness = torch.zeros((), requires_grad=True)
    seen = scores.relevant != UNSEEN
    terms, features, relevant = scores.terms[:, seen], scores.features[seen], scores.relevant[seen]
    optimiser = torch.optim.Adam([gate, sharpness], lr=GATE_RATE)
    for _ in range(GATE_STEPS):
        logits = sharpness.exp() * _fused(terms, features, weights, gate)
        loss = nn.functional.cross_entropy(logits, relevant) + GATE_DECAY * gate.square().sum()
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch's own
        optimiser.step()
    return gate.detach()


def _ndcg(scores: _Scores, weights: Tensor, gate: Tensor | None = None) -> float:
    gate = torch.zeros(len(scores.names), scores.features.shape[1]) if gate is None else gate
    return float(gains(_fused(scores.terms, scores.features, weights, gate), scores.relevant).mean())


def _fused(terms: Tensor, features: Tensor, weights: Tensor, gate: Tensor) -> Tensor:
    """(queries, items): the weighted sum of the signals."""
    each = weights[:, None] * (gate @ features.T).exp()  # (signals, queries)
    return torch.einsum("sq,sqi->qi", each, terms)
