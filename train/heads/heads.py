"""Classification heads on a run's encoder, frozen or learned together with it: sentiment and topics.

heads/heads.safetensors     the weights of :class:`train.heads.network.Heads`, temperatures included
heads/metrics.json          what each head reached on validation and test, every candidate on validation, seconds
heads/vectors-<encoder>.npy (texts, hidden) float16: the interest vectors of the run's texts, for the next time
heads/labels.json           see :mod:`bertrec.labels`; written last
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.table import Table
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from bertrec.errors import InvalidBundle, InvalidData, InvalidRun
from bertrec.labels import LABELS_FILE, Labels
from train.data import SPLITS, TEST, VALIDATION
from train.evaluate import run_dataset, run_examples
from train.examples import Examples
from train.fingerprint import teacher_fingerprint
from train.heads.joint import load_joint
from train.heads.learn import Learned, calibrated_head, learn_head
from train.heads.measure import HeadMeasures, measure_head
from train.heads.network import Heads
from train.heads.tasks import UNLABELLED, Task, make_tasks
from train.multi_task import HeadsKind
from train.progress import say
from train.rankers import InterestVectors
from train.records import peak_memory_mb, source_commit, write_json, writing
from train.run import METRICS_FILE, Run

HEADS_FOLDER = "heads"
WEIGHTS_FILE = "heads.safetensors"
HEADS_COMMAND = "python -m train heads --run runs/NAME"


@dataclass(frozen=True)
class TrainedHeads:
    """What was left in the run. test: head → what it reaches on the test split, where that has texts."""

    folder: Path
    labels: Labels
    test: Mapping[str, HeadMeasures]


def train_heads(run: Run, *, seed: int = 0, kind: HeadsKind = HeadsKind.FROZEN) -> TrainedHeads:
    """Learn the heads that the run's data has labels for, and measure them; replaces heads that are there.

    kind: ``multi-task`` takes those that were learned together with the recommendation; what frozen ones reach is recorded too.
    Raises InvalidData where the data has no labels, or a split none of them; InvalidRun where no heads were learned together.
    """
    dataset = run_dataset(run)
    examples = run_examples(run, dataset)
    tasks = make_tasks(dataset, examples)
    joint = None
    if kind is HeadsKind.MULTI_TASK:
        joint = load_joint(run, tasks)
        tasks = [task for task, _ in joint]
    _check(tasks)
    folder = run.folder / HEADS_FOLDER
    folder.mkdir(exist_ok=True)
    (folder / LABELS_FILE).unlink(missing_ok=True)
    started = time.monotonic()
    vectors = _interest_vectors(run, examples, folder)
    read_s = time.monotonic() - started
    learned: list[Learned] = []
    record: dict[str, Any] = {"seed": seed, "source_commit": source_commit(), "threads": torch.get_num_threads(), "heads": {}}
    record["kind"] = kind.value
    for row, task in enumerate(tasks):
        started = time.monotonic()
        candidates = learn_head(task, vectors, seed=seed)
        if joint is not None:
            candidates = [calibrated_head(task, vectors, joint[row][1]), *candidates]
        learned.append(candidates[0])
        record["heads"][task.head.name] = _described(candidates) | {"seconds": round(time.monotonic() - started, 2)}
        say(f"head {task.head.name}: {len(task.head.labels)} labels, learned in {time.monotonic() - started:.1f} s")
    network = Heads([one.network for one in learned]).eval()
    labels = Labels(tuple(task.head for task in tasks), teacher_fingerprint(run))
    test = _measured(network, labels, tasks, vectors[TEST])
    for name, measures in test.items():
        record["heads"][name]["test"] = asdict(measures)
    record |= {"seconds_to_read_texts": round(read_s, 2), "peak_memory_mb": peak_memory_mb()}
    _save(network, folder / WEIGHTS_FILE)
    write_json(folder / METRICS_FILE, record)
    labels.save(folder / LABELS_FILE)
    return TrainedHeads(folder, labels, test)


def load_heads(run: Run) -> tuple[nn.Module, Labels]:
    """The run's heads, (batch, hidden) float32 → (batch, labels) float32 probabilities, and what their columns mean.

    Raises InvalidRun where there are none, where they cannot be read, or where they were trained on other encoder weights.
    """
    folder = run.folder / HEADS_FOLDER
    if not (folder / LABELS_FILE).is_file():
        raise InvalidRun(f"{run.folder} has no heads; they are made by: {HEADS_COMMAND}")
    try:
        labels = Labels.load(folder / LABELS_FILE)
        network = Heads.of_weights(load_file(folder / WEIGHTS_FILE))
        widths = [head[-1].out_features for head in network.heads]  # type: ignore[index]
    except (InvalidBundle, OSError, SafetensorError, KeyError, IndexError, RuntimeError) as error:
        raise InvalidRun(f"{folder} holds no readable heads ({error}). Delete it and: {HEADS_COMMAND}") from None
    if widths != [len(head.labels) for head in labels.heads]:
        raise InvalidRun(f"{folder}: the weights have {widths} labels a head, labels.json others. Delete it and: {HEADS_COMMAND}")
    if labels.encoder != teacher_fingerprint(run):
        raise InvalidRun(
            f"{folder} was trained on another encoder than that of {run.folder}, which was trained since. Delete it and: "
            f"{HEADS_COMMAND}"
        )
    return network, labels


def heads_table(trained: TrainedHeads) -> Table:
    """What the heads reach on the test split."""
    table = Table("head", "labels", "texts", "accuracy", "majority", "macro-F1", "AUC", "AUC negative", "ECE", box=None)
    for head in trained.labels.heads:
        if found := trained.test.get(head.name):
            numbers = (
                found.accuracy,
                found.majority,
                found.macro_f1,
                found.macro_auc,
                found.negative_auc,
                found.calibration_error,
            )
            shown = ("" if number is None else f"{number:.3f}" for number in numbers)
            table.add_row(head.name, str(len(head.labels)), f"{found.texts:,}", *shown)
    return table


def _check(tasks: list[Task]) -> None:
    for task in tasks:
        if not np.any(task.targets[VALIDATION] != UNLABELLED):
            raise InvalidData(f"no validation text has a label of {task.head.name!r}; early stopping and calibration need some")


def _interest_vectors(run: Run, examples: Examples, folder: Path) -> dict[str, NDArray[np.float32]]:
    """Split → (texts, hidden): what the run's encoder makes of each text; read once, then kept."""
    path = folder / f"vectors-{teacher_fingerprint(run)[:12]}.npy"
    sizes = [len(examples.part(split)) for split in SPLITS]
    if path.is_file():
        vectors = np.load(path, allow_pickle=False)
    else:
        vectors = InterestVectors.of(run)([text for split in SPLITS for text in examples.part(split).texts]).astype(np.float16)
        partial = path.with_name(f"{path.name}.partial")
        with partial.open("wb") as file:
            np.save(file, vectors, allow_pickle=False)
        os.replace(partial, path)
    if len(vectors) != sum(sizes):
        raise InvalidRun(
            f"{path} holds {len(vectors)} vectors, and the run has {sum(sizes)} texts. Delete it and: {HEADS_COMMAND}"
        )
    parts = np.split(vectors.astype(np.float32), np.cumsum(sizes)[:-1])
    return dict(zip(SPLITS, parts, strict=True))


