"""What the matcher's engines lost: held-out texts with the right item, with a wrong one, and alone, and what they cost."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import bootstrap, rankdata

from bertrec.bundle import REFERENCE_ENGINE, EngineRecord
from bertrec.engine import OnnxEngine
from bertrec.errors import InvalidBundle
from bertrec.matching import Matching, pair_inputs, probabilities
from bertrec.tensors import MATCHER, PROBABILITY
from bertrec.text import BUCKETS, Tokens, clean
from export.shapes import EXTREMES, Shapes, largest_difference, probe
from export.timing import TimingSettings, time_readers
from export.verdict import IS_REFERENCE, PASSED, REJECTED, SAID_OF_FINITE, Budgets
from train.data import TEST, Dataset
from train.examples import UNSEEN, Examples
from train.matcher import Matcher, MatcherSettings
from train.matcher.lessons import UNKNOWN, Lessons, answers, lessons_of
from train.precision import Precision
from train.progress import say
from train.rankers import InterestVectors
from train.run import Run

TEXTS = 500
"""Held-out texts that are read alone; half of them are read with the right item, and with a wrong one that the run recommends."""
SEED = 0
RESAMPLES = 1_000
BY_PYTORCH = slice(None, None, 8)
"""PyTorch reads one pair in eight: enough to tell that the export is the same network."""
EXPORT_TOLERANCE = 1e-3
"""A reference whose probabilities are further from PyTorch's is another network."""
TIMING = TimingSettings(single_texts=16, batched_texts=64, max_seconds=20.0)

Ask = Callable[[Mapping[str, NDArray[Any]]], Mapping[str, NDArray[Any]]]
Pair = tuple[Tokens, list[int]]
"""The token ids of a text, and those of an item behind it, which are empty for a text alone."""


@dataclass(frozen=True)
class PairQuestions:
    """What the engines are asked, by kind: ``fits``, pairs of which half are right, and ``recommends``, texts alone.

    labels: kind → (pairs,) 1, 0, or UNKNOWN where a writer gave no verdict. odd: pairs that no engine may break at. longest:
    tokens that a pair may have. held_out: False where the matcher was trained on the texts: then they tell parity and no more.
    """

    pairs: Mapping[str, list[Pair]]
    labels: Mapping[str, NDArray[np.int64]]
    odd: list[Pair]
    longest: int
    held_out: bool

    @property
    def asked(self) -> list[Pair]:
        """All pairs, kind after kind."""
        return [pair for pairs in self.pairs.values() for pair in pairs]

    def judged(self, found: NDArray[np.float32]) -> dict[str, tuple[NDArray[np.int64], NDArray[np.float32]]]:
        """Kind → labels and the probabilities that go with them, of (asked,) probabilities; where both labels occur."""
        kinds, start = {}, 0
        for kind, labels in self.labels.items():
            known = labels != UNKNOWN
            if set(labels[known].tolist()) == {0, 1} and self.held_out:
                kinds[kind] = labels[known], found[start : start + len(labels)][known]
            start += len(labels)
        return kinds


@dataclass(frozen=True)
class Told:
    """One engine's answers: (asked,) float32 probabilities, what the shape of a batch changes, no NaN at odd pairs either."""

    probability: NDArray[np.float32]
    shapes: Shapes
    finite: bool


