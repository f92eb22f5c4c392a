"""From ranked lists to estimates: the metrics of each query, their means and intervals, slices, and paired differences."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bertrec.catalogue import values
from train.bootstrap import Estimate, bootstrap
from train.data import Dataset
from train.examples import OWN_TEXT, UNSEEN, Examples, Pairs
from train.metrics import ItemFacts, Labels, exposure_metrics, list_metrics, rank_metrics, relevant_ranks, same_class
from train.report import RANKS, ROWS, SAME_CLASS, Group

SLICED = ("ndcg_at_10", "recall_at_10", "recall_at_1")
"""Metrics of the slices."""

Values = Mapping[str, NDArray[np.float64]]
"""Metric → (queries,) float64."""


@dataclass(frozen=True)
class Subject:
    """What is measured on. attribute: what tells classes apart, or None. vectors: as in ItemFacts."""

    dataset: Dataset
    examples: Examples
    attribute: str | None
    seed: int
    vectors: NDArray[np.float32]

    @cached_property
    def facts(self) -> ItemFacts:
        """Of the ranked items."""
        labels = [self.labels(item) for item in self.examples.catalogue.tolist()] if self.attribute else None
        return ItemFacts(self.vectors, self.examples.counts, labels)

    def labels(self, item: int) -> Labels:
        """The classes of an item by its index into Dataset.items, whether it is ranked or not."""
        return frozenset(values(self.dataset.items[item].attributes.get(self.attribute or "", "")))

    def right_items(self, queries: Pairs) -> list[int]:
        """Indices into Dataset.items of the right items, also of those that the catalogue lacks."""
        asked = zip(queries.rows.tolist(), queries.items.tolist(), strict=True)
        return [
            int(self.examples.catalogue[item]) if row == OWN_TEXT else self.dataset.interactions[row].item for row, item in asked
        ]


@dataclass(frozen=True)
class Answers:
    """What every ranker answered to one kind of queries.

    tops: ranker → (queries, ≤ 50) int64 best items. metrics: ranker → metric → (queries,) float64.
    """

    kind: str
    queries: Pairs
    tops: Mapping[str, NDArray[np.int64]]
    metrics: Mapping[str, Values]


def measured(kind: str, queries: Pairs, tops: Mapping[str, NDArray[np.int64]], subject: Subject) -> Answers:
    """Measure the ranked lists of every ranker, query by query."""
    right_labels = [subject.labels(item) for item in subject.right_items(queries)]
    metrics = {}
    for name, top in tops.items():
        labels = subject.facts.labels
        of_class = {"class_at_1": same_class(top, labels, right_labels)} if labels is not None else {}
        metrics[name] = {**rank_metrics(relevant_ranks(top, queries.items)), **of_class, **list_metrics(top, subject.facts)}
    return Answers(kind, queries, tops, metrics)


def whole(answers: Answers, subject: Subject) -> Group:
    """Every metric over all queries of a kind."""
    rankers = _estimates(answers.metrics, subject.seed)
    for name, top in answers.tops.items():
        spread = exposure_metrics(top, subject.examples.items)
        rankers[name].update({metric: Estimate(value) for metric, value in spread.items()})
    return Group(len(answers.queries), rankers)


def slices(answers: Answers, subject: Subject) -> dict[str, dict[str, Group]]:
    """Segment → value → the metrics in ``SLICED`` of the queries with that value.

    The segments are those of the interactions, and how often the right item was chosen in training.
    """
    positions: dict[str, dict[str, list[int]]] = {}
    for position, (row, item) in enumerate(zip(answers.queries.rows.tolist(), answers.queries.items.tolist(), strict=True)):
        segments = subject.dataset.interactions[row].segments if row != OWN_TEXT else {}
        times = 0 if item == UNSEEN else int(subject.examples.counts[item])
        for key, value in {**segments, "training_interactions": _band(times)}.items():
            positions.setdefault(key, {}).setdefault(value, []).append(position)
    return {
        key: {value: _part(answers, np.asarray(chosen), subject.seed) for value, chosen in sorted(of_key.items())}
        for key, of_key in positions.items()
    }


def differences(answers: Answers, reference: str, subject: Subject) -> dict[str, dict[str, Estimate]]:
    """Ranker → metric → reference − ranker, paired query by query."""
    of_reference = answers.metrics[reference]
    others = {name: of_ranker for name, of_ranker in answers.metrics.items() if name != reference}
    paired = {
        name: {metric: of_reference[metric] - row for metric, row in of_ranker.items()} for name, of_ranker in others.items()
    }
    return _estimates(paired, subject.seed)


def per_query(answered: Iterable[Answers]) -> dict[str, NDArray[Any]]:
    """What per_query.npz holds, see train/report.py."""
    arrays: dict[str, NDArray[Any]] = {}
    for answers in answered:
        arrays[f"{answers.kind}/{ROWS}"] = answers.queries.rows
        for name, top in answers.tops.items():
            arrays[f"{answers.kind}/{name}/{RANKS}"] = relevant_ranks(top, answers.queries.items).astype(np.uint8)
            if (of_class := answers.metrics[name].get("class_at_1")) is not None:
                arrays[f"{answers.kind}/{name}/{SAME_CLASS}"] = of_class.astype(bool)
    return arrays


def _estimates(metrics: Mapping[str, Values], seed: int) -> dict[str, dict[str, Estimate]]:
    """Ranker → metric → mean and interval, all over the same resamples."""
    found: dict[str, dict[str, Estimate]] = {ranker: {} for ranker in metrics}
    names = [(ranker, metric) for ranker, of_ranker in metrics.items() for metric in of_ranker]
    if names:
        rows = np.stack([metrics[ranker][metric] for ranker, metric in names])  # (rankers · metrics, queries)
        for (ranker, metric), estimate in zip(names, bootstrap(rows, seed), strict=True):
            found[ranker][metric] = estimate
    return found


def _part(answers: Answers, chosen: NDArray[np.int64], seed: int) -> Group:
    part = {name: {metric: of_ranker[metric][chosen] for metric in SLICED} for name, of_ranker in answers.metrics.items()}
    return Group(len(chosen), _estimates(part, seed))


def _band(times: int) -> str:
    return str(times) if times < 2 else "2-5" if times <= 5 else ">5"
