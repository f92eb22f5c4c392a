"""Learning from texts without labels: masking, SimCSE, fewer labels, guessed ones, and whole runs with each."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from bertrec.errors import InvalidInput
from bertrec.text import TextTokenizer
from tests import tiny
from tests.full_disk import full_disk
from tests.train.families import write_family
from train.adaptation.kinds import Adaptation
from train.adaptation.labels import keep_labels, pseudo_labels
from train.adaptation.stage import adapted
from train.adaptation.unsupervised import NO_TARGET, AdaptationSettings, adapt_to_texts, adapted_encoder, masked
from train.data import split_interactions
from train.descent import Descent, step_down
from train.encoder import Encoder
from train.evaluate import evaluate
from train.fit import fit
from train.settings import PRESETS, FitSettings, Preset
from train.sources import load_dataset

TEXTS = [f"i want {tiny.item_text(item)}" for item in range(tiny.ITEMS)]
MASK_ID = 4
KINDS = (Adaptation.MLM, Adaptation.SIMCSE)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_data(tmp_path_factory.mktemp("data") / "checkerboard", per_item=6)


@pytest.fixture(scope="module")
def settings(tiny_backbone: Path) -> FitSettings:
    return dataclasses.replace(PRESETS[Preset.QUICK], backbone=str(tiny_backbone), batch_size=8, max_minutes=None)


def test_masked_are_some_tokens_inside_a_text() -> None:
    torch.manual_seed(0)
    input_ids = torch.full((400, 22), 7)
    mask = torch.ones_like(input_ids)
    mask[:, 21] = 0
    inputs, targets = masked(input_ids, mask, mask_id=MASK_ID, vocabulary=1_000)
    chosen = targets != NO_TARGET
    assert not chosen[:, [0, 20, 21]].any()  # the tokens around the text, and padding
    assert chosen.any(1).all()
    assert 0.14 < chosen[:, 1:20].float().mean() < 0.17
    assert (targets[chosen] == 7).all() and (inputs[~chosen] == 7).all()
    assert 0.77 < (inputs[chosen] == MASK_ID).float().mean() < 0.83
    assert 0.08 < ((inputs[chosen] != MASK_ID) & (inputs[chosen] != 7)).float().mean() < 0.12


@pytest.mark.parametrize("kind", KINDS)
def test_only_the_upper_layer_is_adapted_and_the_same_seed_gives_the_same(
    kind: Adaptation, tiny_backbone: Path, tmp_path: Path
) -> None:
    tokens = TextTokenizer(tiny_backbone / "tokenizer.json", 64).tokenise(TEXTS)
    states = []
    wanted = AdaptationSettings(kind, 1, epochs=2, batch_size=8, mask_id=MASK_ID)
    for folder in (tmp_path / "first", tmp_path / "second"):
        torch.manual_seed(0)
        encoder = Encoder.load(tiny_backbone)
        assert adapt_to_texts(encoder, tokens, wanted, folder) == 6
        states.append(encoder.state_dict())
    before = Encoder.load(tiny_backbone).state_dict()
    moved = {name for name, value in before.items() if not torch.equal(value, states[0][name])}
    assert moved
    assert all(name.startswith("bert.encoder.layer.1.") for name in moved)
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())


def test_simcse_spreads_texts_out(tiny_backbone: Path, tmp_path: Path) -> None:
    tokens = TextTokenizer(tiny_backbone / "tokenizer.json", 64).tokenise(TEXTS)
    ids, mask = torch.tensor([text.ids for text in tokens]), torch.ones(len(tokens), len(tokens[0].ids), dtype=torch.int64)

    def similarity(encoder: Encoder) -> float:
        with torch.inference_mode():
            vectors = encoder.eval()(ids, mask)
        return float((vectors @ vectors.T).fill_diagonal_(0).sum() / (len(vectors) * (len(vectors) - 1)))

    encoder = Encoder.load(tiny_backbone)
    before = similarity(encoder)
    torch.manual_seed(0)
    adapt_to_texts(
        encoder, tokens, AdaptationSettings(Adaptation.SIMCSE, 2, epochs=8, batch_size=7, learning_rate=3e-3), tmp_path
    )
    assert similarity(encoder) < before - 0.1


def test_adaptation_stops_in_time_and_is_read_again(tiny_backbone: Path, tmp_path: Path) -> None:
    tokens = TextTokenizer(tiny_backbone / "tokenizer.json", 64).tokenise(TEXTS)
    wanted = AdaptationSettings(Adaptation.SIMCSE, 1, epochs=100_000, batch_size=8)
    first = adapted_encoder(Encoder.load(tiny_backbone), tokens, tmp_path / "adapted", wanted, minutes=0.01)
    again = adapted_encoder(Encoder.load(tiny_backbone), tokens, tmp_path / "adapted", wanted)
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in first.state_dict().items())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("full_from", [6, None])
def test_an_interrupted_adaptation_continues_to_the_same_weights(
    kind: Adaptation, full_from: int | None, tiny_backbone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed in its third pass; with a disk that was full by then, it continues from the last checkpoint that found room."""
    tokens = TextTokenizer(tiny_backbone / "tokenizer.json", 64).tokenise(TEXTS)
    wanted = AdaptationSettings(kind, 1, epochs=3, batch_size=8, mask_id=MASK_ID)  # 9 steps
    steps, cut_at, room = 0, 8, contextlib.ExitStack()

    def counted(optimiser: torch.optim.Optimizer, loss: torch.Tensor, descent: Descent) -> float:
        nonlocal steps
        steps += 1
        if steps == full_from:
            room.enter_context(full_disk())
        if steps == cut_at:
            raise KeyboardInterrupt
        return step_down(optimiser, loss, descent)

    def make(folder: Path) -> dict[str, torch.Tensor]:
        torch.manual_seed(0)
        return adapted_encoder(Encoder.load(tiny_backbone), tokens, folder, wanted).state_dict()

    whole = make(tmp_path / "whole")
    monkeypatch.setattr("train.passes.CHECKPOINT_EVERY_S", 0.0)
    monkeypatch.setattr("train.passes.step_down", counted)
    with room, pytest.raises(KeyboardInterrupt):
        make(tmp_path / "cut")
    assert [path.name for path in (tmp_path / "cut.partial").iterdir()] == ["checkpoint.safetensors"]
    done = cut_at - 1 if full_from is None else full_from - 1
    steps, cut_at, full_from = 0, 0, None
    continued = make(tmp_path / "cut")
    assert steps == 9 - done  # those behind the checkpoint alone
    assert all(torch.equal(value, continued[name]) for name, value in whole.items())
    assert "checkpoint.safetensors" not in [path.name for path in (tmp_path / "cut").iterdir()]


