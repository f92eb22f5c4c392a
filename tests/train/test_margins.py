"""MarginMSE: the matcher's margins are learned, computed once, and the same whether or not somebody interrupted."""

from __future__ import annotations

import dataclasses
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from bertrec.errors import InvalidInput, InvalidRun
from bertrec.matching import MATCHER_FOLDER
from tests import tiny
from train.__main__ import main
from train.descent import Descent
from train.evaluate import run_dataset, run_examples
from train.examples import UNSEEN
from train.fit import fit
from train.matcher import MatcherSettings, fit_matcher, lessons
from train.run import Run, open_run
from train.settings import PRESETS, Preset
from train.students import StudentSettings, distil
from train.students import margins as module
from train.students.contract import DEFAULTS, MATCHED
from train.students.margins import Margins, margins_of

MATCHED_FAST = dataclasses.replace(
    DEFAULTS[MATCHED], epochs=4, batch_size=16, learning_rate=3e-3, margin_weight=1.0, embedding_weight=0.0, label_weight=0.0
)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, tiny_backbone: Path) -> Run:
    """The checkerboard with a matcher that knows a little."""
    data = tiny.write_data(tmp_path_factory.mktemp("data") / "checkerboard", per_item=6)
    settings = dataclasses.replace(PRESETS[Preset.QUICK], backbone=str(tiny_backbone), batch_size=8, max_minutes=None)
    run = fit(str(data), settings, tmp_path_factory.mktemp("runs") / "tiny")
    fit_matcher(run, MatcherSettings(epochs=2, batch_size=16, learning_rate=3e-3, item_tokens=8, top=5, precision="fp32"))
    return run


def copied(run: Run, folder: Path) -> Run:
    return open_run(shutil.copytree(run.folder, folder, ignore=shutil.ignore_patterns("students")))


def test_the_loss_is_the_mean_square_of_how_far_margins_differ() -> None:
    odds = np.asarray([[2.0, 1.0, -1.0], [0.0, 3.0, 0.5]], np.float32)
    margins = Margins(np.asarray([1, 3]), np.asarray([0, 2]), np.asarray([[1, 2], [0, 1]]), odds, 2)
    assert margins.wanted.tolist() == [[1.0, 3.0], [-3.0, -0.5]]
    assert margins.places(4).tolist() == [-1, 0, -1, 1]
    scores = torch.tensor([[9.0, 9.0, 9.0], [1.0, 2.0, 4.0], [2.0, 1.0, 0.0]])
    # Of the third row, the first text: margins 1 and 2, wanted 1 and 3. Of the second, text 1: 3 and 2, wanted −3 and −.5.
    assert float(margins.loss(scores, np.asarray([-1, 1, 0]))) == pytest.approx((36 + 6.25 + 0 + 1) / 4)
    assert float(margins.loss(scores, np.asarray([-1, -1, -1]))) == 0.0


def test_a_matched_encoder_comes_nearer_to_the_matchers_margins(run: Run) -> None:
    found = distil(run, MATCHED_FAST).record["validation"]
    assert found["margin_texts"] > 0
    assert found["margin_error"] < 0.8 * found["teacher_margin_error"]


def test_without_a_weight_nothing_pulls_at_the_margins(run: Run, tmp_path: Path) -> None:
    """The margins are what brings the error down: the other terms alone, at which the encoder is best already, do not."""
    copy = copied(run, tmp_path / "run")
    still = dataclasses.replace(MATCHED_FAST, margin_weight=1e-9, embedding_weight=1.0, epochs=1)
    found = distil(copy, still).record["validation"]
    assert found["margin_error"] == pytest.approx(found["teacher_margin_error"], rel=0.2)


def test_margins_are_of_the_candidates_and_never_of_the_right_item(run: Run) -> None:
    examples = run_examples(run)
    margins = margins_of(run, run_dataset(run), examples.train, "train", MATCHED_FAST)
    assert margins.done == len(margins.rows) == len(margins.wanted)
    np.testing.assert_array_equal(margins.chosen, examples.train.items[margins.rows])
    assert not (margins.wrong == margins.chosen[:, None]).any()
    assert not (margins.wrong == UNSEEN).any()
    assert np.unique(margins.odds).size > len(margins.rows)  # what is read differs, and so does what is said


