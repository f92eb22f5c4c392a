"""A disk that is full while weights are written: said as an OSError, with nothing half-written in place of what was whole."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from bertrec.text import TextTokenizer
from tests import tiny
from tests.full_disk import full_disk
from train.adaptation.kinds import Adaptation
from train.adaptation.unsupervised import AdaptationSettings, adapted_encoder
from train.checkpoint import load_checkpoint, save_checkpoint
from train.encoder import Encoder
from train.fit import fit
from train.heads import train_heads
from train.heads.heads import load_heads
from train.matcher import MatcherSettings, fit_matcher, load_matcher
from train.optimise import Training
from train.run import Run
from train.settings import PRESETS, Preset
from train.students import distil
from train.students.contract import DEFAULTS


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, tiny_backbone: Path) -> Run:
    data = tiny.write_data(tmp_path_factory.mktemp("data") / "checkerboard", per_item=4)
    path = data / "interactions.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    rated = [{**row, "rating": 1 + 4 * (number % 2)} for number, row in enumerate(rows)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rated))
    settings = dataclasses.replace(PRESETS[Preset.QUICK], backbone=str(tiny_backbone), batch_size=8, max_minutes=None)
    return fit(str(data), settings, tmp_path_factory.mktemp("runs") / "tiny")


def make_matcher(run: Run) -> object:
    fit_matcher(run, MatcherSettings(epochs=1, batch_size=16, item_tokens=8, top=3, precision="fp32"))
    return load_matcher(run)


def make_student(run: Run) -> object:
    return distil(run, dataclasses.replace(DEFAULTS["layers"], name="layers-1", epochs=1, crops=0)).load()


@pytest.mark.parametrize("make", [make_matcher, make_student])
def test_a_full_disk_is_said_and_room_continues(make: Callable[[Run], object], run: Run) -> None:
    with full_disk(), pytest.raises(OSError, match=r"(matcher|encoder) cannot be written: .*[Ff]ile too large"):
        make(run)
    assert make(run) is not None


def test_heads_that_found_no_room_are_none(run: Run) -> None:
    train_heads(run)
    with full_disk(300), pytest.raises(OSError, match=r"heads.safetensors cannot be written"):
        train_heads(run)
    train_heads(run)
    assert load_heads(run)[1].heads


def test_an_adapted_encoder_that_found_no_room_is_made_anew(tiny_backbone: Path, tmp_path: Path) -> None:
    tokens = TextTokenizer(tiny_backbone / "tokenizer.json", 64).tokenise(["i want that", "and this"])
    wanted = AdaptationSettings(Adaptation.SIMCSE, 1)
    with full_disk(), pytest.raises(OSError, match=r"adapted.partial cannot be written"):
        adapted_encoder(Encoder.load(tiny_backbone), tokens, tmp_path / "adapted", wanted)
    assert not (tmp_path / "adapted").exists()
    assert adapted_encoder(Encoder.load(tiny_backbone), tokens, tmp_path / "adapted", wanted).hidden == 32


def test_a_checkpoint_that_found_no_room_leaves_the_one_before(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def training() -> Training:
        network = torch.nn.Linear(200, 100)
        return Training({"network": network}, torch.optim.AdamW(network.parameters(), lr=0.1))

    first = training()
    first.step = 3
    good = first.trained()["network.weight"].detach().clone()
    save_checkpoint(tmp_path, first, "settings", 1.0)
    first.step = 4
    with torch.no_grad():
        first.trained()["network.weight"].zero_()
    with full_disk():
        save_checkpoint(tmp_path, first, "settings", 2.0)
    assert "no checkpoint was written at step 4" in caplog.text
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint.safetensors"]
    continued = training()
    assert load_checkpoint(tmp_path, continued, "settings")
    assert (continued.step, continued.earlier_s) == (3, 1.0)
    torch.testing.assert_close(continued.trained()["network.weight"].detach(), good, rtol=0, atol=0)
