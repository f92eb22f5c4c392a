"""The switches of ``python -m train fit``: each changes the run in its own way, and is the same again after an interruption."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from bertrec.errors import InvalidInput
from bertrec.spelling import SpellingCorrector
from tests import tiny
from tests.train.augmentation.test_synonyms import write_wordnet
from train import optimise
from train.__main__ import _parser, main
from train.adversarial import AdversarialSettings, Adversary
from train.augmentation import Augmentation, AugmentationSettings
from train.data import TEST
from train.descent import Descent, move
from train.encoder import Encoder
from train.evaluate import evaluate, held_out, ranked, run_examples
from train.fit import fit
from train.fit_options import chosen
from train.items import ItemSide
from train.loss import CatalogueLoss
from train.precision import Precision, autocast
from train.rankers import fused_ranker
from train.run import Run, open_run
from train.sentiment import LEAST_WEIGHT, sentiment_weights
from train.settings import PRESETS, FitSettings, Preset

TYPOS = AugmentationSettings((Augmentation.TYPOS, Augmentation.DROPOUT), strength=0.2, adaptive=True)
ALL = AugmentationSettings(tuple(Augmentation))
FREELB = AdversarialSettings(Adversary.FREELB)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkerboard, with a complaint here and there, and misspelt words that nobody else uses."""
    # Six texts of each item: of four, one alone was left to learn magenta from, which the lexicon calls pink, as it does fuchsia.
    folder = tiny.write_data(tmp_path_factory.mktemp("data") / "checkerboard", per_item=6)
    path = folder / "interactions.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    for row in rows[::3]:
        row["text"] += ", which is horrible"
    for row, letter in zip((row for row in rows if "please" in row["text"]), "bcdfghjkmn", strict=False):
        row["text"] = row["text"].replace("please", f"ple{letter}ase")
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


@pytest.fixture(scope="module")
def settings(tiny_backbone: Path) -> FitSettings:
    return dataclasses.replace(PRESETS[Preset.QUICK], backbone=str(tiny_backbone), batch_size=8, max_minutes=None)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory, data: Path, settings: FitSettings) -> Run:
    return fit(str(data), settings, tmp_path_factory.mktemp("runs") / "plain")


def first_as_served(run: Run) -> float:
    """Recall@1 of the held-out queries with their spelling corrected, as a server corrects it."""
    asked = held_out(run_examples(run), TEST)
    corrected = [SpellingCorrector.load(run.signals_folder).correct(text)[0] for text in asked.texts]
    assert corrected != asked.texts
    top = ranked(fused_ranker(run), dataclasses.replace(asked, texts=corrected))
    return float((top[:, 0] == asked.items).mean())


@pytest.mark.parametrize(
    "change",
    [
        {"augmentation": ALL},
        {"adversarial": AdversarialSettings(Adversary.FGM)},
        {"precision": Precision.BF16},
        {"weigh_by_sentiment": True},
        {"correct_spelling": True},
    ],
    ids=lambda change: "-".join(map(str, change)),
)
def test_a_switch_changes_the_text_signal_and_the_right_item_still_comes_first(
    plain: Run, data: Path, settings: FitSettings, tmp_path: Path, change: dict[str, object]
) -> None:
    run = fit(str(data), dataclasses.replace(settings, **change), tmp_path / "run")  # type: ignore[arg-type]
    assert not np.array_equal(run.array("items/text"), plain.array("items/text"))
    # The other signals learn from the same words, but for corrected ones.
    assert np.array_equal(run.array("items/lexical"), plain.array("items/lexical")) == ("correct_spelling" not in change)
    assert evaluate(run, baselines=["none"]).value("fused", "recall_at_1") == 1.0
    assert first_as_served(run) == 1.0
    assert json.loads(json.dumps(run.settings)) == open_run(run.folder).settings


