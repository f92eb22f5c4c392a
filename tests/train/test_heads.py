"""Heads: what they learn and leave out, one graph of softmaxes, calibration, the same by seed, and what is refused."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from bertrec.errors import InvalidData, InvalidRun
from bertrec.labels import LABELS_FILE, SENTIMENTS, Head, Labels
from tests import tiny
from train.__main__ import main
from train.data import TEST, TRAIN, VALIDATION, Dataset, Interaction, Item, split_interactions
from train.examples import Examples, make_examples
from train.fit import fit
from train.heads import load_heads
from train.heads.learn import learn_head
from train.heads.measure import calibration_error, measure_head
from train.heads.network import Heads, layers
from train.heads.tasks import MIN_TEXTS, UNLABELLED, Task, make_tasks, sentiment_of
from train.run import Run, open_run
from train.settings import PRESETS, Preset


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, tiny_backbone: Path) -> Run:
    """The checkerboard, rated: what comes with ``please`` is liked, what is ``old`` is not. Its items are of two kinds."""
    data = tiny.write_data(tmp_path_factory.mktemp("data") / "rated", per_item=10)
    rated = {"please": 5, "old": 1}
    for name in ("items", "interactions"):
        path = data / f"{name}.jsonl"
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        for row in rows:
            if name == "items":
                row["half"] = "first" if int(row["item_id"]) < tiny.ITEMS // 2 else "second"
            else:
                row["rating"] = next((rating for word, rating in rated.items() if word in row["text"]), 3)
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = dataclasses.replace(PRESETS[Preset.QUICK], backbone=str(tiny_backbone), epochs=1, batch_size=8, max_minutes=None)
    return fit(str(data), settings, tmp_path_factory.mktemp("runs") / "tiny")


@pytest.fixture(scope="module")
def trained(run: Run) -> Run:
    assert main(["heads", "--run", str(run.folder), "--seed", "3"]) == 0
    return run


def copied(run: Run, folder: Path) -> Run:
    return open_run(shutil.copytree(run.folder, folder))


def test_the_command_leaves_one_graph_whose_columns_are_said(trained: Run) -> None:
    network, labels = load_heads(trained)
    # The attribute colour has a value of its own for each item, of 4 or 5 texts: no topic.
    assert labels.heads == (Head("sentiment", SENTIMENTS), Head("half", ("first", "second")))
    vectors = torch.nn.functional.normalize(torch.randn(4, 32, generator=torch.Generator().manual_seed(0)))
    with torch.inference_mode():
        probabilities = network(vectors)
    assert probabilities.shape == (4, 5)
    assert probabilities.dtype == torch.float32
    for columns in labels.slices.values():
        torch.testing.assert_close(probabilities[:, columns].sum(1), torch.ones(4))
    record = json.loads((trained.folder / "heads/metrics.json").read_text())
    assert record["seed"] == 3
    found = record["heads"]["sentiment"]
    assert len(found["others"]) == 3
    assert found["test"]["texts"] == len(split_interactions(dataset_of(trained), 0).test)
    assert found["test"]["majority"] < 0.9


def dataset_of(run: Run) -> Dataset:
    from train.evaluate import run_dataset

    return run_dataset(run)


def test_the_same_seed_gives_the_same_weights_and_another_other_ones(trained: Run, tmp_path: Path) -> None:
    copy = copied(trained, tmp_path / "run")
    weights = (copy.folder / "heads/heads.safetensors").read_bytes()
    (copy.folder / "heads" / next((copy.folder / "heads").glob("vectors-*.npy")).name).unlink()  # read the texts again
    assert main(["heads", "--run", str(copy.folder), "--seed", "3"]) == 0
    assert (copy.folder / "heads/heads.safetensors").read_bytes() == weights
    assert main(["heads", "--run", str(copy.folder), "--seed", "4"]) == 0
    assert (copy.folder / "heads/heads.safetensors").read_bytes() != weights


def test_heads_of_another_encoder_are_refused(trained: Run, tmp_path: Path) -> None:
    copy = copied(trained, tmp_path / "run")
    items = copy.array("items/text")
    copy.save_array("items/text", items + np.float32(1))
    with pytest.raises(InvalidRun, match=r"trained on another encoder .* Delete it and: python -m train heads"):
        load_heads(copy)


def test_missing_broken_and_mismatched_heads_are_refused(trained: Run, tmp_path: Path) -> None:
    copy = copied(trained, tmp_path / "run")
    folder = copy.folder / "heads"
    labels = Labels.load(folder / LABELS_FILE)
    Labels(labels.heads[:1], labels.encoder).save(folder / LABELS_FILE)
    with pytest.raises(InvalidRun, match=r"the weights have \[3, 2\] labels a head"):
        load_heads(copy)
    labels.save(folder / LABELS_FILE)
    weights = folder / "heads.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InvalidRun, match="holds no readable heads"):
        load_heads(copy)
    shutil.rmtree(folder)
    with pytest.raises(InvalidRun, match=r"has no heads; they are made by: python -m train heads"):
        load_heads(copy)


def test_weights_of_both_kinds_of_network_are_read_again(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = Heads([layers(8, 3), layers(8, 2, units=5, dropout=0.5)]).eval()
    vectors = torch.randn(6, 8)
    torch.testing.assert_close(Heads.of_weights(network.state_dict())(vectors), network(vectors))


def drawn_labels(seed: int, texts: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Vectors of length 1, and a label drawn for each by the softmax of its first three components, 8 times as large."""
    random = np.random.default_rng(seed)
    vectors = random.normal(size=(texts, 16)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    logits = 8 * vectors[:, :3] + random.gumbel(size=(texts, 3))
    return vectors, logits.argmax(1).astype(np.int64)


def test_a_head_learns_what_can_be_learned_and_believes_no_more() -> None:
    parts = {TRAIN: drawn_labels(0, 3_000), VALIDATION: drawn_labels(1, 800)}
    targets = {split: part[1] for split, part in parts.items()}
    targets[TRAIN][::50] = UNLABELLED
    task = Task(Head("largest", ("a", "b", "c")), targets)
    best, *others = learn_head(task, {split: part[0] for split, part in parts.items()}, seed=0)
    assert len(others) == 3
    reached = [one.validation.accuracy + one.validation.macro_f1 for one in (best, *others)]
    assert reached == sorted(reached, reverse=True)
    test, right = drawn_labels(9, 4_000)
    with torch.inference_mode():
        probabilities = torch.softmax(best.network(torch.from_numpy(test)), dim=-1).numpy()
    found = measure_head(probabilities, right, task.head)
    known = float((test[:, :3].argmax(1) == right).mean())  # whoever knows how the labels are drawn
    assert known - 0.03 < found.accuracy <= known + 0.01
    assert found.calibration_error < 0.04
    overconfident = torch.softmax(3 * torch.from_numpy(np.log(probabilities)), dim=-1).numpy()
    assert calibration_error(overconfident, right) > 3 * found.calibration_error


def test_measures_are_those_counted_by_hand() -> None:
    probabilities = np.asarray([[0.9, 0.1], [0.9, 0.1], [0.6, 0.4], [0.2, 0.8]], np.float32)
    targets = np.asarray([0, 1, 0, 1])
    found = measure_head(probabilities, targets, Head("sentiment", ("negative", "positive")))
    assert found.accuracy == 0.75
    assert found.majority == 0.5
    assert found.macro_f1 == pytest.approx((0.8 + 2 / 3) / 2, abs=1e-4)
    assert found.negative_auc == found.macro_auc == 0.625  # of four pairs two right, one tied, one wrong
    assert calibration_error(probabilities, targets) == pytest.approx((2 * abs(0.9 - 0.5) + 0.4 + 0.2) / 4, abs=1e-6)


def few(ratings: tuple[float | None, ...], items: tuple[Item, ...]) -> tuple[Dataset, Examples]:
    rows = tuple(
        Interaction(item=number % len(items), text=f"text {number}", rating=ratings[number % len(ratings)], split=TRAIN)
        for number in range(MIN_TEXTS * 6)
    )
    held = tuple(dataclasses.replace(row, split=split) for split in (VALIDATION, TEST) for row in rows[:6])
    dataset = Dataset("few", items, rows + held)
    return dataset, make_examples(dataset, split_interactions(dataset, 0))


def test_labels_come_from_ratings_and_from_attributes_of_one_value() -> None:
    kinds = ("coat", "hat", "coat|hat")
    tasks = make_tasks(*few((1.0, 5.0, 3.0), tuple(Item(str(n), attributes={"kind": kind}) for n, kind in enumerate(kinds))))
    assert [(task.head.name, task.head.labels) for task in tasks] == [("sentiment", SENTIMENTS), ("kind", ("coat", "hat"))]
    assert tasks[0].targets[TEST].tolist() == [0, 2, 1, 0, 2, 1]
    assert tasks[1].targets[TEST].tolist() == [0, 1, UNLABELLED, 0, 1, UNLABELLED]
    assert [sentiment_of(rating) for rating in (2.0, 2.5, 4.0, None)] == ["negative", "neutral", "positive", ""]


@pytest.mark.parametrize("ratings", [(0.0, 5.0), (1.0, 10.0), (1.0, 3.0), (None,)], ids=str)
def test_without_labels_the_data_is_refused(ratings: tuple[float | None, ...]) -> None:
    with pytest.raises(InvalidData, match="'few' gives no head anything to learn; accepted are ratings from 1 to 5"):
        make_tasks(*few(ratings, (Item("0", attributes={"kind": "coat"}), Item("1", attributes={"kind": "coat"}))))
