"""Parameter-efficient fine-tuning: what is trained, that merging changes no vector, resuming, export."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from bertrec.errors import InvalidInput
from export.build import BuildSettings, build_bundle
from tests import tiny
from train import optimise
from train.adapters import Adapters, AdapterSettings, Tuning, adapt, measure_cost
from train.descent import Descent, step_down
from train.encoder import Encoder
from train.fit import fit
from train.settings import PRESETS, FitSettings, Preset

EFFICIENT = (Tuning.LORA, Tuning.ADALORA, Tuning.ADAPTER)
STEPS = 20
HIDDEN, UNITS, RANK = 32, 64, 4


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_data(tmp_path_factory.mktemp("data") / "checkerboard", per_item=4)


def settings_of(tuning: Tuning, backbone: Path) -> FitSettings:
    quick = dataclasses.replace(PRESETS[Preset.QUICK], backbone=str(backbone), batch_size=8, max_minutes=None)
    return dataclasses.replace(quick, tuning=tuning, rank=RANK, bottleneck=8, epochs=2)


def batch() -> tuple[Tensor, Tensor]:
    input_ids = torch.arange(5, 35).reshape(3, 10)
    mask = torch.ones_like(input_ids)
    mask[1, 6:] = 0
    return input_ids, mask


def trained(encoder: Encoder, tuning: Tuning) -> Adapters:
    """After some steps towards other vectors, so that every new weight has moved."""
    torch.manual_seed(0)
    adapters = adapt(encoder, 1, AdapterSettings(tuning, rank=RANK, bottleneck=8, steps=STEPS))
    optimiser = torch.optim.AdamW([value for value in encoder.parameters() if value.requires_grad], lr=1e-2)
    wanted = torch.nn.functional.normalize(torch.randn(3, HIDDEN), dim=-1)
    for step in range(1, STEPS + 1):
        optimiser.zero_grad()
        loss = (encoder(*batch()) - wanted).square().sum() + adapters.penalty()
        loss.backward()
        optimiser.step()
        adapters.after_step(step)
    return adapters


@pytest.mark.parametrize("tuning", EFFICIENT)
def test_an_adapted_encoder_begins_as_the_pre_trained_one(tuning: Tuning, tiny_backbone: Path) -> None:
    encoder = Encoder.load(tiny_backbone).eval()
    before = encoder(*batch())
    adapt(encoder, 1, AdapterSettings(tuning, rank=RANK))
    torch.testing.assert_close(encoder.eval()(*batch()), before)


@pytest.mark.parametrize("tuning", EFFICIENT)
def test_merging_changes_no_vector(tuning: Tuning, tiny_backbone: Path, tmp_path: Path) -> None:
    encoder = Encoder.load(tiny_backbone)
    original = Encoder.load(tiny_backbone).eval()(*batch())
    adapters = trained(encoder, tuning)
    unmerged = encoder.eval()(*batch()).detach()
    assert (unmerged - original).abs().max() > 0.01
    adapters.merge()
    assert (encoder.eval()(*batch()) - unmerged).abs().max() < 1e-5
    encoder.bert.save_pretrained(tmp_path)
    assert (Encoder.load(tmp_path).eval()(*batch()) - unmerged).abs().max() < 1e-5


def test_only_what_was_added_to_the_upper_layers_is_trained(tiny_backbone: Path) -> None:
    # Four products of hidden × hidden, one that widens and one that narrows: each has rank × (in + out) weights.
    low_rank = 4 * RANK * 2 * HIDDEN + 2 * RANK * (HIDDEN + UNITS)
    adapter = (HIDDEN * 8 + 8) + (8 * HIDDEN + HIDDEN)
    for tuning, expected in ((Tuning.LORA, low_rank), (Tuning.ADAPTER, adapter)):
        encoder = Encoder.load(tiny_backbone)
        adapt(encoder, 1, AdapterSettings(tuning, rank=RANK, bottleneck=8))
        cost = measure_cost(encoder)
        assert cost.trained_parameters == expected
        assert 50 < cost.peak_memory_mb < 100_000
        encoder.train_upper(1)  # as after each pass
        assert measure_cost(encoder).trained_parameters == expected


def test_adalora_gives_ranks_up_until_the_wanted_ones_are_left(tiny_backbone: Path) -> None:
    encoder = Encoder.load(tiny_backbone)
    state = trained(encoder, Tuning.ADALORA).state()
    ranks = [value for name, value in state.items() if name.startswith("ranks.")]
    assert len(ranks) == 6
    assert sum(int(value.sum()) for value in ranks) == 6 * RANK
    assert sum(value.numel() for value in ranks) == 6 * 6


@pytest.mark.parametrize("tuning", EFFICIENT)
def test_an_interrupted_run_continues_to_the_same_result(
    tuning: Tuning, data: Path, tiny_backbone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings_of(tuning, tiny_backbone)
    whole = fit(str(data), settings, tmp_path / "whole")
    monkeypatch.setattr(optimise, "CHECKPOINT_EVERY_S", 0.0)
    step, steps = step_down, 0

    def interrupted_step(optimiser: torch.optim.Optimizer, loss: Tensor, *descent: Descent) -> float:
        nonlocal steps
        steps += 1
        if steps == 15:
            raise KeyboardInterrupt
        return step(optimiser, loss, *descent)

    monkeypatch.setattr(optimise, "step_down", interrupted_step)
    with pytest.raises(KeyboardInterrupt):
        fit(str(data), settings, tmp_path / "cut")
    monkeypatch.setattr(optimise, "step_down", step)
    continued = fit(str(data), settings, tmp_path / "cut")
    np.testing.assert_array_equal(whole.array("items/text"), continued.array("items/text"))
    there, again = Encoder.load(whole.encoder_folder).state_dict(), Encoder.load(continued.encoder_folder).state_dict()
    assert all(torch.equal(value, again[name]) for name, value in there.items())


@pytest.mark.parametrize("tuning", [Tuning.LORA, Tuning.ADAPTER])
def test_a_run_is_exported_with_every_fusion(tuning: Tuning, data: Path, tiny_backbone: Path, tmp_path: Path) -> None:
    run = fit(str(data), settings_of(tuning, tiny_backbone), tmp_path / "run")
    assert run.record["tuning"]["method"] == tuning.value
    assert 0 < run.record["tuning"]["trained_share"] < 0.2
    bundle = build_bundle(run, tmp_path / "bundle", BuildSettings(engines="fp32"))
    (record,) = [one for one in bundle.manifest.engines if one.model == "encoder"]
    assert record.operators["Attention"] == record.operators["BiasGelu"] == 2
    assert record.parity["cosine_to_torch_min"] > 0.9999


@pytest.mark.parametrize("wrong", [{"rank": 0}, {"bottleneck": 0}, {"alpha": 0.0}])
def test_sizes_that_make_no_sense_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput, match=next(iter(wrong))):
        dataclasses.replace(PRESETS[Preset.QUICK], **wrong)
