"""What is asked of a run besides its evaluation: ablation, operating points, corrected spelling, short histories.

Every study is a way of asking and the rankers that answer it, measured as train/measure.py measures. studies.npz in the run
folder keeps them query by query, as per_query.npz does, so that an interrupted benchmark continues and seeds can be pooled.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bertrec.spelling import SpellingCorrector
from train.ablation import ablations, diversified_lists, operating_points, shorter_vectors
from train.baselines.contract import Ranker
from train.data import TEST, VALIDATION, Dataset
from train.evaluate import DIVERSITY, held_out, primary_attribute, ranked, rankers_of, run_examples
from train.examples import UNSEEN, Examples, Pairs
from train.measure import Subject, measured, per_query, whole
from train.movielens import cut_histories
from train.progress import say
from train.queries import QueryContext, typos
from train.rankers import fused_ranker
from train.report import ROWS
from train.run import Run

STUDIES_FILE = "studies.npz"
CREATED, TIMES, COVERAGE, UNLIKE = "created", "times", "coverage_at_10", "diversity_at_10"
KEPT_OF_LISTS = (COVERAGE, UNLIKE)
"""Metrics of whole lists that studies keep, one value each."""
ABLATION = "ablation"
POINTS, VALIDATION_POINTS = "operating points", "operating points, validation"
CORRECTED, TYPOS_CORRECTED = "as-written, corrected", "typos, corrected"
SHORT_HISTORY = 4
DIVERSIFIED, SHORTER = "diversified lists", "shorter interest vectors"
CUT = f"histories cut to {SHORT_HISTORY}"
CUT_BASELINES = ("popularity", "als", "itemknn")

Arrays = Mapping[str, NDArray[Any]]


def run_studies(run: Run, dataset: Dataset) -> Arrays:
    """Every study of one run, on its test queries; read from studies.npz where they lie there, made on this very run.

    ``study/rows``, ``study/ranker/ranks`` and ``study/ranker/same_class`` are as train.report.read_per_query gives them,
    ``study/ranker/metric`` is () float64 for each of ``KEPT_OF_LISTS``, and ``times`` is (queries,) int64: how often the right
    item of each query as written was chosen in training.
    """
    path = run.folder / STUDIES_FILE
    if (known := _read(run)) is not None:
        say(f"{path} is there already: reused")
        return known
    examples = run_examples(run, dataset)
    held = held_out(examples, TEST)
    subject = Subject(dataset, examples, primary_attribute(dataset), int(run.settings["seed"]), run.array(DIVERSITY))
    counted = np.where(held.items == UNSEEN, 0, examples.counts[held.items])
    arrays: dict[str, NDArray[Any]] = {CREATED: np.asarray(run.record["created"]), TIMES: counted}
    for study, queries, rankers in _asked(run, dataset, examples, subject):
        if len(queries):
            say(f"{study}: {len(rankers)} rankers, {len(queries):,} queries")
            answers = measured(study, queries, {ranker.name: ranked(ranker, queries) for ranker in rankers}, subject)
            arrays.update(per_query([answers]))
            for name, metrics in whole(answers, subject).rankers.items():
                for metric in KEPT_OF_LISTS:
                    arrays[f"{study}/{name}/{metric}"] = np.asarray(metrics[metric].value)
    partial = path.with_name(path.name + ".partial")
    with partial.open("wb") as file:
        np.savez_compressed(file, **arrays)
    os.replace(partial, path)
    return arrays


def _asked(run: Run, dataset: Dataset, examples: Examples, subject: Subject) -> Iterator[tuple[str, Pairs, Sequence[Ranker]]]:
    """Each study, its queries and its rankers."""
    test = held_out(examples, TEST)
    fused = fused_ranker(run)
    yield ABLATION, test, [fused, *ablations(fused)]
    yield POINTS, test, operating_points(fused)
    yield DIVERSIFIED, test, diversified_lists(fused)
    yield SHORTER, test, [fused, *shorter_vectors(fused)]
    yield VALIDATION_POINTS, examples.part(VALIDATION), operating_points(fused)
    misspelt = typos(test, QueryContext(dataset, subject.attribute, subject.seed))
    if len(misspelt):  # otherwise the queries have no words of their own
        corrector = SpellingCorrector.load(run.signals_folder)
        yield CORRECTED, corrected(test, corrector), [fused]
        yield TYPOS_CORRECTED, corrected(misspelt, corrector), [fused]
    if any(examples.train.histories):
        titles = [dataset.items[row].title for row in examples.catalogue.tolist()]
        baselines = rankers_of(run, dataset, examples, CUT_BASELINES)[-len(CUT_BASELINES) :]  # the run's own come first
        yield CUT, cut_histories(test, titles, SHORT_HISTORY), [fused, *baselines]


def corrected(queries: Pairs, corrector: SpellingCorrector) -> Pairs:
    """The queries as the served pipeline reads them."""
    return dataclasses.replace(queries, texts=[corrector.correct(text)[0] for text in queries.texts])


def _read(run: Run) -> Arrays | None:
    """The studies of this very run, if they are there."""
    try:
        with np.load(run.folder / STUDIES_FILE, allow_pickle=False) as file:
            arrays = dict(file.items())
    except (OSError, ValueError):
        return None
    return arrays if str(arrays[CREATED]) == run.record["created"] and f"{SHORTER}/{ROWS}" in arrays else None