def pair_questions(run: Run, matching: Matching, *, dataset: Dataset, examples: Examples) -> PairQuestions:
    """Up to TEXTS texts of the test split; training texts where nothing was held out."""
    test = examples.part(TEST)
    pairs = test if len(test) else examples.train
    settings = MatcherSettings(item_tokens=matching.item_tokens, top=matching.top, precision=Precision.FP32.value)
    interest = InterestVectors.of(run)
    lessons = lessons_of(run, interest, pairs.take(np.arange(min(len(pairs), TEXTS))), dataset, settings)
    known = lessons.take(np.flatnonzero(lessons.items != UNSEEN)[: TEXTS // 2])
    wrong = known.wrong(np.random.default_rng(SEED), np.arange(len(known)))
    odd = interest.tokenizer.tokenise([clean(text) for text in EXTREMES.values()])
    return PairQuestions(
        pairs={
            "fits": [*_with(known, known.items), *_with(known, wrong)],
            "recommends": [(text, []) for text in lessons.tokens],
        },
        labels={"fits": np.repeat(np.asarray([1, 0], np.int64), len(known)), "recommends": lessons.verdicts},
        odd=[(text, item) for text in odd for item in (lessons.item_ids[0], [])],
        longest=run.settings["max_tokens"] + matching.item_tokens,
        held_out=bool(len(test)),
    )


def gate_matcher(
    folder: Path, records: Sequence[EngineRecord], questions: PairQuestions, *, matcher: Matcher, budgets: Budgets
) -> list[EngineRecord]:
    """The records, the reference first, with what was measured of each engine, its verdict and its times on this machine.

    Raises InvalidBundle where the reference departs from PyTorch: then nothing that is measured against it means anything.
    """
    engines = {record.name: OnnxEngine(folder / record.file, MATCHER) for record in records}
    torch_found = answers(
        matcher, *_apart(questions.asked[BY_PYTORCH]), "reading pairs with PyTorch", precision=Precision.FP32.value
    )
    told = {}
    for name, engine in engines.items():
        say(f"reading {len(questions.asked)} held-out pairs and texts with the matcher {name}")
        told[name] = measure_matcher(engine.run, questions)
    reference = told[REFERENCE_ENGINE]
    if (moved := largest_difference(reference.probability[BY_PYTORCH], torch_found)) > EXPORT_TOLERANCE or not reference.finite:
        raise InvalidBundle(
            f"the matcher's engine {REFERENCE_ENGINE} is not what it was exported from: a probability differs by {moved:.5f} "
            f"from PyTorch's, accepted {EXPORT_TOLERANCE:g}, {SAID_OF_FINITE[float(reference.finite)]}. The exporter of this "
            "version of torch gives another network; install the versions of constraints.txt"
        )
    readers = {name: partial(_read, engine.run) for name, engine in engines.items()}
    times = time_readers(readers, questions.asked, reference=REFERENCE_ENGINE, length=_length, settings=TIMING)
    judged = []
    for record in records:
        found, is_reference = told[record.name], record.name == REFERENCE_ENGINE
        distances = matcher_parity(found, reference, torch_found)
        quality = matcher_quality(found, questions, reference=None if is_reference else reference)
        verdict, why = (IS_REFERENCE, "") if is_reference else judge_matcher(quality, distances, budgets)
        judged.append(
            dataclasses.replace(
                record,
                batch_invariant=found.shapes.batch_invariant,
                parity=distances,
                quality=quality,
                latency=times[record.name].as_latency(),
                verdict=verdict,
                why=why,
            )
        )
    return judged


def measure_matcher(run: Ask, questions: PairQuestions) -> Told:
    """Ask one engine everything, the way serving would."""
    odd = [read_pairs(run, [pair], _length(pair)) for pair in questions.odd]
    odd.append(probabilities(run, *_apart(questions.odd)))
    shapes = probe(
        partial(read_pairs, run), questions.asked, length=_length, bucket=lambda length: _bucket(min(length, questions.longest))
    )
    found = probabilities(run, *_apart(questions.asked))
    return Told(found, shapes, bool(np.isfinite(np.concatenate([found, *(one.reshape(-1) for one in odd)])).all()))


def read_pairs(run: Ask, pairs: Sequence[Pair], length: int) -> NDArray[np.float32]:
    """(pairs, 1) float32: all read at once, padded to ``length``."""
    found: NDArray[np.float32] = run(pair_inputs(*_apart(pairs), length))[PROBABILITY.name]
    return found


def matcher_parity(found: Told, reference: Told, torch_found: NDArray[np.float32]) -> dict[str, float]:
    """Distances to the reference engine and to PyTorch; none is NaN."""
    difference = np.abs(found.probability - reference.probability)
    return {
        "probability_difference_max": largest_difference(found.probability, reference.probability),
        "probability_difference_mean": float(np.nan_to_num(difference, nan=1.0).mean()),
        "probability_difference_to_torch_max": largest_difference(found.probability[BY_PYTORCH], torch_found),
        "decision_agreement": float(((found.probability > 0.5) == (reference.probability > 0.5)).mean()),
        "batch_difference_max": found.shapes.batch_difference,
        "padding_difference_max": found.shapes.padding_difference,
        "finite": float(found.finite),
    }


def matcher_quality(found: Told, questions: PairQuestions, *, reference: Told | None) -> dict[str, float]:
    """The area under the ROC curve of each kind; with a reference also the difference, with its paired 95% interval.

    Empty where nothing was held out. The interval is that of a bootstrap over the pairs (Efron and Tibshirani, 1993).
    """
    if not found.finite:
        return {}
    quality: dict[str, float] = {}
    before = questions.judged(reference.probability) if reference is not None else {}
    for kind, (labels, probability) in questions.judged(found.probability).items():
        quality[f"{kind}_texts"] = float(len(labels))
        quality[f"{kind}_auc"] = float(_auc(labels, probability))
        if kind in before:
            other = before[kind][1]
            low, high = _interval(labels, probability, other)
            quality[f"{kind}_auc_difference"] = quality[f"{kind}_auc"] - float(_auc(labels, other))
            quality[f"{kind}_auc_difference_low"], quality[f"{kind}_auc_difference_high"] = low, high
    return quality


def judge_matcher(quality: Mapping[str, float], distances: Mapping[str, float], budgets: Budgets) -> tuple[str, str]:
    """Verdict and why: whether too much AUC is lost, by the point estimate, and whether it decides as the reference does."""
    findings = []
    for kind in ("fits", "recommends"):
        if (lost := quality.get(f"{kind}_auc_difference")) is not None:
            low, high = (0.0 - quality[f"{kind}_auc_difference_{end}"] for end in ("high", "low"))
            said = f"AUC of {kind} {0.0 - lost:+.4f} lost (accepted {budgets.auc_loss:g}; 95% interval {low:+.4f} to {high:+.4f})"
            findings.append((-lost <= budgets.auc_loss, said))
    alike = distances["decision_agreement"]
    findings.append((alike >= budgets.overlap, f"decides alike on {alike:.3f} of the texts (accepted {budgets.overlap:g})"))
    findings.append((distances["finite"] == 1.0, SAID_OF_FINITE[distances["finite"]]))
    wrong = "; ".join(said for good, said in findings if not good)
    return (REJECTED, wrong) if wrong else (PASSED, "; ".join(said for _, said in findings))


def _interval(labels: NDArray[np.int64], probability: NDArray[np.float32], other: NDArray[np.float32]) -> tuple[float, float]:
    """The 95% interval of the difference of two AUC, over resamples of the pairs."""
    found = bootstrap(
        (labels, probability, other),
        lambda labels, one, two, axis: _auc(labels, one, axis) - _auc(labels, two, axis),
        n_resamples=RESAMPLES,
        paired=True,
        vectorized=True,
        method="percentile",
        random_state=np.random.default_rng(SEED),
    )
    return float(found.confidence_interval.low), float(found.confidence_interval.high)


def _auc(labels: NDArray[np.int64], probability: NDArray[np.float32], axis: int = -1) -> NDArray[np.float64]:
    """The area under the ROC curve along an axis, by ranks (Mann and Whitney, 1947); one half where there is one label only.

    For thousands of resamples at once, which scikit-learn would do one by one.
    """
    ranks = rankdata(probability, axis=axis)
    yes = labels.sum(axis=axis)
    pairs = yes * (labels.shape[axis] - yes)
    above = (ranks * labels).sum(axis=axis) - yes * (yes + 1) / 2
    return np.where(pairs > 0, above / np.maximum(pairs, 1), 0.5)


def _with(lessons: Lessons, items: NDArray[np.int64]) -> list[Pair]:
    return [(text, lessons.item_ids[item]) for text, item in zip(lessons.tokens, items.tolist(), strict=True)]


def _apart(pairs: Sequence[Pair]) -> tuple[list[Tokens], list[list[int]]]:
    return [text for text, _ in pairs], [item for _, item in pairs]


def _read(run: Ask, pairs: Sequence[Pair]) -> None:
    probabilities(run, *_apart(pairs))


def _length(pair: Pair) -> int:
    return len(pair[0].ids) + len(pair[1])


def _bucket(length: int) -> int:
    return next((size for size in BUCKETS if size >= length), length)
