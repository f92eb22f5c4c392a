"""Which pass of fine-tuning is kept, when one ranked worse than the one before, or the deadline cut it short."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from tests import tiny
from train import fine_tuning, optimise
from train.descent import Descent, step_down
from train.fine_tuning import TUNING_SHARE
from train.fit import fit
from train.optimise import FineTuning, fine_tune
from train.settings import PRESETS, FitSettings, Preset

STEPS_A_PASS = 16


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_data(tmp_path_factory.mktemp("data") / "checkerboard", per_item=6)


@pytest.fixture
def settings(tiny_backbone: Path) -> FitSettings:
    return dataclasses.replace(PRESETS[Preset.QUICK], backbone=str(tiny_backbone), epochs=4, batch_size=8, max_minutes=None)


def judge_by(values: Iterator[float], monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Have the passes ranked by these values; returns those that were asked for."""
    asked: list[float] = []

    def gains(scores: Tensor, right: Tensor) -> Tensor:
        asked.append(next(values))
        return torch.full((len(right),), asked[-1])

    monkeypatch.setattr(fine_tuning, "gains", gains)
    return asked


def test_a_run_that_stopped_early_and_was_killed_later_trains_no_further(
    data: Path, settings: FitSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    judge_by(iter([0.5, 0.25]), monkeypatch)
    whole = fit(str(data), settings, tmp_path / "whole")
    asked = judge_by(iter([0.5, 0.25, 0.75, 0.875]), monkeypatch)

    def killed(*given: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr("train.fit._weigh", killed)
        fit(str(data), settings, tmp_path / "cut")
    continued = fit(str(data), settings, tmp_path / "cut")
    assert asked == [0.5, 0.25]
    np.testing.assert_array_equal(whole.array("items/text"), continued.array("items/text"))


@pytest.mark.parametrize("cut_short", [0.25, 0.75])
def test_a_pass_that_the_deadline_cuts_short_is_judged_like_the_others(
    cut_short: float, data: Path, settings: FitSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A clock on which the budget suffices for one pass and a half."""
    clock, kept = [0.0], []

    def slow_step(optimiser: torch.optim.Optimizer, loss: Tensor, *descent: Descent) -> float:
        clock[0] += 6.0 * (len(optimiser.param_groups) == 2)  # the encoder's and the items'
        return step_down(optimiser, loss, *descent)

    def watched(tuning: FineTuning, *given: object) -> bool:
        in_time = fine_tune(tuning, *given)  # type: ignore[arg-type]  # what it is given
        kept.append((tuning.step, tuning.best_ndcg, torch.equal(tuning.side.vectors, tuning.best["items.vectors"])))
        return in_time

    monkeypatch.setattr(optimise, "step_down", slow_step)
    monkeypatch.setattr(fine_tuning, "fine_tune", watched)
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    asked = judge_by(iter([0.5, cut_short]), monkeypatch)
    minutes = 1.5 * STEPS_A_PASS * 6.0 / 60 / TUNING_SHARE
    fit(str(data), dataclasses.replace(settings, epochs=2, max_minutes=minutes), tmp_path / "run")
    assert asked == [0.5, cut_short]
    ((step, best, is_best),) = kept
    assert STEPS_A_PASS < step < 2 * STEPS_A_PASS
    assert best == max(asked) and is_best