def counting(monkeypatch: pytest.MonkeyPatch, *, fail_at: int | None = None) -> list[int]:
    """Calls of the matcher, as pairs read; one of them is an interruption."""
    real: Callable[..., NDArray[np.float32]] = lessons.answers
    calls: list[int] = []

    def answers(*given: object, **named: object) -> NDArray[np.float32]:
        calls.append(len(given[1]))  # type: ignore[arg-type]
        if len(calls) == fail_at:
            raise KeyboardInterrupt
        return real(*given, **named)

    monkeypatch.setattr(module, "answers", answers)
    return calls


def test_interrupted_margins_are_taken_up_behind_the_last_block(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    examples, dataset = run_examples(run), run_dataset(run)
    monkeypatch.setattr(module, "BLOCK", 32)
    whole = margins_of(copied(run, tmp_path / "whole"), dataset, examples.train, "train", MATCHED_FAST)
    cut = copied(run, tmp_path / "cut")
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        counting(patched, fail_at=3)
        margins_of(cut, dataset, examples.train, "train", MATCHED_FAST)
    calls = counting(monkeypatch)
    continued = margins_of(cut, dataset, examples.train, "train", MATCHED_FAST)
    blocks = -(-len(whole.rows) // 32)
    assert len(calls) == blocks - 2
    np.testing.assert_array_equal(continued.odds, whole.odds)
    np.testing.assert_array_equal(continued.wrong, whole.wrong)
    margins_of(cut, dataset, examples.train, "train", MATCHED_FAST)
    assert len(calls) == blocks - 2  # computed once


def test_an_interrupted_distillation_with_margins_continues_to_the_same_student(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    passes = sys.modules["train.passes"]
    settings = dataclasses.replace(MATCHED_FAST, name="layers-1", epochs=2)
    copy = copied(run, tmp_path / "run")
    weights = distil(copy, settings).folder / "encoder/model.safetensors"
    whole = weights.read_bytes()
    shutil.rmtree(weights.parent.parent)
    monkeypatch.setattr(passes, "CHECKPOINT_EVERY_S", 0.0)
    step, steps = passes.step_down, 0

    def interrupted(optimiser: torch.optim.Optimizer, loss: torch.Tensor, *descent: Descent) -> float:
        nonlocal steps
        steps += 1
        if steps == 12:
            raise KeyboardInterrupt
        return float(step(optimiser, loss, *descent))

    monkeypatch.setattr(passes, "step_down", interrupted)
    with pytest.raises(KeyboardInterrupt):
        distil(copy, settings)
    monkeypatch.setattr(passes, "step_down", step)
    assert distil(copy, settings).folder == weights.parent.parent
    assert weights.read_bytes() == whole


def test_what_cannot_be_learned_is_said(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bare = shutil.copytree(run.folder, tmp_path / "run", ignore=shutil.ignore_patterns("students", MATCHER_FOLDER))
    assert main(["distil", "--run", str(bare), "--student", "matched"]) == 2
    assert "has no matcher whose margins could be learned. Train it: python -m train matcher" in capsys.readouterr().err
    with pytest.raises(InvalidInput, match=r"only the matcher's margins to learn; give them a weight above 0"):
        StudentSettings(MATCHED)
    with pytest.raises(InvalidInput, match="margin_weight is -1; accepted is 0 or more"):
        StudentSettings("layers-1", margin_weight=-1)


def test_another_matcher_and_another_weight_are_refused(run: Run, tmp_path: Path) -> None:
    copy = copied(run, tmp_path / "run")
    settings = dataclasses.replace(MATCHED_FAST, name="static", epochs=1, bigrams=10)
    distil(copy, settings)
    with pytest.raises(InvalidRun, match="trained with another settings and matcher"):
        distil(copy, dataclasses.replace(settings, margin_weight=0.0))
