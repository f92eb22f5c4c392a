"""Two real processes that train one recommender: what one would have learned, and what they continue."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open

from tests import tiny
from tests.train.team_member import settings_of, tools_of
from train.__main__ import main
from train.checkpoint import FILE as CHECKPOINT_FILE
from train.fit import fit
from train.precision import Precision, autocast, dtype_of, loss_scaler
from train.run import open_run
from train.team import ALONE, Team, training_device

ARRAYS = ("items/text", "items/lexical", "items/prior", "zero_shot/texts", "maps/text")
DECOMPOSED = ("items/lexical",)
"""Those whose directions are of a decomposition."""
CHECKOUT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_data(tmp_path_factory.mktemp("data") / "checkerboard", per_item=6)


@pytest.fixture(scope="module")
def steady(tmp_path_factory: pytest.TempPathFactory, tiny_backbone: Path) -> Path:
    """A backbone without dropout, whose random numbers would differ with the number of processes."""
    folder = shutil.copytree(tiny_backbone, tmp_path_factory.mktemp("backbone") / "steady")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}))
    return folder


def torchrun(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Two processes; they and their launcher are gone when this returns."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        command, cwd=CHECKOUT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as launcher:
        try:
            out, err = launcher.communicate(timeout=120)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(launcher.pid, signal.SIGKILL)
    return subprocess.CompletedProcess(command, launcher.returncode, out, err)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, data: Path, steady: Path, tiny_backbone: Path) -> Path:
    """What two processes left."""
    folder = tmp_path_factory.mktemp("runs")
    done = torchrun("-m", "tests.train.team_member", str(data), str(steady), str(tiny_backbone), str(folder))
    assert done.returncode == 0, done.stderr
    return folder


def test_two_processes_learn_what_one_does(runs: Path, data: Path, steady: Path, tmp_path: Path) -> None:
    alone, together = fit(str(data), settings_of(steady), tmp_path / "alone"), open_run(runs / "steady")
    for name in ARRAYS:
        found, wanted = together.array(name), alone.array(name)
        # A decomposition leaves the sign of a direction open, and by how many threads it was made may decide.
        signs = np.where((found * wanted).sum(0) < 0, -1, 1) if name in DECOMPOSED else 1
        np.testing.assert_allclose(found * signs, wanted, rtol=1e-4, atol=5e-5 if name in DECOMPOSED else 1e-5)
    fusion = alone.record["fusion"]  # its weights are found by steps, in the last digit of which the arrays' differences show
    assert together.record["fusion"] == {**fusion, "weights": pytest.approx(fusion["weights"], abs=2e-4)}
    with safe_open(alone.encoder_folder / "model.safetensors", "pt") as one:
        with safe_open(together.encoder_folder / "model.safetensors", "pt") as other:
            for name in one.keys():  # noqa: SIM118  # it is no dictionary
                torch.testing.assert_close(other.get_tensor(name), one.get_tensor(name), rtol=1e-3, atol=1e-5)


def test_with_weights_an_adversary_and_fp16_too(runs: Path, data: Path, steady: Path, tmp_path: Path) -> None:
    alone, together = fit(str(data), tools_of(steady), tmp_path / "alone"), open_run(runs / "tools")
    exact = fit(str(data), settings_of(steady), tmp_path / "exact").array("items/text")
    difference = np.abs(together.array("items/text") - alone.array("items/text")).max()
    assert difference < 0.02 * np.abs(alone.array("items/text") - exact).max()  # half precision rounds shares otherwise


def test_two_processes_continue_to_the_same_result(runs: Path) -> None:
    whole, cut = open_run(runs / "whole"), open_run(runs / "cut")
    for name in ARRAYS:
        np.testing.assert_array_equal(whole.array(name), cut.array(name))
    steady = open_run(runs / "steady")
    assert not np.array_equal(whole.array("items/text"), steady.array("items/text"))  # there was dropout indeed
    assert not (runs / "cut" / CHECKPOINT_FILE).exists()


def test_the_command_line_speaks_and_writes_once(data: Path, tiny_backbone: Path, tmp_path: Path) -> None:
    arguments = ["--data", str(data), "--backbone", str(tiny_backbone), "--output", str(tmp_path / "run")]
    done = torchrun("-m", "train", "fit", *arguments)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("trained in") == 1
    assert open_run(tmp_path / "run").finished
    assert len(list((tmp_path / "run" / "logs").iterdir())) == 1  # one process kept curves


def test_what_runs_in_one_process_is_refused_in_several(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("train.__main__.team_of_torchrun", lambda: contextlib.nullcontext(Team(0, 2)))
    assert main(["heads", "--run", str(tmp_path)]) == 2
    assert capsys.readouterr().err.startswith("error: heads runs in one process; start it without torchrun")


def test_shares_are_alike_and_whole() -> None:
    rows = np.arange(7)
    shares = [Team(rank, 3).share_of(rows).tolist() for rank in range(3)]
    assert shares == [[0, 3, 6], [1, 4], [2, 5]]
    assert ALONE.share_of(rows).tolist() == rows.tolist()
    assert (ALONE.agree(0.5), ALONE.total(0.25), ALONE.leads) == (0.5, 0.25, True)


def test_the_device_decides_the_precision_and_whether_losses_are_scaled(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a GPU would get; none ran it."""
    cpu, gpu = torch.device("cpu"), torch.device("cuda", 0)
    monkeypatch.setattr("train.precision.computes_bf16", lambda: False)
    assert dtype_of(Precision.AUTO, cpu) is torch.float32
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: True)
    assert dtype_of(Precision.AUTO, gpu) is torch.bfloat16
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: False)
    assert dtype_of(Precision.AUTO, gpu) is torch.float16
    scaled = [precision for precision in Precision if loss_scaler(precision, cpu).is_enabled()]
    assert scaled == [Precision.FP16]
    with autocast(Precision.FP16, cpu):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype is torch.float16
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert training_device() == torch.device("cuda", 1)