def _described(candidates: list[Learned]) -> dict[str, Any]:
    """What metrics.json says of the candidates, the chosen one first."""
    rows = [
        {
            "network": f"{one.units} hidden units" if one.units else "logistic",
            "kind": (HeadsKind.MULTI_TASK if one.joint else HeadsKind.FROZEN).value,
            "weighted": one.weighted,
            "temperature": round(one.temperature, 3),
            "validation": asdict(one.validation),
        }
        for one in candidates
    ]
    return {"chosen": rows[0], "others": rows[1:]}


def _measured(network: Heads, labels: Labels, tasks: list[Task], vectors: NDArray[np.float32]) -> dict[str, HeadMeasures]:
    """Head → what it reaches on texts whose vectors these are, (texts, hidden)."""
    if not len(vectors):
        return {}
    with torch.inference_mode():
        probabilities = network(torch.from_numpy(vectors)).numpy()  # (texts, labels of all heads)
    found = {}
    for task in tasks:
        having = task.targets[TEST] != UNLABELLED
        if having.any():
            columns = labels.slices[task.head.name]
            found[task.head.name] = measure_head(probabilities[having, columns], task.targets[TEST][having], task.head)
    return found


def _save(network: Heads, path: Path) -> None:
    partial = path.with_name(f"{path.name}.partial")
    with writing(path):
        save_file({name: tensor.contiguous() for name, tensor in network.state_dict().items()}, partial)
    os.replace(partial, path)
