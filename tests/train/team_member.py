"""What each of several processes does in tests/train/test_team.py: fits, one of them cut short and continued."""

from __future__ import annotations

import contextlib
import dataclasses
import sys
from pathlib import Path

import pytest
import torch

from train import optimise
from train.adversarial import AdversarialSettings, Adversary
from train.descent import Descent, step_down
from train.fit import fit
from train.precision import Precision
from train.settings import PRESETS, FitSettings, Preset
from train.team import team_of_torchrun

CUT = 25
"""Step of fine-tuning before which a run is cut short; a pass has 16."""


def settings_of(backbone: Path) -> FitSettings:
    """Two passes of 16 steps, the last of each with one text, so that a process has none."""
    return dataclasses.replace(PRESETS[Preset.QUICK], backbone=str(backbone), epochs=2, batch_size=8, max_minutes=None)


def tools_of(backbone: Path) -> FitSettings:
    """The same in fp16, with weighed texts and an adversary."""
    adversary = AdversarialSettings(Adversary.FGM)
    return dataclasses.replace(
        settings_of(backbone), epochs=1, precision=Precision.FP16, adversarial=adversary, weigh_by_sentiment=True
    )


def main(data: str, steady: Path, dropping: Path, runs: Path) -> None:
    """steady, dropping: backbones without dropout and with it."""
    with team_of_torchrun() as team:
        fit(data, settings_of(steady), runs / "steady", team=team)
        fit(data, tools_of(steady), runs / "tools", team=team)
        fit(data, settings_of(dropping), runs / "whole", team=team)
        steps = 0

        def interrupted(optimiser: torch.optim.Optimizer, loss: torch.Tensor, *descent: Descent) -> float:
            nonlocal steps
            steps += len(descent)  # not those of the item vectors alone
            if steps == CUT:
                raise KeyboardInterrupt
            return step_down(optimiser, loss, *descent)

        with pytest.MonkeyPatch.context() as patch, contextlib.suppress(KeyboardInterrupt):
            patch.setattr(optimise, "step_down", interrupted)
            patch.setattr(optimise, "CHECKPOINT_EVERY_S", 0.0)
            fit(data, settings_of(dropping), runs / "cut", team=team)
        assert steps == CUT
        team.wait()
        fit(data, settings_of(dropping), runs / "cut", team=team)


if __name__ == "__main__":
    main(sys.argv[1], *map(Path, sys.argv[2:]))