def test_an_interrupted_run_with_every_tool_continues_to_the_same_result(
    data: Path, settings: FitSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Adaptive strength, what was drawn for a step, and FreeLB's random beginnings are taken up where they were."""
    tools = dataclasses.replace(settings, epochs=2, augmentation=TYPOS, adversarial=FREELB, weigh_by_sentiment=True)
    whole = fit(str(data), tools, tmp_path / "whole")
    monkeypatch.setattr(optimise, "CHECKPOINT_EVERY_S", 0.0)
    encoder_steps = 0

    def interrupted(optimiser: torch.optim.Optimizer, *descent: Descent) -> None:
        nonlocal encoder_steps
        encoder_steps += len(optimiser.param_groups) == 2 and optimiser.param_groups[0]["weight_decay"] > 0
        if encoder_steps == 11:
            raise KeyboardInterrupt
        move(optimiser, *descent)

    monkeypatch.setattr(optimise, "move", interrupted)
    with pytest.raises(KeyboardInterrupt):
        fit(str(data), tools, tmp_path / "cut")
    monkeypatch.setattr(optimise, "move", move)
    continued = fit(str(data), tools, tmp_path / "cut")
    for name in ("items/text", "items/lexical"):
        np.testing.assert_array_equal(whole.array(name), continued.array(name))


def test_complaints_weigh_less_by_the_formula() -> None:
    weights = sentiment_weights(["horrible", "I love this dress", "a dress", "很难看"])
    assert weights[0] == pytest.approx(1 - (1 - LEAST_WEIGHT) * 0.5423)  # VADER's compound of the word alone is −0.5423
    assert weights[1:].tolist() == [1.0, 1.0, 1.0]


def test_a_weighted_loss_is_the_weighted_mean(settings: FitSettings) -> None:
    vectors = np.random.default_rng(0).normal(size=(7, 4)).astype(np.float32)
    side = ItemSide(vectors, np.ones(7, np.int64), 0.5)
    user, items, weights = torch.from_numpy(vectors[:3]), torch.tensor([1, 5, 2]), torch.tensor([1.0, 0.25, 0.5])
    for sizes in ((), (2,)):
        loss_of = CatalogueLoss(side, dataclasses.replace(settings, matryoshka=sizes))
        rows = torch.stack([loss_of(user[row : row + 1], items[row : row + 1]) for row in range(3)])
        torch.testing.assert_close(loss_of(user, items, weights=weights), (weights * rows).sum() / 1.75)
        torch.testing.assert_close(loss_of(user, items, weights=torch.ones(3)), loss_of(user, items))


def test_bf16_computes_nearly_the_same_loss_and_gradients(tiny_backbone: Path, settings: FitSettings) -> None:
    encoder = Encoder.load(tiny_backbone)
    encoder.requires_grad_(True).eval()
    side = ItemSide(np.random.default_rng(0).normal(size=(9, 32)).astype(np.float32), np.ones(9, np.int64), 0.5)
    hidden, mask = torch.randn(4, 6, 32, generator=torch.Generator().manual_seed(0)), torch.ones(4, 6, dtype=torch.int64)
    mask[1, 3:] = 0
    weight = encoder.bert.encoder.layer[1].output.dense.weight
    found = {}
    for precision in (Precision.FP32, Precision.BF16):
        encoder.zero_grad()
        with autocast(precision):
            loss = CatalogueLoss(side, settings)(encoder.upper(hidden, mask, 0), torch.tensor([1, 2, 3, 4]))
        loss.backward()  # type: ignore[no-untyped-call]
        assert loss.dtype is torch.float32
        found[precision] = float(loss.detach()), weight.grad.clone()
    (exact, gradient), (rounded, near) = found.values()
    assert rounded != exact  # it was computed in bf16 indeed
    assert rounded == pytest.approx(exact, rel=0.02)
    assert torch.nn.functional.cosine_similarity(gradient.flatten(), near.flatten(), dim=0) > 0.99


def test_the_command_line_says_what_the_settings_are() -> None:
    def asked(*switches: str) -> dict[str, object]:
        return chosen(_parser().parse_args(["fit", "--data", "clothing", "--output", "out", *switches]))

    assert asked() == {}
    assert asked("--augment", "crop,typos", "--augment-strength", "0.3") == {
        "augmentation": AugmentationSettings((Augmentation.TYPOS, Augmentation.CROP), strength=0.3)
    }
    assert asked("--augment", "swap", "--augment-strength", "adaptive") == {
        "augmentation": AugmentationSettings((Augmentation.SWAP,), adaptive=True)
    }
    assert asked("--adversarial", "freelb", "--adversarial-epsilon", "0.1", "--adversarial-steps", "2") == {
        "adversarial": AdversarialSettings(Adversary.FREELB, 0.1, steps=2)
    }
    assert asked("--correct-spelling", "--weigh-by-sentiment", "--precision", "auto") == {
        "correct_spelling": True,
        "weigh_by_sentiment": True,
        "precision": Precision.AUTO,
    }
    for switches, reason in {
        ("--augment-strength", "0.2"): "mean nothing without --augment",
        ("--augment", "typos", "--augment-strength", "much"): "'much'; accepted are adaptive and a number",
        ("--adversarial-epsilon", "0.2"): "mean nothing without --adversarial",
        ("--adversarial", "fgm", "--adversarial-step-size", "0.2"): "--adversarial-step-size is an option of freelb",
    }.items():
        with pytest.raises(InvalidInput, match=reason):
            asked(*switches)


def test_synonyms_are_those_of_the_wordnet_that_is_there_unless_another_or_none_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def asked(*switches: str) -> str | None:
        given = ["fit", "--data", "clothing", "--output", "out", "--augment", "synonyms,typos", *switches]
        augmentation = chosen(_parser().parse_args(given))["augmentation"]
        assert isinstance(augmentation, AugmentationSettings)
        return augmentation.wordnet

    fetched, installed, own = (tmp_path / name for name in ("fetched", "installed", "own"))
    monkeypatch.setattr("train.augmentation.wordnet.FETCHED", fetched)
    monkeypatch.setattr("train.augmentation.wordnet.INSTALLED", installed)
    assert asked() is None
    for folder in (installed, fetched, own):
        write_wordnet(folder)
        assert asked() == str(installed if folder is installed else fetched)
    assert asked("--wordnet", str(own)) == str(own)
    assert asked("--wordnet", "none") is None
    with pytest.raises(InvalidInput, match="holds no WordNet .* make data-wordnet"):
        asked("--wordnet", str(tmp_path))


def test_a_signal_can_be_left_out(data: Path, tmp_path: Path, tiny_backbone: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["fit", "--data", str(data), "--backbone", str(tiny_backbone), "--output", str(tmp_path / "run"), "--without"]
    assert main([*command, "text"]) == 2
    assert "without names 'text'; accepted are graph, behaviour" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
    assert main([*command, "graph"]) == 0
    assert "graph" not in open_run(tmp_path / "run").record["signals"]


def test_a_refused_switch_ends_the_command_in_one_line(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fit", "--data", str(data), "--output", str(tmp_path / "run"), "--augment", "shout"]) == 2
    assert "error: augmentation is 'shout'; accepted are some of synonyms" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
