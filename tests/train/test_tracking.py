"""The curves of a training: what is written, and that a continued run continues them."""

from __future__ import annotations

import dataclasses
import importlib.util
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tensorboardX.proto.event_pb2 import Event

from bertrec.errors import MissingDependency
from tests import tiny
from train import optimise, tracking
from train.__main__ import main
from train.descent import Descent, step_down
from train.fit import fit
from train.run import Run
from train.settings import PRESETS, FitSettings, Preset
from train.tracking import LOGS_FOLDER, LOSS, NoTracker, TensorBoard, Tracking, tracker_of


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_data(tmp_path_factory.mktemp("data") / "checkerboard", per_item=6)


@pytest.fixture(scope="module")
def settings(tiny_backbone: Path) -> FitSettings:
    return dataclasses.replace(PRESETS[Preset.QUICK], backbone=str(tiny_backbone), epochs=2, batch_size=8, max_minutes=None)


def events(folder: Path) -> list[Any]:
    """The events of all files of a folder, the oldest first: length, its checksum, the event, its checksum, little-endian."""
    return [event for path in sorted(folder.glob("events.out.*"), key=lambda path: path.stat().st_mtime) for event in _read(path)]


def _read(path: Path) -> Iterator[Any]:
    content, at = path.read_bytes(), 0
    while at < len(content):
        (size,) = struct.unpack_from("<Q", content, at)
        yield Event.FromString(content[at + 12 : at + 12 + size])
        at += 12 + size + 4


def curve(folder: Path, name: str) -> dict[int, float]:
    """Step → value, as TensorBoard shows it: a sitting that begins at a step drops what was written beyond it."""
    kept: dict[int, float] = {}
    for event in events(folder):
        if event.session_log.status == event.session_log.START:
            kept = {step: value for step, value in kept.items() if step <= event.step}
        for value in (value for value in event.summary.value if value.tag == name):
            kept[event.step] = value.simple_value
    return kept


def test_a_continued_run_has_the_curves_of_one_that_was_never_cut(
    data: Path, settings: FitSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = fit(str(data), settings, tmp_path / "whole").folder / LOGS_FOLDER
    losses = curve(whole, LOSS)
    assert list(losses) == list(range(1, len(losses) + 1)) and len(losses) > 25
    assert losses[len(losses)] < losses[1]
    rates = curve(whole, tracking.LEARNING_RATE)
    assert max(rates.values()) == pytest.approx(settings.encoder_learning_rate, rel=0.05)
    assert list(curve(whole, tracking.VALIDATION_NDCG)) == [len(losses) // 2, len(losses)]
    assert list(curve(whole, tracking.FUSED_NDCG).values()) == [pytest.approx(1.0)]

    step, steps = step_down, 0

    def interrupted_step(optimiser: torch.optim.Optimizer, loss: torch.Tensor, *descent: Descent) -> float:
        nonlocal steps
        steps += 1
        if steps == 25:  # the item vectors take 4, a pass 16; the checkpoint is from between the two passes
            raise KeyboardInterrupt
        return step(optimiser, loss, *descent)

    monkeypatch.setattr(optimise, "step_down", interrupted_step)
    with pytest.raises(KeyboardInterrupt):
        fit(str(data), settings, tmp_path / "cut")
    monkeypatch.setattr(optimise, "step_down", step)
    cut = tmp_path / "cut" / LOGS_FOLDER
    assert 1 < len(curve(cut, LOSS)) < len(losses)
    fit(str(data), settings, tmp_path / "cut")
    assert len(list(cut.iterdir())) == 2
    assert curve(cut, LOSS) == losses


def test_what_cannot_be_written_ends_the_curves_only(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "logs").write_text("a file where the folder should be")
    tracker = TensorBoard(tmp_path / "logs", 0)
    tracker.log(1, loss=1.0)
    tracker.close(2, loss=0.5)
    assert caplog.text.count("no more curves are written") == 1


def test_nothing_is_kept_where_nobody_wants_it(tmp_path: Path) -> None:
    tracker = tracker_of(Run(tmp_path, {}), Tracking.NONE, 0)
    tracker.log(1, loss=1.0)
    assert isinstance(tracker, NoTracker) and not (tmp_path / "logs").exists()


def test_without_wandb_nothing_is_begun(
    data: Path, settings: FitSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingDependency, match=r"wandb is not installed; it comes with: pip install 'bertrec\[wandb\]'"):
        fit(str(data), settings, tmp_path / "run", track=Tracking.WANDB)
    assert main(["fit", "--data", str(data), "--output", str(tmp_path / "run"), "--track", "wandb"]) == 2
    assert "pip install 'bertrec[wandb]'" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_weights_and_biases_without_a_login_or_a_server_ends_the_curves_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Refusing:
        """A run whose server is gone after the first record."""

        logged = 0

        def define_metric(self, *given: object, **named: object) -> None: ...

        def log(self, scalars: dict[str, float]) -> None:
            self.logged += 1
            if self.logged > 1:
                raise ConnectionError("gone")

        def finish(self) -> None:
            raise AssertionError("nothing is kept any more")

    def no_login(**given: object) -> None:
        raise RuntimeError("api_key not configured (no-tty).\nCall wandb.login")

    run = Run(tmp_path, {"data": {"name": "tiny"}, "created": "2026-01-01", "settings": {}})
    kept = Refusing()
    for init, steps in ((no_login, 2), (lambda **given: kept, 3)):
        caplog.clear()
        monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=init, Settings=lambda **given: None))
        tracker = tracker_of(run, Tracking.WANDB, 0)
        for step in range(steps):
            tracker.log(step, loss=1.0)
        tracker.close(steps, loss=0.5)
        assert caplog.text.count("no more curves are written") == 1
        assert "Call wandb.login" in caplog.text or "gone" in caplog.text
    assert kept.logged == 2


def test_weights_and_biases_offline(data: Path, settings: FitSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb", reason="the extra wandb is not installed")
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
    run = fit(str(data), settings, tmp_path / "run", track=Tracking.WANDB)
    (kept,) = (run.folder / LOGS_FOLDER / "wandb").glob("offline-run-*/*.wandb")
    content = kept.read_bytes()
    for name in (LOSS, tracking.VALIDATION_NDCG, tracking.FUSED_NDCG, "continued_at_step"):
        assert name.encode() in content
