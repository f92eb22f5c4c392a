"""A run that has everything that can be exported, and its bundle."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from bertrec.bundle import Bundle
from export.build import BuildSettings, build_bundle
from export.verdict import Budgets
from tests import tiny
from train.fit import fit
from train.heads import train_heads
from train.matcher import MatcherSettings, fit_matcher
from train.run import Run
from train.settings import PRESETS, Preset

LENIENT = Budgets(ndcg_loss=1.0, overlap=0.0, shape_cosine=0.0, auc_loss=0.1)
"""For the tiny networks, which int8 moves further than real ones."""


@pytest.fixture(scope="session")
def whole_run(tmp_path_factory: pytest.TempPathFactory, tiny_backbone: Path) -> Run:
    """A run with a matcher and with heads; who says "please" or "again" recommends, and gives five stars instead of one."""
    data = tiny.write_data(tmp_path_factory.mktemp("data") / "checkerboard", per_item=12)
    path = data / "interactions.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    likes = ["please" in row["text"] or "again" in row["text"] for row in rows]
    judged = [{**row, "label": float(like), "rating": 5.0 if like else 1.0} for row, like in zip(rows, likes, strict=True)]
    path.write_text("".join(json.dumps(row) + "\n" for row in judged))
    settings = dataclasses.replace(PRESETS[Preset.QUICK], backbone=str(tiny_backbone), epochs=2, batch_size=8, max_minutes=None)
    run = fit(str(data), settings, tmp_path_factory.mktemp("runs") / "whole")
    fit_matcher(run, MatcherSettings(epochs=8, batch_size=16, learning_rate=3e-3, item_tokens=8, top=5, precision="fp32"))
    train_heads(run)
    return run


@pytest.fixture(scope="session")
def whole_bundle(whole_run: Run, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Everything of the run, and every engine by default; not to be changed."""
    return build_bundle(whole_run, tmp_path_factory.mktemp("bundles") / "whole", BuildSettings(budgets=LENIENT))
