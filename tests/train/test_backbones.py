"""Every family of backbones: the same vectors as transformers', split in two or whole, fitted, and exported."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from bertrec.engine import OnnxEngine
from bertrec.errors import InvalidInput
from bertrec.session_options import SessionOptions
from bertrec.tensors import ATTENTION_MASK, ENCODER, INPUT_IDS
from bertrec.text import TextTokenizer, batches
from export.build import BuildSettings, build_bundle
from tests import tiny
from tests.train.families import CONFIGS, LAYERS, POSITIONS, write_family
from train.adapters import AdapterSettings, Tuning, adapt
from train.backbones import FAMILIES
from train.encoder import Encoder
from train.fit import fit
from train.run import Run
from train.settings import PRESETS, Preset
from train.states import encode_texts
from train.students import distil
from train.students.contract import DEFAULTS

OTHERS = [name for name in CONFIGS if name != "bert"]
TEXTS = ["navy jacket please", "a red hat", "my old amber overall is torn and i want another one"]


@pytest.fixture(scope="module")
def backbones(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("families")
    return {name: write_family(name, folder / name) for name in CONFIGS}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_data(tmp_path_factory.mktemp("data") / "checkerboard", per_item=4)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, backbones: dict[str, Path], data: Path) -> dict[str, Run]:
    quick = dataclasses.replace(PRESETS[Preset.QUICK], batch_size=8, max_minutes=None)
    folder = tmp_path_factory.mktemp("runs")
    return {name: fit(str(data), dataclasses.replace(quick, backbone=str(backbones[name])), folder / name) for name in OTHERS}


def batch() -> tuple[torch.Tensor, torch.Tensor]:
    """Ids without the padding token's, in texts of 9, 5 and 1 tokens, padded with 0 as those that are served."""
    input_ids = torch.randint(5, 60, (3, 9), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(input_ids)
    mask[1, 5:] = mask[2, 1:] = 0
    return input_ids * mask, mask


def test_there_is_a_tiny_one_of_each_family() -> None:
    assert set(CONFIGS) == set(FAMILIES)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("name", CONFIGS)
def test_vectors_are_those_of_transformers(name: str, attention: str, backbones: dict[str, Path]) -> None:
    encoder = Encoder.load(backbones[name], attention=attention).eval()
    input_ids, mask = batch()
    padding = encoder.bert.config.pad_token_id if encoder.family.reserved_positions else 0
    with torch.inference_mode():
        hidden = encoder.bert(input_ids=torch.where(mask == 1, input_ids, padding), attention_mask=mask).last_hidden_state
        if name == "gpt2":
            expected = torch.stack([hidden[0, 8], hidden[1, 4], hidden[2, 0]])
        else:
            expected = torch.stack([hidden[0].mean(0), hidden[1, :5].mean(0), hidden[2, 0]])
        expected = nn.functional.normalize(expected, dim=-1)
        torch.testing.assert_close(encoder(input_ids, mask), expected, atol=1e-6, rtol=0)
        for layers in range(LAYERS + 1):
            split = encoder.upper(encoder.lower(input_ids, mask, layers), mask, layers)
            torch.testing.assert_close(split, expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("name", CONFIGS)
def test_a_text_has_one_vector_however_it_is_padded(name: str, backbones: dict[str, Path]) -> None:
    encoder = Encoder.load(backbones[name]).eval()
    input_ids, mask = batch()
    with torch.inference_mode():
        together, alone = encoder(input_ids, mask)[1], encoder(input_ids[1:2, :5], mask[1:2, :5])[0]
    torch.testing.assert_close(together, alone, atol=1e-6, rtol=0)


def test_roberta_cannot_use_its_reserved_positions(backbones: dict[str, Path]) -> None:
    encoder = Encoder.load(backbones["roberta"]).eval()
    assert encoder.max_positions == POSITIONS - 2
    longest = torch.full((1, encoder.max_positions), 7)
    assert encoder(longest, torch.ones_like(longest)).isfinite().all()
    assert Encoder.load(backbones["gpt2"]).max_positions == POSITIONS


@pytest.mark.parametrize("name", OTHERS)
def test_only_the_upper_layer_is_fine_tuned(name: str, runs: dict[str, Run], backbones: dict[str, Path]) -> None:
    before, after = Encoder.load(backbones[name]).state_dict(), Encoder.load(runs[name].encoder_folder).state_dict()
    moved = {key for key, value in before.items() if not torch.equal(value, after[key])}
    assert moved
    assert all(key.startswith(f"bert.{FAMILIES[name].layers}.1.") for key in moved)


@pytest.mark.parametrize("name", OTHERS)
def test_the_exported_engines_give_the_vectors_of_the_run(name: str, runs: dict[str, Run], tmp_path: Path) -> None:
    run = runs[name]
    engines = ("fp32",) if name == "gpt2" else ("fp32", "int8")
    bundle = build_bundle(run, tmp_path / "bundle", BuildSettings(engines=",".join(engines)))
    tokenizer = TextTokenizer(run.tokenizer_file, run.settings["max_tokens"])
    wanted = encode_texts(Encoder.load(run.encoder_folder), tokenizer, TEXTS, "torch")
    again = encode_texts(Encoder.load(run.encoder_folder), tokenizer, TEXTS, "torch")
    np.testing.assert_array_equal(again, wanted)
    for engine in engines:
        session = OnnxEngine(bundle.folder / f"encoder/{engine}.onnx", ENCODER, SessionOptions(1))
        for padded in batches(tokenizer.tokenise(TEXTS), tokenizer):
            given = {INPUT_IDS.name: padded.input_ids, ATTENTION_MASK.name: padded.attention_mask}
            (found,) = session.run(given).values()
            np.testing.assert_allclose(found, wanted[padded.rows], atol=1e-5 if engine == "fp32" else 0.05)
    (reference,) = [record for record in bundle.manifest.engines if record.name == "fp32" and record.model == ENCODER.name]
    assert "Attention" not in reference.operators  # fused is BERT alone


@pytest.mark.parametrize("tuning", [Tuning.LORA, Tuning.ADALORA, Tuning.ADAPTER])
@pytest.mark.parametrize("name", OTHERS)
def test_adapters_are_merged_into_every_family(name: str, tuning: Tuning, backbones: dict[str, Path], tmp_path: Path) -> None:
    encoder = Encoder.load(backbones[name]).eval()
    before = encoder(*batch())
    adapters = adapt(encoder, 1, AdapterSettings(tuning, rank=2, bottleneck=8, steps=10))
    torch.manual_seed(0)
    with torch.no_grad():
        for value in encoder.parameters():
            if value.requires_grad:
                value.add_(torch.randn_like(value) / 5)
    unmerged = encoder.eval()(*batch())
    assert (unmerged - before).abs().max() > 1e-3
    adapters.merge()
    encoder.bert.save_pretrained(tmp_path)
    torch.testing.assert_close(Encoder.load(tmp_path).eval()(*batch()), unmerged, atol=1e-5, rtol=0)


def test_what_cannot_be_quantised_is_said(runs: dict[str, Run], tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="'int8': the products of a 'gpt2' encoder are not quantised here; accepted are fp32"):
        build_bundle(runs["gpt2"], tmp_path / "bundle")


def test_students_are_made_of_a_bert(runs: dict[str, Run]) -> None:
    with pytest.raises(InvalidInput, match="'gpt2' encoder; students are made of a BERT"):
        distil(runs["gpt2"], dataclasses.replace(DEFAULTS["layers"], name="layers-1"))


def test_an_unknown_family_is_refused_with_those_that_are_known(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "t5"}))
    with pytest.raises(InvalidInput, match="is a 't5' model; accepted are bert, roberta, xlm-roberta, electra, distilbert, gpt2"):
        Encoder.load(tmp_path)