def test_masked_words_need_a_backbone_that_reads_both_ways(tmp_path: Path, tiny_backbone: Path) -> None:
    tokens = TextTokenizer(tiny_backbone / "tokenizer.json", 64).tokenise(TEXTS[:2])
    with pytest.raises(InvalidInput, match="'gpt2' model does not; accepted for it are simcse and none"):
        gpt2 = Encoder.load(write_family("gpt2", tmp_path))
        adapt_to_texts(gpt2, tokens, AdaptationSettings(Adaptation.MLM, 1, mask_id=4), tmp_path)
    with pytest.raises(InvalidInput, match="the tokenizer has none"):
        adapt_to_texts(Encoder.load(tiny_backbone), tokens, AdaptationSettings(Adaptation.MLM, 1), tmp_path)


def test_a_share_of_every_items_labels_is_kept(data: Path) -> None:
    dataset = load_dataset(str(data))
    split = split_interactions(dataset, 0)
    assert keep_labels(dataset, split, 1.0, 0).split is split
    few, half = keep_labels(dataset, split, 0.1, 0), keep_labels(dataset, split, 0.5, 0)
    assert set(few.split.train.tolist()) < set(half.split.train.tolist())
    assert 0.05 < len(few.split.train) / len(split.train) < 0.2
    assert sorted([*half.split.train.tolist(), *half.unlabelled.tolist()]) == sorted(split.train.tolist())
    for name in ("validation", "test"):
        np.testing.assert_array_equal(half.split.part(name), split.part(name))
    items = np.asarray([row.item for row in dataset.interactions])
    kept, all_of = (np.bincount(items[rows], minlength=tiny.ITEMS) for rows in (half.split.train, split.train))
    assert np.abs(kept - all_of / 2).max() <= 1.0
    with pytest.raises(InvalidInput, match="accepted is a share above 0"):
        keep_labels(dataset, split, 0.0, 0)


