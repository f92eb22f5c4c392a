"""A whole training run on a tiny data set and a tiny BERT: what it leaves, what it reuses, what it resumes, what it refuses."""

from __future__ import annotations

import dataclasses
import json
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from bertrec.catalogue import Catalogue
from bertrec.errors import InvalidData, InvalidInput, InvalidRun
from tests import tiny
from tests.full_disk import run_on_full_disk
from train import optimise
from train.__main__ import main
from train.checkpoint import FILE as CHECKPOINT_FILE
from train.descent import Descent, step_down
from train.evaluate import evaluate
from train.fine_tuning import TUNING_SHARE
from train.fit import fit
from train.report import PER_QUERY_FILE
from train.run import METRICS_FILE, RUN_FILE, SCHEMA_VERSION, Run, open_run
from train.settings import PRESETS, FitSettings, Preset


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_data(tmp_path_factory.mktemp("data") / "checkerboard", per_item=6)


@pytest.fixture(scope="module")
def settings(tiny_backbone: Path) -> FitSettings:
    return dataclasses.replace(PRESETS[Preset.QUICK], backbone=str(tiny_backbone), epochs=2, batch_size=8, max_minutes=None)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, data: Path, settings: FitSettings) -> Run:
    return fit(str(data), settings, tmp_path_factory.mktemp("runs") / "tiny")


def test_the_right_item_of_the_checkerboard_comes_first(run: Run) -> None:
    evaluation = evaluate(run)
    assert evaluation.items == tiny.ITEMS
    assert evaluation.value("fused", "recall_at_1") == 1.0
    assert evaluation.value("TF-IDF centroid", "recall_at_1") == 1.0
    # Every item was chosen as often as the others but for the split, so popularity knows next to nothing.
    assert evaluation.value("popularity", "recall_at_1") < 0.3
    written = json.loads((run.folder / METRICS_FILE).read_text())
    assert written["kinds"]["as-written"]["rankers"]["fused"]["ndcg_at_10"]["value"] == 1.0
    assert written["split"] == "test"


def test_fine_tuning_moves_the_upper_layers_and_nothing_else(run: Run, tiny_backbone: Path) -> None:
    from train.encoder import Encoder

    before, after = Encoder.load(tiny_backbone).state_dict(), Encoder.load(run.encoder_folder).state_dict()
    moved = {name for name, value in before.items() if not np.array_equal(value.numpy(), after[name].numpy())}
    assert moved
    assert all(name.startswith("bert.encoder.layer.1.") for name in moved)


def test_items_are_centred_so_that_reasons_compare_with_the_average_item(run: Run) -> None:
    for signal in ("text", "lexical", "graph", "prior"):
        assert np.abs(run.array(f"items/{signal}").mean(axis=0)).max() < 1e-5


def test_the_catalogue_knows_what_tells_its_items_from_others(run: Run) -> None:
    items = Catalogue.load(run.catalogue_file).items
    assert [item.item_id for item in items] == [str(number) for number in range(tiny.ITEMS)]
    assert set(items[0].keywords[:2]) == set(tiny.item_text(0).split())
    assert items[0].attributes == {"colour": tiny.WORDS[0]}


def test_the_same_seed_gives_the_same_run(run: Run, data: Path, settings: FitSettings, tmp_path: Path) -> None:
    again = fit(str(data), settings, tmp_path / "again")
    for name in ("items/text", "items/lexical", "items/graph", "items/prior"):
        np.testing.assert_array_equal(run.array(name), again.array(name))


