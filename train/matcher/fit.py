"""Train a run's matcher: the story from run to the folder ``matcher`` in it."""

from __future__ import annotations

import json
import math
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from bertrec.errors import InvalidData, InvalidRun
from bertrec.matching import MATCHER_FOLDER, Matching, pair_inputs
from train.checkpoint import FILE as CHECKPOINT_FILE
from train.descent import Descent
from train.evaluate import run_dataset, run_examples
from train.examples import UNSEEN
from train.fingerprint import teacher_fingerprint
from train.matcher.lessons import Lessons, lessons_of, tensors
from train.matcher.measure import Told, choose_weight, reranked, tell_apart, verdicts
from train.matcher.network import MATCHER_FILE, Matcher
from train.matcher.settings import MatcherSettings
from train.optimise import Training
from train.passes import Batches, Passes
from train.precision import autocast, loss_scaler
from train.progress import say
from train.rankers import InterestVectors
from train.records import peak_memory_mb, source_commit, write_json, writing
from train.run import Run
from train.states import length_sorted_batches

JUDGING_TEXTS = 1_000
"""Validation texts that the passes are compared by."""
RERANKED_TEXTS = 500
"""Texts of each part whose candidates are reranked: each costs as much as reading ``top`` pairs."""


def fit_matcher(run: Run, settings: MatcherSettings) -> dict[str, Any]:
    """Train a matcher beside the run's encoder, measure it, and leave it in the run's folder ``matcher``; returns its record.

    A finished one of the same settings is returned as it is; an interrupted one continues from its checkpoint. Raises InvalidRun
    where one was trained otherwise, InvalidData where the run's data holds no texts of people.
    """
    started = time.monotonic()
    folder = run.folder / MATCHER_FOLDER
    wanted = {"settings": json.loads(json.dumps(asdict(settings))), "encoder": teacher_fingerprint(run)}
    if (folder / MATCHER_FILE).is_file():
        return _reused(folder, wanted)
    torch.manual_seed(settings.seed)
    dataset = run_dataset(run)
    examples = run_examples(run, dataset)
    interest = InterestVectors.of(run)
    train, validation, test = (
        lessons_of(run, interest, examples.part(part), dataset, settings) for part in ("train", "validation", "test")
    )
    if not len(train):
        raise InvalidData(f"{run.record['source']} has no texts of people for a matcher to read; give interactions a text")
    matcher = Matcher.begin(run.encoder_folder)
    folder.mkdir(parents=True, exist_ok=True)
    training = _train(folder, matcher, train, validation, settings, started, json.dumps(wanted, sort_keys=True))
    with writing(folder):
        matcher.bert.save_pretrained(folder)
    weight = choose_weight(matcher, _sample(validation), precision=settings.precision)
    Matching(settings.item_tokens, settings.top, weight, bool(len(train.judged))).save(folder)
    record = {
        **wanted,
        "source_commit": source_commit(),
        "minutes": round((time.monotonic() - started + training.earlier_s) / 60, 2),
        "steps": training.step,
        "peak_memory_mb": peak_memory_mb(),
        "test": {
            "fits": tell_apart(matcher, test, seed=settings.seed, precision=settings.precision),
            "recommends": verdicts(matcher, test, precision=settings.precision),
            "reranked": reranked(matcher, _sample(test), weight=weight, items=examples.items, precision=settings.precision),
        },
    }
    write_json(folder / MATCHER_FILE, record)
    (folder / CHECKPOINT_FILE).unlink(missing_ok=True)
    return record


def _reused(folder: Path, wanted: dict[str, Any]) -> dict[str, Any]:
    record: dict[str, Any] = json.loads((folder / MATCHER_FILE).read_text(encoding="utf-8"))
    differing = [key for key, value in wanted.items() if record.get(key) != value]
    if differing:
        raise InvalidRun(f"{folder} was trained with another {' and '.join(differing)}. Delete it to train it anew")
    say(f"{folder} is there already, trained with the same settings: reused")
    return record


def _sample(lessons: Lessons) -> Lessons:
    """The first texts whose right item can be found at all; they lie in the order of the split, which is drawn at random."""
    return lessons.take(np.flatnonzero(lessons.items != UNSEEN)[:RERANKED_TEXTS])


def _train(
    folder: Path, matcher: Matcher, train: Lessons, validation: Lessons, settings: MatcherSettings, started: float, guard: str
) -> Training:
    """Learn from every text so many times; the pass that told validation texts apart best is kept."""
    trained = [parameter for parameter in matcher.parameters() if parameter.requires_grad]
    training = Training({"matcher": matcher}, torch.optim.AdamW(trained, lr=0.0, weight_decay=0.01))
    training.descent = Descent(scaler=loss_scaler(settings.precision))
    passes = Passes(
        "training the matcher",
        settings.epochs,
        steps=math.ceil(len(train) / settings.batch_size),
        learning_rate=settings.learning_rate,
        folder=folder,
        guard=guard,
        started=started,
    )
    passes.resume(training)
    judging = validation.take(np.arange(min(len(validation), JUDGING_TEXTS)))

    def begin(epoch: int) -> Batches:
        matcher.train()
        return list(length_sorted_batches(train.lengths, settings.batch_size, np.random.default_rng([settings.seed, 8, epoch])))

    def loss_of(rows: NDArray[np.int64]) -> Tensor:
        with autocast(settings.precision):
            return _loss(matcher, train, rows, np.random.default_rng([settings.seed, 9, training.step]))

    def judged() -> float:
        fits = tell_apart(matcher, judging, seed=settings.seed, precision=settings.precision)
        own = verdicts(matcher, judging, precision=settings.precision)
        told = [one for one in (fits, own) if one]
        say(f"on validation after {training.step} steps: {_sentence('the item fits', fits)}; {_sentence('recommends', own)}")
        return float(np.mean([one["auc"] for one in told])) if told else 0.0

    deadline = None if settings.max_minutes is None else started + 60.0 * settings.max_minutes
    if not passes.learn(training, begin, loss_of, deadline=deadline, judge=judged):
        say(f"the time budget of {settings.max_minutes:g} minutes sufficed for {training.step} of {passes.total} steps")
    training.restore_best()
    matcher.eval()
    return training


def _sentence(what: str, told: Told) -> str:
    return f"{what}: accuracy {told['accuracy']:.3f}, AUC {told['auc']:.3f}" if told else f"{what}: no texts"


def _loss(matcher: Matcher, train: Lessons, rows: NDArray[np.int64], random: np.random.Generator) -> Tensor:
    """Cross-entropy of pairs, half of them wrong, and of the texts alone whose writers gave a verdict."""
    right = random.random(len(rows)) < 0.5
    items = np.where(right, train.items[rows], train.wrong(random, rows))
    loss = _cross_entropy(matcher, train, rows, [train.item_ids[item] for item in items.tolist()], right.astype(np.int64))
    judged = rows[train.verdicts[rows] >= 0]
    if not len(judged):
        return loss
    return loss + _cross_entropy(matcher, train, judged, [[]] * len(judged), train.verdicts[judged])


def _cross_entropy(
    matcher: Matcher, train: Lessons, rows: NDArray[np.int64], items: list[list[int]], labels: NDArray[np.int64]
) -> Tensor:
    logits = matcher.logits(*tensors(pair_inputs([train.tokens[row] for row in rows.tolist()], items)))
    return nn.functional.cross_entropy(logits, torch.from_numpy(labels))
