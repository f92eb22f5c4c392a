"""Multi-task: heads that are learned together with the recommendation, their weights, and the heads that they become."""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from bertrec.errors import InvalidInput
from bertrec.labels import SENTIMENTS, Head
from tests import tiny
from train import descent, optimise
from train.__main__ import main
from train.data import TRAIN
from train.evaluate import evaluate
from train.fit import fit
from train.fit_options import add_options, chosen
from train.heads import load_heads
from train.heads.joint import JOINT_FILE, MULTI_TASK_FOLDER, JointHeads
from train.heads.tasks import UNLABELLED, Task
from train.multi_task import MultiTaskSettings
from train.run import Run, open_run
from train.settings import PRESETS, FitSettings, Preset


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkerboard, rated: ``please`` is liked, ``old`` is not; its items are of two kinds."""
    folder = tiny.write_data(tmp_path_factory.mktemp("data") / "rated", per_item=10)
    rated = {"please": 5, "old": 1}
    for name in ("items", "interactions"):
        path = folder / f"{name}.jsonl"
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        for row in rows:
            if name == "items":
                row["half"] = "first" if int(row["item_id"]) < tiny.ITEMS // 2 else "second"
            else:
                row["rating"] = next((rating for word, rating in rated.items() if word in row["text"]), 3)
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


@pytest.fixture(scope="module")
def settings(tiny_backbone: Path) -> FitSettings:
    settings = dataclasses.replace(PRESETS[Preset.QUICK], backbone=str(tiny_backbone), batch_size=8, max_minutes=None, epochs=6)
    return dataclasses.replace(settings, encoder_learning_rate=2e-3, trained_layers=2, multi_task=MultiTaskSettings(1.0))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, data: Path, settings: FitSettings) -> Run:
    return fit(str(data), settings, tmp_path_factory.mktemp("runs") / "joint")


def test_the_loss_is_the_weighted_sum_over_the_texts_that_have_a_label() -> None:
    tasks = [Task(Head("a", ("x", "y")), {TRAIN: np.asarray([0, 1, UNLABELLED])})]
    tasks.append(Task(Head("b", ("x", "y", "z")), {TRAIN: np.asarray([2, UNLABELLED, UNLABELLED])}))
    torch.manual_seed(0)
    joint = JointHeads(tasks, [0.5, 2.0], [nn.Linear(4, 2), nn.Linear(4, 3)])
    vectors = nn.functional.normalize(torch.randn(3, 4), dim=-1)
    first, second = (head(vectors * 2.0).log_softmax(-1) for head in joint.heads)  # √4
    wanted = -0.5 * (first[0, 0] + first[1, 1]) / 2 - 2.0 * second[0, 2]
    torch.testing.assert_close(joint.loss(vectors, np.asarray([0, 1, 2])), wanted)
    assert float(joint.loss(vectors[2:], np.asarray([2])).detach()) == 0.0


def test_heads_are_learned_together_and_become_the_runs_heads(run: Run) -> None:
    assert evaluate(run, baselines=["none"]).value("fused", "recall_at_1") == 1.0
    assert main(["heads", "--run", str(run.folder), "--heads", "multi-task"]) == 0
    network, labels = load_heads(run)
    assert labels.heads == (Head("sentiment", SENTIMENTS), Head("half", ("first", "second")))
    probabilities = network(nn.functional.normalize(torch.randn(4, 32), dim=-1))
    for columns in labels.slices.values():
        torch.testing.assert_close(probabilities[:, columns].sum(1), torch.ones(4))
    record = json.loads((run.folder / "heads/metrics.json").read_text())
    assert record["kind"] == "multi-task"
    for head in ("sentiment", "half"):
        found = record["heads"][head]
        assert (found["chosen"]["kind"], found["chosen"]["network"]) == ("multi-task", "logistic")
        assert [one["kind"] for one in found["others"]] == ["frozen"] * 4
        assert found["test"]["accuracy"] > found["test"]["majority"]
    assert record["heads"]["sentiment"]["test"]["accuracy"] > 0.9


def test_what_the_heads_want_reaches_the_encoder(run: Run, data: Path, settings: FitSettings, tmp_path: Path) -> None:
    """Without the task the same vectors tell its labels less well, by the very same frozen head."""
    alone = fit(str(data), dataclasses.replace(settings, multi_task=None), tmp_path / "alone")
    assert not np.array_equal(alone.array("items/text"), run.array("items/text"))
    copy = open_run(shutil.copytree(run.folder, tmp_path / "joint", ignore=shutil.ignore_patterns("heads")))
    losses = []
    for one in (alone, copy):
        assert main(["heads", "--run", str(one.folder)]) == 0
        record = json.loads((one.folder / "heads/metrics.json").read_text())
        assert record["kind"] == "frozen"
        found = record["heads"]["sentiment"]
        logistic = [one for one in (found["chosen"], *found["others"]) if one["network"] == "logistic"]
        losses.append(min(one["validation"]["log_loss"] for one in logistic))
    assert losses[1] < losses[0] / 2


def test_an_interrupted_run_continues_to_the_same_heads(
    run: Run, data: Path, settings: FitSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(optimise, "CHECKPOINT_EVERY_S", 0.0)
    move, steps = descent.move, 0

    def interrupted(optimiser: torch.optim.Optimizer, how: descent.Descent = descent.PLAIN) -> None:
        nonlocal steps
        steps += len(optimiser.param_groups) == 2 and optimiser.param_groups[0]["weight_decay"] > 0
        if steps == 15:
            raise KeyboardInterrupt
        move(optimiser, how)

    monkeypatch.setattr(descent, "move", interrupted)
    with pytest.raises(KeyboardInterrupt):
        fit(str(data), settings, tmp_path / "cut")
    monkeypatch.setattr(descent, "move", move)
    continued = fit(str(data), settings, tmp_path / "cut")
    weights = [(one.folder / MULTI_TASK_FOLDER / JOINT_FILE).read_bytes() for one in (run, continued)]
    assert weights[0] == weights[1]


def test_switches_and_what_they_amount_to() -> None:
    parser = argparse.ArgumentParser()
    add_options(parser)

    def read(*given: str) -> object:
        return chosen(parser.parse_args(given)).get("multi_task")

    assert read() is None
    assert read("--heads", "multi-task") == MultiTaskSettings()
    weighed = read("--heads", "multi-task", "--head-weight", "0.3", "--head-weight", "half=0")
    assert weighed == MultiTaskSettings(0.3, (("half", 0.0),))
    assert weighed.of(["sentiment", "half"]) == {"sentiment": 0.3}
    with pytest.raises(InvalidInput, match="--head-weight means nothing without --heads multi-task"):
        read("--head-weight", "1")
    with pytest.raises(InvalidInput, match="--head-weight is 'half=x'; accepted are NUMBER and HEAD=NUMBER"):
        read("--heads", "multi-task", "--head-weight", "half=x")
    for wrong in (-1.0, math.inf, math.nan):
        with pytest.raises(InvalidInput, match="accepted is 0 or more"):
            MultiTaskSettings(wrong)


def test_what_cannot_be_learned_is_said_before_anything_is_written(
    data: Path, settings: FitSettings, tmp_path: Path, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(InvalidInput, match="a weight is given for head 'colour'; the data gives the heads sentiment, half"):
        fit(str(data), dataclasses.replace(settings, multi_task=MultiTaskSettings(weights=(("colour", 1.0),))), tmp_path / "run")
    with pytest.raises(InvalidInput, match="every head has the weight 0"):
        fit(str(data), dataclasses.replace(settings, multi_task=MultiTaskSettings(0.0)), tmp_path / "run")
    assert not (tmp_path / "run").exists()
    without = shutil.copytree(run.folder, tmp_path / "copy", ignore=shutil.ignore_patterns(MULTI_TASK_FOLDER))
    assert main(["heads", "--run", str(without), "--heads", "multi-task"]) == 2
    assert "was trained without heads; those of multi-task are learned by: python -m train fit" in capsys.readouterr().err
