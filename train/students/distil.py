"""Distil a run's encoder into a student: the story from run to student folder."""

from __future__ import annotations

import copy
import hashlib
import json
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from bertrec.errors import InvalidInput, InvalidRun
from train.checkpoint import FILE as CHECKPOINT_FILE
from train.data import TRAIN, VALIDATION, Dataset
from train.encoder import Encoder
from train.evaluate import run_dataset, run_examples
from train.examples import Examples
from train.fingerprint import teacher_fingerprint
from train.optimise import Training
from train.passes import Batches, Passes
from train.progress import progress, say
from train.records import peak_memory_mb, source_commit, write_json, writing
from train.run import Run
from train.states import BATCH, encode_tokens, length_sorted_batches, padded
from train.students.bert import keep_layers, prune
from train.students.contract import (
    MATCHED,
    STATIC,
    STATIC_FILE,
    STUDENT_FILE,
    STUDENTS_FOLDER,
    Student,
    StudentSettings,
    open_student,
    open_students,
)
from train.students.hybrid import HybridEncoder
from train.students.join import join
from train.students.judge import Judge
from train.students.margins import Margins, margins_of, matcher_fingerprint
from train.students.static import StaticEncoder, frequent_pairs
from train.students.teacher import Lessons, prepare_lessons
from train.students.unlabelled import fingerprint_of, read_texts, unlabelled_texts

MARGIN_TEXTS = 500
"""Validation texts whose margins the student is held against: the matcher reads each with several items."""
IMPORTANCE_TEXTS = 1_024
"""Training texts by which heads and units are weighed before pruning."""


def distil(run: Run, settings: StudentSettings, *, texts: Path | None = None) -> Student:
    """Train a student of the run's encoder, and leave it in the run's folder ``students``.

    A finished one of the same settings is returned as it is; an interrupted one continues from its checkpoint.
    texts: a file of texts to learn from without an item, one a line.
    Raises InvalidRun where a student of that name was trained otherwise, InvalidInput for one that the encoder cannot have,
    InvalidData for ``texts`` that cannot be learned from.
    """
    started = time.monotonic()
    folder = run.folder / STUDENTS_FOLDER / settings.name
    given = [] if texts is None else read_texts(texts)
    if given and settings.hybrid:
        raise InvalidInput(f"{settings.name} learns from no texts; give them to {settings.begins_with[0]}")
    wanted = _wanted(run, settings, given)
    if (folder / STUDENT_FILE).is_file():
        return _reused(open_student(folder), wanted)
    dataset = run_dataset(run)
    examples = run_examples(run, dataset)
    unlabelled = unlabelled_texts(run, dataset, examples, given)
    judge = Judge.of(run, examples)
    if settings.hybrid:
        return _joined(run, settings, judge, wanted, started)
    began = time.monotonic()
    margins = _margins(run, dataset, examples, judge, settings)
    asking_s = time.monotonic() - began
    started += asking_s  # no part of max_minutes: without all margins there is nothing to learn
    torch.manual_seed(settings.seed)
    teacher = Encoder.load(run.encoder_folder)
    if not teacher.family.fused:
        raise InvalidInput(f"{run.folder} has a {teacher.bert.config.model_type!r} encoder; students are made of a BERT")
    lessons = prepare_lessons(run, teacher, examples, settings, margins.get(TRAIN), unlabelled)
    student = _begin(run, teacher, lessons, settings)
    folder.mkdir(parents=True, exist_ok=True)
    training = _train(folder, student, lessons, judge, settings, started, json.dumps(wanted, sort_keys=True))
    _save(student, folder)
    minutes = (time.monotonic() - started + training.earlier_s) / 60
    found = judge.compare(run, student, teacher)
    if margins:
        found |= judge.margin_errors(lessons, margins[VALIDATION], student, teacher)
    record = {
        **wanted,
        "minutes_of_margins": round(asking_s / 60, 2),  # of this sitting
        "steps": training.step,
        "unlabelled_texts": len(unlabelled),
    }
    return _recorded(folder, record, found, minutes)


