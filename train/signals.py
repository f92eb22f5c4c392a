"""Fit every signal but the BERT's: its user side, its item side, and the map for items that nobody chose."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bertrec.graph import GraphSignal
from bertrec.history import BehaviourSignal
from bertrec.signals import LexicalSignal
from bertrec.tensors import BEHAVIOUR, GRAPH, LEXICAL
from train.behaviour import fit_behaviour
from train.data import Dataset, Split
from train.examples import Examples
from train.graph import fit_graph
from train.items import ItemSide, centroids
from train.lexical import fit_lexical, learn_lexical
from train.optimise import fit_items
from train.progress import say
from train.settings import FitSettings

SHORT_HISTORY = 8


@dataclass(frozen=True)
class FittedSignals:
    """The served signals, and their item sides as signal → (items, width).

    learned: what training made of each item. described: what is said of it, of length 1, for the map that items without
    interactions need.
    """

    lexical: LexicalSignal
    graph: GraphSignal | None
    behaviour: BehaviourSignal | None
    learned: Mapping[str, NDArray[np.float32]]
    described: Mapping[str, NDArray[np.float32]]


def fit_signals(dataset: Dataset, examples: Examples, split: Split, settings: FitSettings) -> FittedSignals:
    """The lexical, the graph and the behaviour signal, each with item vectors of its own, learned apart from the others.

    Learned apart, a signal cannot lean on what another has memorised of the training texts; the gate weighs them afterwards.
    """
    learned: dict[str, NDArray[np.float32]] = {}
    described: dict[str, NDArray[np.float32]] = {}
    train = examples.train
    say("fitting the lexical signal")
    lexical = fit_lexical(train.texts, dimensions=settings.lexical_dimensions, terms=settings.lexical_terms, seed=settings.seed)
    side = ItemSide(centroids(lexical.vectors(train.texts), train, examples.items), examples.counts, settings.prior_weight)
    lexical = learn_lexical(lexical, side, train.texts, train.items, settings)
    learned[LEXICAL] = side.numpy()
    described[LEXICAL] = centroids(lexical.vectors(train.texts), train, examples.items)
    graph = behaviour = None
    if GRAPH not in settings.without:
        say("fitting the graph signal")
        fitted = fit_graph(dataset, examples, dimensions=settings.graph_dimensions, seed=settings.seed)
        if len(fitted.signal.entities):
            graph = fitted.signal
            users = graph.vectors_of(train.texts)
            learned[GRAPH] = _fit(centroids(users, train, examples.items), users, examples, settings)
            described[GRAPH] = fitted.items
    if BEHAVIOUR not in settings.without:
        behaviour = fit_behaviour(dataset, examples, split.train, dimensions=settings.behaviour_dimensions, seed=settings.seed)
        if behaviour is not None:
            factors = behaviour.factors.astype(np.float32)
            short = _cut(train.histories, settings.seed)  # newcomers, of whom the data has too few
            users = np.vstack([behaviour.vectors(train.histories), behaviour.vectors(short)])
            learned[BEHAVIOUR] = _fit(factors, users, examples, settings)
            described[BEHAVIOUR] = factors
    return FittedSignals(lexical, graph, behaviour, learned, described)


def _fit(
    first: NDArray[np.float32], users: NDArray[np.float32], examples: Examples, settings: FitSettings
) -> NDArray[np.float32]:
    """(items, width) vectors learned from user sides that stay as they are: the training texts', once or several times."""
    side = ItemSide(first, examples.counts, settings.prior_weight)
    fit_items(side, users, np.resize(examples.train.items, len(users)), settings)
    return side.numpy()


def _cut(histories: Sequence[tuple[int, ...]], seed: int) -> list[tuple[int, ...]]:
    """The latest one to ``SHORT_HISTORY`` items of each history."""
    lengths = np.random.default_rng([seed, 4]).integers(1, SHORT_HISTORY + 1, size=len(histories)).tolist()
    return [history[-length:] for history, length in zip(histories, lengths, strict=True)]