def test_only_sure_guesses_become_labels() -> None:
    items, prior = np.eye(3, dtype=np.float32) * 5, np.zeros(3, np.float32)
    interest = np.asarray([[0, 1, 0], [0.5, 0.5, 0.5], [0, 0, 1]], np.float32)
    found = pseudo_labels(interest, items, prior, confidence=0.9)
    assert found.rows.tolist() == [0, 2] and found.items.tolist() == [1, 2]
    np.testing.assert_allclose(found.confidence, np.exp(5) / (np.exp(5) + 2), rtol=1e-5)
    assert pseudo_labels(interest, items, np.asarray([0, -9, 0], np.float32)).rows.tolist() == [2]


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_that_was_cut_goes_on_with_the_encoder_that_it_adapted(
    kind: Adaptation, data: Path, settings: FitSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    adapting = dataclasses.replace(settings, adapt=kind)
    whole = fit(str(data), adapting, tmp_path / "whole")

    def cut(*given: object, **named: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr("train.fit.fit_signals", cut)
        fit(str(data), adapting, tmp_path / "cut")
    kept = (tmp_path / "cut/adapted/model.safetensors").stat().st_mtime_ns
    continued = fit(str(data), adapting, tmp_path / "cut")
    assert (tmp_path / "cut/adapted/model.safetensors").stat().st_mtime_ns == kept
    np.testing.assert_array_equal(whole.array("items/text"), continued.array("items/text"))


@pytest.mark.parametrize("self_train", [False, True])
def test_adaptation_takes_nothing_of_the_time_for_training(
    self_train: bool, data: Path, settings: FitSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A clock on which adaptation alone takes time, more than the whole budget."""
    clock = [0.0]

    def slow(*given: object, **named: object) -> Encoder:
        clock[0] += 3_600.0
        return adapted(*given, **named)  # type: ignore[arg-type]  # what it is given

    monkeypatch.setattr("train.fit.adapted", slow)
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    labels = {"labels": 0.5, "self_train": True, "confidence": 0.05} if self_train else {}
    hurried = dataclasses.replace(settings, adapt=Adaptation.SIMCSE, max_minutes=5.0, **labels)  # type: ignore[arg-type]
    run = fit(str(data), hurried, tmp_path / "run")
    texts = run.record["texts"]
    assert run.record["texts_read"] == texts["train"] + texts["validation"]
    assert run.record["minutes"] == (120 if self_train else 60)  # it took them all the same


def test_self_training_learns_from_texts_without_a_label(data: Path, settings: FitSettings, tmp_path: Path) -> None:
    few = dataclasses.replace(settings, labels=0.5, self_train=True, confidence=0.05)
    run = fit(str(data), few, tmp_path / "few")
    teacher_texts = run.array("zero_shot/texts")
    assert run.record["texts"]["train"] > len(teacher_texts)  # what was guessed comes on top
    assert evaluate(run).value("fused", "recall_at_10") > 0.5
    again = fit(str(data), few, tmp_path / "again")
    np.testing.assert_array_equal(run.array("items/text"), again.array("items/text"))


@pytest.mark.parametrize(
    ("wrong", "said"),
    [({"labels": 0.0}, "labels is 0.0"), ({"confidence": 1.5}, "confidence is 1.5"), ({"self_train": True}, "labels below 1")],
)
def test_settings_that_make_no_sense_are_refused(wrong: dict[str, object], said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        dataclasses.replace(PRESETS[Preset.QUICK], **wrong)  # type: ignore[arg-type]  # that is the test
