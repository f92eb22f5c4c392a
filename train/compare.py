"""Compare two evaluated runs query by query: whose ranking is better, and whether the difference is told from none."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bertrec.errors import InvalidInput, InvalidRun
from train.bootstrap import bootstrap
from train.metrics import rank_metrics
from train.report import RANKS, ROWS, SAME_CLASS, Comparison, Evaluation, read_evaluation, read_per_query
from train.run import Run

CLASS_METRIC = "class_at_1"
COMPARED = (*rank_metrics(np.zeros(0, np.int64)), CLASS_METRIC)
"""What can be compared: the metrics that per_query.npz keeps."""


def compare(first: Run, second: Run, *, metric: str = "ndcg_at_10", ranker: str = "fused") -> list[Comparison]:
    """Paired bootstrap of first − second for every kind of queries that both were asked (Efron and Tibshirani, 1993).

    Raises InvalidInput for an unknown metric or ranker, InvalidRun where a run was not evaluated, or where the runs differ in
    data, split or the seed of the split, so that their queries are not the same.
    """
    if metric not in COMPARED:
        raise InvalidInput(f"metric is {metric!r}; accepted are {', '.join(COMPARED)}")
    evaluations = [_evaluated(run) for run in (first, second)]
    _check_same_queries((first, second), evaluations)
    arrays = [read_per_query(run) for run in (first, second)]
    found = []
    for kind in evaluations[0].kinds:
        if kind in evaluations[1].kinds:
            if not np.array_equal(arrays[0][f"{kind}/{ROWS}"], arrays[1][f"{kind}/{ROWS}"]):
                raise InvalidRun(f"{first.folder} and {second.folder} were asked different {kind} queries; evaluate both again")
            mine, theirs = (_values(of_run, kind, ranker, metric) for of_run in arrays)
            difference = bootstrap((mine - theirs)[None, :], evaluations[0].seed)[0]
            found.append(Comparison(kind, len(mine), float(mine.mean()), float(theirs.mean()), difference))
    return found


def _evaluated(run: Run) -> Evaluation:
    evaluation = read_evaluation(run)
    if evaluation is None:
        raise InvalidRun(f"{run.folder} is not evaluated; do it by: python -m train evaluate --run {run.folder}")
    return evaluation


def _check_same_queries(runs: tuple[Run, Run], evaluations: list[Evaluation]) -> None:
    data = [run.record["data"]["fingerprint"] for run in runs]
    for what, (mine, theirs) in {
        "data": data,
        "split": [evaluation.split for evaluation in evaluations],
        "seed of the split": [evaluation.seed for evaluation in evaluations],
    }.items():
        if mine != theirs:
            raise InvalidRun(
                f"{runs[0].folder} and {runs[1].folder} differ in the {what} ({mine} and {theirs}), so their queries are not the "
                "same; compare runs of the same data and seed, evaluated on the same split"
            )


def _values(arrays: Mapping[str, NDArray[Any]], kind: str, ranker: str, metric: str) -> NDArray[np.float64]:
    """(queries,) float64."""
    name = f"{kind}/{ranker}/{SAME_CLASS if metric == CLASS_METRIC else RANKS}"
    if name not in arrays:
        known = sorted({key.split("/")[1] for key in arrays if key.startswith(f"{kind}/") and key.endswith(f"/{RANKS}")})
        missing = f"no {metric} of {ranker!r}" if ranker in known else f"no ranker {ranker!r}; there are {', '.join(known)}"
        raise InvalidInput(f"{missing} for the {kind} queries")
    found = arrays[name]
    return found.astype(np.float64) if metric == CLASS_METRIC else rank_metrics(found.astype(np.int64))[metric]
