"""What an evaluation found: the record that lies in the run folder, and the tables that are printed.

metrics.json    means, intervals, slices and differences, as in :class:`Evaluation`
per_query.npz   of each kind and ranker, query by query: the rank of the right item (0 beyond the 50th) and whether the first
                item is of its class; from these two runs are compared. Opened without pickle.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.table import Table

from bertrec.errors import InvalidRun
from train.bootstrap import CONFIDENCE, RESAMPLES, Estimate
from train.records import write_json
from train.run import METRICS_FILE, Run

AS_WRITTEN = "as-written"
PER_QUERY_FILE = "per_query.npz"
RANKS, SAME_CLASS, ROWS = "ranks", "same_class", "rows"
COLUMNS = {
    "R@1": "recall_at_1",
    "R@10": "recall_at_10",
    "R@50": "recall_at_50",
    "NDCG@10": "ndcg_at_10",
    "class@1": "class_at_1",
    "coverage": "coverage_at_10",
    "Gini": "gini_at_10",
    "diversity": "diversity_at_10",
    "novelty": "novelty_at_10",
}
"""Columns of the main table, and the metrics in them; what is not here, such as MRR@10, is in metrics.json."""


@dataclass(frozen=True)
class Group:
    """Quality on some queries. rankers: name → metric → estimate."""

    queries: int
    rankers: Mapping[str, Mapping[str, Estimate]]


@dataclass(frozen=True)
class Evaluation:
    """Quality of every ranker on one split.

    attribute: what tells classes apart for class@1, or None. kinds: way of asking → all its queries. slices, of the queries as
    written: segment → value → the queries of that value. differences, of the queries as written: ranker → metric → fused −
    ranker, paired query by query. asked: what was asked for, to tell whether a later call needs more.
    """

    split: str
    seed: int
    items: int
    attribute: str | None
    asked: Mapping[str, list[str]]
    kinds: Mapping[str, Group]
    slices: Mapping[str, Mapping[str, Group]]
    differences: Mapping[str, Mapping[str, Estimate]]

    def value(self, ranker: str, metric: str, kind: str = AS_WRITTEN) -> float:
        """One mean, such as ``value("fused", "ndcg_at_10")``."""
        return self.kinds[kind].rankers[ranker][metric].value


@dataclass(frozen=True)
class Comparison:
    """One kind of queries: the means of two runs, and first − second with its interval, paired query by query."""

    kind: str
    queries: int
    first: float
    second: float
    difference: Estimate


def write_evaluation(run: Run, evaluation: Evaluation, per_query: Mapping[str, NDArray[Any]]) -> None:
    """Leave an evaluation in the run folder; metrics.json last, so that it never speaks of arrays that are not there."""
    (run.folder / METRICS_FILE).unlink(missing_ok=True)
    path = run.folder / PER_QUERY_FILE
    partial = path.with_name(path.name + ".partial")
    with partial.open("wb") as file:
        np.savez_compressed(file, **per_query)
    os.replace(partial, path)
    about = {
        "run_created": run.record["created"],
        "data": run.record["data"],
        "settings": run.settings,
        "interval": f"{CONFIDENCE:.0%} percentile bootstrap, {RESAMPLES} resamples of the queries",
    }
    write_json(run.folder / METRICS_FILE, {**about, **asdict(evaluation)})


def read_evaluation(run: Run) -> Evaluation | None:
    """The evaluation of this very run that lies in its folder, if one does."""
    try:
        content = json.loads((run.folder / METRICS_FILE).read_text(encoding="utf-8"))
        if content["run_created"] != run.record["created"] or not (run.folder / PER_QUERY_FILE).is_file():
            return None
        return Evaluation(
            **{name: content[name] for name in ("split", "seed", "items", "attribute", "asked")},
            kinds={name: _group(group) for name, group in content["kinds"].items()},
            slices={key: {value: _group(group) for value, group in groups.items()} for key, groups in content["slices"].items()},
            differences=_estimates(content["differences"]),
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def read_per_query(run: Run) -> dict[str, NDArray[Any]]:
    """``kind/rows`` → (queries,) int64, ``kind/ranker/ranks`` → (queries,) uint8, ``kind/ranker/same_class`` → (queries,) bool.

    Raises InvalidRun, with the command that makes it, where the run was not evaluated.
    """
    try:
        with np.load(run.folder / PER_QUERY_FILE, allow_pickle=False) as arrays:
            return dict(arrays.items())
    except (OSError, ValueError) as error:
        raise InvalidRun(
            f"{run.folder} holds no ranks to compare ({error}); they are made by: python -m train evaluate --run {run.folder}"
        ) from None


def main_table(evaluation: Evaluation) -> Table:
    """Every ranker's metrics on the queries as written; NDCG@10 with its interval."""
    group = evaluation.kinds[AS_WRITTEN]
    table = Table(title=f"{evaluation.split}: {group.queries:,} queries, {evaluation.items:,} items ranked, lists of 10")
    table.add_column("ranker")
    measured = {title: metric for title, metric in COLUMNS.items() if any(metric in row for row in group.rankers.values())}
    for title in measured:
        table.add_column(f"{title} (95%)" if title == "NDCG@10" else title, justify="right")
    for name, metrics in group.rankers.items():
        table.add_row(name, *[_shown(metrics[metric], interval=metric == "ndcg_at_10") for metric in measured.values()])
    return table


def kinds_table(evaluation: Evaluation, metric: str = "ndcg_at_10") -> Table:
    """One metric of every ranker by the way of asking."""
    table = Table(title=f"{_title(metric)} by way of asking")
    table.add_column("ranker")
    for kind, group in evaluation.kinds.items():
        table.add_column(f"{kind}\n{group.queries:,} queries", justify="right")
    groups = evaluation.kinds.values()
    for name in dict.fromkeys(name for group in groups for name in group.rankers):
        table.add_row(name, *[_shown(group.rankers[name][metric]) if name in group.rankers else "" for group in groups])
    return table


def comparison_table(comparisons: Sequence[Comparison], metric: str, ranker: str) -> Table:
    """First run against second, a row for each way of asking; a difference that is told from none is marked."""
    table = Table(title=f"{_title(metric)} of {ranker}", caption="* the interval excludes 0")
    for column in ("way of asking", "queries", "--run", "--with", "difference (95%)"):
        table.add_column(column, justify="left" if column == "way of asking" else "right")
    for row in comparisons:
        difference = row.difference
        told = _shown(difference, interval=True) + (" *" if difference.excludes_zero else "")
        table.add_row(row.kind, f"{row.queries:,}", f"{row.first:.3f}", f"{row.second:.3f}", told)
    return table


def _shown(estimate: Estimate, *, interval: bool = False) -> str:
    """An estimate to three places, with its interval if asked for."""
    if not interval or estimate.low is None or estimate.high is None:
        return f"{estimate.value:.3f}"
    return f"{estimate.value:.3f} ({estimate.low:.3f}…{estimate.high:.3f})"


def _title(metric: str) -> str:
    return next((title for title, name in COLUMNS.items() if name == metric), metric)


def _group(content: Mapping[str, Any]) -> Group:
    return Group(content["queries"], _estimates(content["rankers"]))


def _estimates(content: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Estimate]]:
    return {name: {metric: Estimate(**row) for metric, row in metrics.items()} for name, metrics in content.items()}