def _joined(run: Run, settings: StudentSettings, judge: Judge, wanted: Mapping[str, object], started: float) -> Student:
    """Two finished students as one; seconds."""
    small, static = (student.load() for student in _finished(run, settings))
    assert isinstance(small, Encoder) and isinstance(static, StaticEncoder)
    joined = join(run, judge, small, static)
    folder = run.folder / STUDENTS_FOLDER / settings.name
    folder.mkdir(parents=True, exist_ok=True)
    _save(joined.network, folder)
    found = judge.compare(run, joined.network, Encoder.load(run.encoder_folder))
    weighed = {"static_weight": joined.network.weight, "ndcg_at_10_by_weight": joined.ndcg}
    return _recorded(folder, {**wanted, **weighed}, found, (time.monotonic() - started) / 60)


def _recorded(folder: Path, record: Mapping[str, object], found: Mapping[str, float], minutes: float) -> Student:
    """The student, finished. found: on validation."""
    cost = {"minutes": round(minutes, 2), "peak_memory_mb": peak_memory_mb()}
    whole = {**record, "source_commit": source_commit(), **cost, "validation": dict(found)}
    write_json(folder / STUDENT_FILE, whole)
    (folder / CHECKPOINT_FILE).unlink(missing_ok=True)
    say(
        f"{folder}: NDCG@10 on validation {found['ndcg_at_10']:.4f} fused, the teacher's {found['teacher_ndcg_at_10']:.4f}; "
        f"mean cosine {found['cosine']:.4f}; {minutes:.1f} minutes"
    )
    return Student(folder, whole)


def _wanted(run: Run, settings: StudentSettings, given: Sequence[str]) -> dict[str, object]:
    """What a student that is there must have been made of, as its record has it. given: texts of a file."""
    wanted: dict[str, object] = {"settings": json.loads(json.dumps(asdict(settings))), "teacher": teacher_fingerprint(run)}
    if settings.margin_weight:
        wanted["matcher"] = matcher_fingerprint(run)
    if settings.begins_with:
        folders = [student.folder for student in _finished(run, settings)]
        weights = [path.read_bytes() for folder in folders for path in sorted(folder.rglob("*.safetensors"))]
        wanted["begins_with"] = hashlib.sha256(b"".join(weights)).hexdigest()
    if given:
        wanted["texts"] = fingerprint_of(given)
    return wanted


def _margins(run: Run, dataset: Dataset, examples: Examples, judge: Judge, settings: StudentSettings) -> dict[str, Margins]:
    """The matcher's margins of the training texts and of some validation texts; nothing where they have no weight."""
    if not settings.margin_weight:
        return {}
    judged = judge.asked.take(np.arange(min(len(judge.tokens), MARGIN_TEXTS)))
    parts = {TRAIN: examples.train, VALIDATION: judged}
    return {part: margins_of(run, dataset, pairs, part, settings) for part, pairs in parts.items()}


def _reused(student: Student, wanted: dict[str, object]) -> Student:
    there = dict(student.record)
    there["settings"] = {**asdict(StudentSettings(STATIC)), **there["settings"]}  # of a student that is older than a setting
    differing = [key for key in dict.fromkeys((*wanted, "matcher", "begins_with", "texts")) if there.get(key) != wanted.get(key)]
    if differing:
        raise InvalidRun(f"{student.folder} was trained with another {' and '.join(differing)}. Delete it to train it anew")
    say(f"{student.folder} is there already, trained with the same settings: reused")
    return student


def _finished(run: Run, settings: StudentSettings) -> list[Student]:
    """The students that another one is made of. Raises InvalidRun where the run does not have one of them."""
    there = {student.name: student for student in open_students(run)}
    for name in settings.begins_with:
        if name not in there:
            raise InvalidRun(
                f"{run.folder} has no finished student {name}, which {settings.name} is made of. "
                f"First: python -m train distil --run {run.folder} --student {name}"
            )
    return [there[name] for name in settings.begins_with]


def _begin(run: Run, teacher: Encoder, lessons: Lessons, settings: StudentSettings) -> nn.Module:
    """The student before its first lesson."""
    if settings.name == MATCHED:
        return copy.deepcopy(teacher)
    if settings.percent:
        larger = _finished(run, settings)
        whole = Encoder.load(larger[0].folder / "encoder") if larger else teacher
        rows = np.random.default_rng([settings.seed, 6]).permutation(lessons.labelled)[:IMPORTANCE_TEXTS]
        say(f"weighing heads and feed-forward units by {len(rows)} texts")
        return prune(whole, settings.percent, _losses(whole, lessons, rows))
    if settings.layers:
        return keep_layers(teacher, settings.layers)
    say("reading every token with the teacher")
    pairs = frequent_pairs([text.ids for text in lessons.tokens], settings.bigrams)
    return StaticEncoder.begin(_token_vectors(teacher, lessons), pairs)


