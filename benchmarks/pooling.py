"""One figure out of several seeds: the queries of all seeds pooled, their mean, and its bootstrap interval.

Every seed splits the data anew, so the pooled queries vary with what was trained on as well as with what was asked.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.studies import COVERAGE, KEPT_OF_LISTS, TIMES, Arrays
from train.bootstrap import bootstrap
from train.data import Dataset
from train.examples import OWN_TEXT
from train.measure import SLICED
from train.metrics import rank_metrics
from train.rankers import FUSED
from train.report import AS_WRITTEN, RANKS, ROWS, SAME_CLASS, Evaluation
from train.run import Run

OF_LISTS = ("coverage", "gini", "diversity", "novelty")
"""Beginnings of the metrics that are not kept query by query."""
PLACES = 5
BANDS = ("0", "1", "2-5", ">5")
"""Training interactions of the right item."""
Statistic = dict[str, Any]
"""value: mean over all queries of all seeds. low, high: its 95% interval, where queries have values of their own. seeds: the
value of each seed."""
Group = dict[str, Any]
"""queries: of all seeds. rankers: name → metric → Statistic. differences: name → metric of slices → fused − it,
paired query by query."""
Values = Mapping[str, Mapping[str, NDArray[np.float64]]]
"""Ranker → metric → (queries,) float64."""


@dataclass(frozen=True)
class Seed:
    """What the run of one seed gave. arrays: of its evaluation and of its studies."""

    run: Run
    evaluation: Evaluation
    arrays: Arrays


def pooled(seeds: Sequence[Seed], kind: str, metrics: Sequence[str] | None = None) -> Group:
    """The rankers of one way of asking, or of one study, over the queries of all seeds; none where it was not asked.

    metrics: of those that queries have values of; all, if not given.
    """
    group = _group([_values(seed.arrays, kind, metrics) for seed in seeds])
    for name, statistics in group["rankers"].items():
        of_lists = [_of_lists(seed, kind, name) for seed in seeds]
        for metric in of_lists[0]:
            each = [_rounded(of_seed[metric]) for of_seed in of_lists]
            statistics[metric] = {"value": _rounded(float(np.mean(each))), "low": None, "high": None, "seeds": each}
    return group


def pooled_slices(seeds: Sequence[Seed], dataset: Dataset) -> dict[str, dict[str, Group]]:
    """Segment → value → the metrics of slices, of the queries as written with that value."""
    labels = [_labels(seed.arrays, dataset) for seed in seeds]
    values = [_values(seed.arrays, AS_WRITTEN, SLICED) for seed in seeds]
    found: dict[str, dict[str, Group]] = {}
    for key in dict.fromkeys(key for of_seed in labels for row in of_seed for key in row):
        known = {row[key] for of_seed in labels for row in of_seed if key in row}
        found[key] = {}
        for value in sorted(known):
            masks = [np.asarray([row.get(key) == value for row in of_seed]) for of_seed in labels]
            found[key][value] = _group([_where(of_seed, mask) for of_seed, mask in zip(values, masks, strict=True)])
    return found


def _labels(arrays: Arrays, dataset: Dataset) -> list[dict[str, str]]:
    """What each query as written is: the segments of its interaction, and how often the right item was chosen in training.

    ``query`` and ``item``, where there are both, are told together as well.
    """
    labels = []
    for row, times in zip(arrays[f"{AS_WRITTEN}/{ROWS}"].tolist(), arrays[TIMES].tolist(), strict=True):
        segments = dict(dataset.interactions[row].segments) if row != OWN_TEXT else {}
        if {"query", "item"} <= segments.keys():
            segments["query, item"] = f"{segments['query']}, {segments['item']}"
        band = BANDS[int(np.searchsorted([0, 1, 5], times))]
        few = "at most 5" if times <= 5 else "more than 5"
        labels.append({**segments, "training_interactions": band, "few_training_interactions": few})
    return labels


def _values(arrays: Arrays, kind: str, metrics: Sequence[str] | None = None) -> dict[str, dict[str, NDArray[np.float64]]]:
    """Ranker → metric → (queries,) of one seed."""
    prefix, ending = f"{kind}/", f"/{RANKS}"
    found = {}
    for name in (key[len(prefix) : -len(ending)] for key in arrays if key.startswith(prefix) and key.endswith(ending)):
        values = rank_metrics(arrays[f"{kind}/{name}/{RANKS}"].astype(np.int64))
        if (same := arrays.get(f"{kind}/{name}/{SAME_CLASS}")) is not None:
            values["class_at_1"] = same.astype(np.float64)
        found[name] = {metric: row for metric, row in values.items() if metrics is None or metric in metrics}
    return found


def _where(values: Values, mask: NDArray[np.bool_]) -> Values:
    return {name: {metric: row[mask] for metric, row in metrics.items()} for name, metrics in values.items()}


def _of_lists(seed: Seed, kind: str, ranker: str) -> dict[str, float]:
    """Metrics of one seed that are not kept query by query: from its studies, or else from its evaluation."""
    studied = {metric: seed.arrays.get(f"{kind}/{ranker}/{metric}") for metric in KEPT_OF_LISTS}
    if studied[COVERAGE] is not None:
        return {metric: float(value) for metric, value in studied.items() if value is not None}
    measured = seed.evaluation.kinds[kind].rankers[ranker]
    return {metric: row.value for metric, row in measured.items() if metric.split("_")[0] in OF_LISTS}


def _group(seeds: Sequence[Values]) -> Group:
    """The rankers that every seed has."""
    rankers = [name for name in seeds[0] if all(name in of_seed for of_seed in seeds)]
    queries = sum(len(of_seed[name][SLICED[0]]) for of_seed in seeds for name in rankers[:1])
    measured = [{name: of_seed[name] for name in rankers} for of_seed in seeds]
    group: Group = {"queries": queries, "rankers": _statistics(measured)}
    if FUSED in rankers:
        group["differences"] = _statistics([_behind_fused(of_seed) for of_seed in measured])
    return group


def _behind_fused(values: Values) -> Values:
    """Ranker → metric → (queries,) fused − it."""
    fused = values[FUSED]
    return {
        name: {metric: fused[metric] - row for metric, row in metrics.items()}
        for name, metrics in values.items()
        if name != FUSED
    }


def _statistics(seeds: Sequence[Values]) -> dict[str, dict[str, Statistic]]:
    """Ranker → metric → statistic, all over the same resamples."""
    found: dict[str, dict[str, Statistic]] = {name: {} for name in seeds[0]}
    names = [(name, metric) for name, metrics in seeds[0].items() for metric in metrics]
    if not names:
        return found
    rows = [[of_seed[name][metric] for of_seed in seeds] for name, metric in names]  # (rankers · metrics), seeds, (queries,)
    estimates = bootstrap(np.stack([np.concatenate(parts) for parts in rows]), seed=0)
    for (name, metric), parts, estimate in zip(names, rows, estimates, strict=True):
        each = [_rounded(float(part.mean())) if len(part) else None for part in parts]
        interval = {key: _rounded(value) for key, value in asdict(estimate).items()}
        found[name][metric] = {**interval, "seeds": each}
    return found


def _rounded(value: float) -> float:
    return round(value, PLACES)