def test_an_interrupted_run_continues_to_the_same_result(
    run: Run, data: Path, settings: FitSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(optimise, "CHECKPOINT_EVERY_S", 0.0)
    step, steps = step_down, 0

    def interrupted_step(optimiser: torch.optim.Optimizer, loss: torch.Tensor, *descent: Descent) -> float:
        nonlocal steps
        steps += 1
        if steps == 25:
            raise KeyboardInterrupt
        return step(optimiser, loss, *descent)

    monkeypatch.setattr(optimise, "step_down", interrupted_step)
    with pytest.raises(KeyboardInterrupt):
        fit(str(data), settings, tmp_path / "cut")
    with pytest.raises(InvalidRun, match="not finished; the same fit command continues it"):
        open_run(tmp_path / "cut")
    monkeypatch.setattr(optimise, "step_down", step)
    _pretend_spent(tmp_path / "cut" / CHECKPOINT_FILE, hours=5.0)
    continued = fit(str(data), settings, tmp_path / "cut")
    assert 300 <= continued.record["minutes"] < 310  # what earlier sittings took counts
    for name in ("items/text", "items/lexical", "items/graph", "items/prior"):
        np.testing.assert_array_equal(run.array(name), continued.array(name))
    assert sorted(path.name for path in continued.folder.iterdir()) == sorted(
        path.name for path in run.folder.iterdir() if path.name not in (METRICS_FILE, PER_QUERY_FILE)
    )


def _pretend_spent(checkpoint: Path, *, hours: float) -> None:
    with safe_open(checkpoint, framework="pt") as file:
        tensors, metadata = {name: file.get_tensor(name) for name in file.keys()}, file.metadata()  # noqa: SIM118
    assert 0 < json.loads(metadata["spent_s"]) < 300
    save_file(tensors, checkpoint, metadata={**metadata, "spent_s": json.dumps(3600 * hours)})


def test_a_finished_run_is_reused(run: Run, data: Path, settings: FitSettings, capsys: pytest.CaptureFixture[str]) -> None:
    before = (run.folder / RUN_FILE).stat().st_mtime_ns
    fit(str(data), settings, run.folder)
    assert (run.folder / RUN_FILE).stat().st_mtime_ns == before
    assert "reused" in capsys.readouterr().err


def test_an_evaluation_is_reused_for_the_same_split_only(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    first = evaluate(run)
    capsys.readouterr()
    assert evaluate(run) == first
    assert "reused" in capsys.readouterr().err
    assert evaluate(run, "validation").split == "validation"
    assert "reused" not in capsys.readouterr().err


def test_a_time_budget_that_suffices_for_no_text_is_refused_and_a_larger_one_continues(
    run: Run, data: Path, settings: FitSettings, tmp_path: Path
) -> None:
    with pytest.raises(InvalidInput, match=r"1e-06 minutes sufficed for no text at all.*larger --max-minutes continues"):
        fit(str(data), dataclasses.replace(settings, max_minutes=1e-6), tmp_path / "hurried")
    with pytest.raises(InvalidRun, match="not finished"):
        open_run(tmp_path / "hurried")
    continued = fit(str(data), settings, tmp_path / "hurried")
    np.testing.assert_array_equal(run.array("items/text"), continued.array("items/text"))


def test_a_time_budget_that_is_short_brings_the_learning_rate_down_in_time(
    data: Path, settings: FitSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A clock on which each step of fine-tuning takes so long that the budget suffices for half of them."""
    rates: list[float] = []
    clock = [0.0]

    def slow_step(optimiser: torch.optim.Optimizer, loss: torch.Tensor, *descent: Descent) -> float:
        if len(optimiser.param_groups) == 2:  # the encoder's and the items'
            clock[0] += 6.0
            rates.append(optimiser.param_groups[0]["lr"])
        return step(optimiser, loss, *descent)

    step = step_down
    monkeypatch.setattr(optimise, "step_down", slow_step)
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    hurried = fit(str(data), dataclasses.replace(settings, max_minutes=96 / 60 / TUNING_SHARE), tmp_path / "hurried")
    assert hurried.record["texts_read"] == 134
    assert 14 <= len(rates) <= 18  # of 32
    assert max(rates) > 0.9 * settings.encoder_learning_rate
    assert rates[-1] < 0.05 * settings.encoder_learning_rate


def test_a_disk_that_is_full_ends_a_run_in_one_line_and_room_continues_it(
    data: Path, tiny_backbone: Path, tmp_path: Path
) -> None:
    arguments = ["fit", "--data", str(data), "--backbone", str(tiny_backbone), "--output", str(tmp_path / "run")]
    full = run_on_full_disk("train", *arguments)
    assert full.returncode == 2
    assert "error: " in full.stderr
    assert "Traceback" not in full.stderr
    with pytest.raises(InvalidRun, match="not finished"):
        open_run(tmp_path / "run")
    assert main(arguments) == 0
    assert open_run(tmp_path / "run").finished


def test_what_cannot_be_run_is_refused(run: Run, data: Path, settings: FitSettings, tmp_path: Path) -> None:
    with pytest.raises(InvalidRun, match=r"seed: 0 there, 1 asked for.*another --output"):
        fit(str(data), dataclasses.replace(settings, seed=1), run.folder)
    with pytest.raises(InvalidRun, match="is not empty and holds no run"):
        fit(str(data), settings, data)
    with pytest.raises(InvalidData, match="clothing"):
        fit(str(tmp_path / "nothing"), settings, tmp_path / "out")
    with pytest.raises(InvalidInput, match="cannot be loaded"):
        fit(str(data), dataclasses.replace(settings, backbone=str(data)), tmp_path / "out")
    assert not (tmp_path / "out").exists()
    with pytest.raises(InvalidRun, match="python -m train fit"):
        open_run(tmp_path / "nothing")


def test_a_run_of_another_schema_is_refused(data: Path, settings: FitSettings, tmp_path: Path) -> None:
    (tmp_path / RUN_FILE).write_text(json.dumps({"schema_version": SCHEMA_VERSION + 1, "finished": True}))
    with pytest.raises(
        InvalidRun, match=rf"schema version {SCHEMA_VERSION + 1}; this release reads {SCHEMA_VERSION}. Train again"
    ):
        open_run(tmp_path)
    with pytest.raises(InvalidRun, match="schema version"):
        fit(str(data), settings, tmp_path)
    (tmp_path / RUN_FILE).write_text("{}")
    with pytest.raises(InvalidRun, match=r"is not a run's record \(KeyError: 'schema_version'\)"):
        open_run(tmp_path)


def test_data_that_changed_since_training_is_noticed(data: Path, settings: FitSettings, tmp_path: Path) -> None:
    copy = shutil.copytree(data, tmp_path / "copy")
    trained = fit(str(copy), settings, tmp_path / "run")
    with (copy / "interactions.jsonl").open("a") as file:
        file.write('{"item_id": "0", "text": "one more"}\n')
    with pytest.raises(InvalidRun, match="has changed since"):
        evaluate(trained)


def test_the_command_line_fits_and_evaluates(
    data: Path, tiny_backbone: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = str(tmp_path / "run")
    assert main(["fit", "--data", str(data), "--backbone", str(tiny_backbone), "--output", folder, "--max-minutes", "2"]) == 0
    assert main(["evaluate", "--run", folder]) == 0
    printed = capsys.readouterr().out
    assert "fused" in printed
    assert "NDCG@10" in printed
    assert main(["evaluate", "--run", str(tmp_path / "nothing")]) == 2
    assert capsys.readouterr().err.startswith("error: ")
