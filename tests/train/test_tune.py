"""A search over settings: what it leaves, and that a killed one ends where one that was never killed does."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

from bertrec.errors import InvalidInput, InvalidRun
from tests import tiny
from train.__main__ import main
from train.backbones import FAMILIES
from train.run import open_run
from train.settings import PRESETS, FitSettings, Preset
from train.tune import BATCH_SIZES, ENCODER_RATES, STORAGE_FILE, STUDY_FILE, TEXT_SCALES, Tuned, TuneSettings, tune

TRIALS = 3


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_data(tmp_path_factory.mktemp("data") / "checkerboard", per_item=6)


@pytest.fixture(scope="module")
def base(tiny_backbone: Path) -> FitSettings:
    return dataclasses.replace(PRESETS[Preset.QUICK], backbone=str(tiny_backbone))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, data: Path, base: FitSettings) -> Tuned:
    """A search that was never interrupted."""
    return tune(str(data), TuneSettings(base, TRIALS), tmp_path_factory.mktemp("runs") / "tune")


def test_the_best_run_is_kept_and_the_others_are_not(whole: Tuned) -> None:
    assert len(whole.trials) == TRIALS
    assert whole.ndcg_at_10 == max(trial.value or 0.0 for trial in whole.trials) > 0.9
    assert [folder.name for folder in whole.best.folder.parent.iterdir()] == [whole.best.folder.name]
    assert whole.best.record["fusion"]["validation_ndcg_at_10"] == whole.ndcg_at_10
    record = json.loads((whole.best.folder.parent.parent / STUDY_FILE).read_text())
    assert whole.best.folder.parent.parent / record["best"]["folder"] == whole.best.folder
    assert [trial["ndcg_at_10"] for trial in record["trials"]] == [trial.value for trial in whole.trials]
    chosen = record["best"]["settings"]
    assert whole.best.settings["encoder_learning_rate"] == chosen["encoder_learning_rate"]
    assert ("graph" in whole.best.settings["without"]) is not chosen["graph"]


def test_the_trials_differ_and_stay_in_what_is_searched(whole: Tuned) -> None:
    rates = [trial.params["encoder_learning_rate"] for trial in whole.trials]
    assert len(set(rates)) == TRIALS
    assert all(ENCODER_RATES[0] <= rate <= ENCODER_RATES[1] for rate in rates)
    scales = {trial.params["text_scale"] for trial in whole.trials}
    assert len(scales) == TRIALS and all(TEXT_SCALES[0] <= scale <= TEXT_SCALES[1] for scale in scales)
    assert whole.best.settings["text_scale"] in scales
    assert {trial.params["batch_size"] for trial in whole.trials} <= set(BATCH_SIZES)


def test_a_killed_search_continues_to_the_same_end(whole: Tuned, data: Path, base: FitSettings, tmp_path: Path) -> None:
    output = tmp_path / "tune"
    arguments = ["tune", "--data", str(data), "--backbone", base.backbone, "--output", str(output), "--trials", str(TRIALS)]
    killed = subprocess.Popen([sys.executable, "-m", "train", *arguments], stderr=subprocess.PIPE, start_new_session=True)
    try:
        _wait_for_a_trial_at_work(killed, output)
    finally:
        os.kill(killed.pid, signal.SIGKILL)
        killed.communicate()
    continued = tune(str(data), TuneSettings(base, TRIALS), output)
    assert [trial.params for trial in continued.trials] == [trial.params for trial in whole.trials]
    assert [trial.value for trial in continued.trials] == [trial.value for trial in whole.trials]
    states = [trial.state for trial in optuna.load_study(study_name="tune", storage=f"sqlite:///{output / STORAGE_FILE}").trials]
    assert states == [TrialState.FAIL] + TRIALS * [TrialState.COMPLETE]  # the killed one, proposed again
    assert continued.best.folder.name == whole.best.folder.name
    assert [folder.name for folder in (output / "trials").iterdir()] == [whole.best.folder.name]


def _wait_for_a_trial_at_work(process: subprocess.Popen[bytes], output: Path) -> None:
    """Return once the first trial has begun to train."""
    until = time.monotonic() + 60.0
    while time.monotonic() < until:
        assert process.poll() is None, (process.stderr or open(os.devnull, "rb")).read().decode()
        if any((output / "trials").glob("*/run.json")):
            return
        time.sleep(0.01)
    pytest.fail("no trial began within a minute")


def test_a_finished_search_is_shown_and_more_trials_may_be_added(
    whole: Tuned, data: Path, base: FitSettings, capsys: pytest.CaptureFixture[str]
) -> None:
    output = whole.best.folder.parent.parent
    arguments = ["tune", "--data", str(data), "--backbone", base.backbone, "--output", str(output), "--trials"]
    page = output.parent / "tune.md"
    assert main([*arguments, str(TRIALS), "--page", str(page)]) == 0
    assert f"{TRIALS} trials by NDCG@10" in capsys.readouterr().out
    rows = [line.split("|")[1:-1] for line in page.read_text().splitlines() if line.startswith("| ")]
    assert [name.strip() for name in rows[0]] == ["NDCG@10", *(name.replace("_", " ") for name in whole.trials[0].params)]
    shown = [float(row[0]) for row in rows[2:]]
    assert shown == pytest.approx(sorted((trial.value or 0.0 for trial in whole.trials), reverse=True), abs=5e-5)
    assert "all drawn at random. A trial is a training run, judged by NDCG@10" in page.read_text()
    assert open_run(whole.best.folder).finished


def test_what_is_no_study_is_refused(whole: Tuned, data: Path, base: FitSettings) -> None:
    output = whole.best.folder.parent.parent
    with pytest.raises(InvalidRun, match="a study of another base.*another --output"):
        tune(str(data), TuneSettings(dataclasses.replace(base, seed=1), TRIALS), output)
    with pytest.raises(InvalidRun, match="is not empty and holds no study"):
        tune(str(data), TuneSettings(base, TRIALS), data)
    with pytest.raises(InvalidInput, match="trials is 0; accepted is 1 or more"):
        TuneSettings(base, 0)


def test_the_help_names_what_fit_accepts(capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("fit", "tune"):
        with pytest.raises(SystemExit):
            main([command, "--help"])
        said = " ".join(capsys.readouterr().out.split())
        assert "DIR|clothing|movielens|apps|faq" in said
        assert all(family in said for family in FAMILIES)