def _losses(teacher: Encoder, lessons: Lessons, rows: NDArray[np.int64]) -> Iterator[Tensor]:
    """The right items' cross-entropy, batch by batch."""
    for positions in length_sorted_batches(lessons.lengths[rows], BATCH):
        part = rows[positions]
        scores = lessons.scores(teacher(*padded([lessons.tokens[row].ids for row in part])))
        yield nn.functional.cross_entropy(scores, torch.from_numpy(lessons.items[part]))


def _token_vectors(teacher: Encoder, lessons: Lessons) -> NDArray[np.float32]:
    """(vocabulary, hidden): what the teacher makes of each token alone, the less the more texts have it (as IDF does)."""
    first = lessons.tokens[0].ids
    start, end = first[0], first[-1]
    vocabulary = int(teacher.bert.config.vocab_size)
    having = np.bincount(np.concatenate([np.unique(text.ids) for text in lessons.tokens]), minlength=vocabulary)
    vectors = np.zeros((vocabulary, teacher.hidden), np.float32)
    teacher.eval()
    with progress("reading tokens", vocabulary) as advance, torch.inference_mode():
        for low in range(0, vocabulary, 512):
            ids = [[start, token, end] for token in range(low, min(low + 512, vocabulary))]
            vectors[low : low + len(ids)] = teacher(*padded(ids)).numpy()
            advance(len(ids))
    rarity = np.log((1 + len(lessons.tokens)) / (1 + having))
    return np.asarray(vectors * (rarity / rarity.max())[:, None], np.float32)


def _train(
    folder: Path, student: nn.Module, lessons: Lessons, judge: Judge, settings: StudentSettings, started: float, guard: str
) -> Training:
    """Learn from every lesson so many times; the pass that ranked validation texts best is kept."""
    student.requires_grad_(True)
    if isinstance(student, Encoder):
        student.bert.embeddings.requires_grad_(False)  # as in fine-tuning; most of the weights, and they cost most of the time
    trained = [parameter for parameter in student.parameters() if parameter.requires_grad]
    training = Training({"student": student}, torch.optim.AdamW(trained, lr=0.0, weight_decay=0.0))
    passes = Passes(
        f"distilling into {settings.name}",
        settings.epochs,
        steps=math.ceil(len(lessons.tokens) / settings.batch_size),
        learning_rate=settings.learning_rate,
        folder=folder,
        guard=guard,
        started=started,
    )
    passes.resume(training)

    def begin(epoch: int) -> Batches:
        student.train()
        random = np.random.default_rng([settings.seed, 7, epoch])
        return list(length_sorted_batches(lessons.lengths, settings.batch_size, random))

    def loss_of(rows: NDArray[np.int64]) -> Tensor:
        input_ids, mask = padded([lessons.tokens[row].ids for row in rows])
        return lessons.loss(student(input_ids, _thinned(mask, settings, training.step)), rows, settings)

    def text_alone() -> float:
        with torch.inference_mode():
            vectors = encode_tokens(student, judge.tokens, "reading validation texts")
            ndcg = judge.ndcg(lessons.scores(torch.from_numpy(vectors)))
        say(f"NDCG@10 on validation after {training.step} steps, text alone: {ndcg:.4f}")
        return ndcg

    deadline = None if settings.max_minutes is None else started + 60.0 * settings.max_minutes
    if not passes.learn(training, begin, loss_of, deadline=deadline, judge=text_alone):
        say(f"the time budget of {settings.max_minutes:g} minutes sufficed for {training.step} of {passes.total} steps")
    training.restore_best()
    return training


def _thinned(mask: Tensor, settings: StudentSettings, step: int) -> Tensor:
    """The mask without a share of the tokens, drawn by the step; the first of each text, [CLS], stays."""
    if not settings.token_dropout:
        return mask
    random = torch.Generator().manual_seed(settings.seed * 1_000_003 + step)
    kept = torch.rand(mask.shape, generator=random) >= settings.token_dropout
    kept[:, 0] = True
    return mask * kept


def _save(student: nn.Module, folder: Path) -> None:
    if isinstance(student, StaticEncoder):
        student.save(folder / STATIC_FILE)
    elif isinstance(student, Encoder):
        if isinstance(student, HybridEncoder):
            student.static.save(folder / STATIC_FILE)
        with writing(folder / "encoder"):
            student.bert.save_pretrained(folder / "encoder")
