"""The matcher: what it learns, what reranking does with it, what is resumed, reused and refused."""

from __future__ import annotations

import dataclasses
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bertrec.errors import InvalidData, InvalidRun
from bertrec.matching import MATCHER_FOLDER, Matching, log_odds, pair_batches, pair_inputs
from bertrec.text import Tokens
from tests import tiny
from train.__main__ import main
from train.descent import Descent
from train.examples import UNSEEN
from train.fit import fit
from train.matcher import MatcherSettings, fit_matcher, load_matcher
from train.matcher.lessons import UNKNOWN, Lessons
from train.matcher.measure import reordered
from train.matcher.network import MATCHER_FILE
from train.run import Run, open_run
from train.settings import PRESETS, Preset

QUICK = MatcherSettings(epochs=12, batch_size=16, learning_rate=3e-3, item_tokens=8, top=5, precision="fp32")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, tiny_backbone: Path) -> Run:
    data = tiny.write_data(tmp_path_factory.mktemp("data") / "checkerboard", per_item=12)
    path = data / "interactions.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    # Who says "please" or "again" recommends; nobody said what the first three think.
    judged = [{**row, "label": float("please" in row["text"] or "again" in row["text"])} for row in rows[3:]]
    path.write_text("".join(json.dumps(row) + "\n" for row in [*rows[:3], *judged]))
    settings = dataclasses.replace(PRESETS[Preset.QUICK], backbone=str(tiny_backbone), epochs=2, batch_size=8, max_minutes=None)
    return fit(str(data), settings, tmp_path_factory.mktemp("runs") / "tiny")


@pytest.fixture(scope="module")
def record(run: Run) -> dict[str, Any]:
    return fit_matcher(run, QUICK)


def test_it_learns_what_writers_think_and_says_how_reranking_went(run: Run, record: dict[str, Any]) -> None:
    recommends = record["test"]["recommends"]
    assert recommends["auc"] > 0.95  # the pass is kept that tells both best, which need not be the most accurate one
    assert record["test"]["fits"]["texts"] == 2 * record["test"]["reranked"]["texts"]
    reranked = record["test"]["reranked"]
    assert reranked["candidate_recall"] == 1.0
    assert set(reranked["ndcg_at_10"]) == {"recommender", "reranked", "matcher alone"}
    loaded = load_matcher(run)
    assert loaded is not None
    assert loaded[1] == Matching(item_tokens=8, top=5, weight=reranked["weight"], recommends=True)


def test_padding_and_neighbours_do_not_change_an_answer(run: Run, record: object) -> None:
    loaded = load_matcher(run)
    assert loaded is not None
    texts, items = [Tokens([2, 5, 6, 3], False), Tokens([2, 7, 3], False)], [[9, 3], []]
    with torch.inference_mode():
        together = loaded[0](*(torch.from_numpy(value) for value in pair_inputs(texts, items, 16).values()))
        alone = [
            loaded[0](*(torch.from_numpy(value) for value in pair_inputs([text], [item]).values()))
            for text, item in zip(texts, items, strict=True)
        ]
    torch.testing.assert_close(together, torch.cat(alone), atol=1e-5, rtol=1e-4)


def test_a_pair_is_two_segments_and_a_batch_holds_one_length() -> None:
    texts = [Tokens([2, 5, 3], False), Tokens([2] + [5] * 20 + [3], False), Tokens([2, 6, 3], False)]
    (first, short), (second, long) = pair_batches(texts, [[8, 3], [8, 3], []])
    assert (first.tolist(), second.tolist()) == ([2, 0], [1])
    assert short["input_ids"].shape == (2, 16)
    assert long["input_ids"].shape == (1, 32)
    assert short["input_ids"][1, :6].tolist() == [2, 5, 3, 8, 3, 0]
    assert short["token_type_ids"][1, :6].tolist() == [0, 0, 0, 1, 1, 0]
    assert short["attention_mask"].sum(1).tolist() == [3, 5]


def test_reranking_adds_weighted_log_odds_and_leaves_what_is_no_candidate_behind() -> None:
    lessons = Lessons(
        [Tokens([2, 3], False)],
        np.asarray([1]),
        np.asarray([[4, 1, UNSEEN]]),
        np.asarray([[2.0, 1.5, -np.inf]], np.float32),
        np.asarray([UNKNOWN]),
        [[3]] * 5,
    )
    odds = np.asarray([[*log_odds(np.asarray([0.5, 0.9], np.float32)), -np.inf]], np.float32)
    assert reordered(lessons, odds, 0.0).tolist() == [[4, 1, UNSEEN]]
    assert reordered(lessons, odds, 0.2).tolist() == [[4, 1, UNSEEN]]  # 1.5 + .2 · 2.2 < 2
    assert reordered(lessons, odds, 0.3).tolist() == [[1, 4, UNSEEN]]
    assert log_odds(np.asarray([0.0, 1.0], np.float32)) == pytest.approx([-13.8, 13.8], abs=0.1)


def test_an_interrupted_training_continues_to_the_same_matcher(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = sys.modules["train.passes"]
    quick = dataclasses.replace(QUICK, epochs=2)
    copy = open_run(shutil.copytree(run.folder, tmp_path / "run", ignore=shutil.ignore_patterns(MATCHER_FOLDER)))
    fit_matcher(copy, quick)
    weights = copy.folder / MATCHER_FOLDER / "model.safetensors"
    whole = weights.read_bytes()
    shutil.rmtree(weights.parent)
    monkeypatch.setattr(module, "CHECKPOINT_EVERY_S", 0.0)
    step, steps = module.step_down, 0

    def interrupted(optimiser: torch.optim.Optimizer, loss: torch.Tensor, *descent: Descent) -> float:
        nonlocal steps
        steps += 1
        if steps == 15:
            raise KeyboardInterrupt
        return float(step(optimiser, loss, *descent))

    monkeypatch.setattr(module, "step_down", interrupted)
    with pytest.raises(KeyboardInterrupt):
        fit_matcher(copy, quick)
    assert load_matcher(copy) is None
    monkeypatch.setattr(module, "step_down", step)
    fit_matcher(copy, quick)
    assert weights.read_bytes() == whole


def test_what_is_there_is_reused_and_what_differs_is_refused(
    run: Run, record: object, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = open_run(shutil.copytree(run.folder, tmp_path / "run"))
    path = copy.folder / MATCHER_FOLDER / MATCHER_FILE
    written = path.stat().st_mtime_ns
    assert fit_matcher(copy, QUICK) == record
    assert path.stat().st_mtime_ns == written
    with pytest.raises(InvalidRun, match=r"another settings. Delete it"):
        fit_matcher(copy, dataclasses.replace(QUICK, epochs=1))
    path.write_text(json.dumps({**json.loads(path.read_text()), "encoder": "0" * 64}))
    with pytest.raises(InvalidRun, match="beside another encoder"):
        load_matcher(copy)
    path.write_text("[]")
    with pytest.raises(InvalidRun, match="is not a matcher's record"):
        load_matcher(copy)
    assert main(["matcher", "--run", str(copy.folder), "--epochs", "0"]) == 2
    assert "epochs is 0; accepted is 1 or more" in capsys.readouterr().err


def test_items_without_anybody_s_words_teach_nothing(tmp_path: Path, tiny_backbone: Path) -> None:
    data = tmp_path / "items"
    data.mkdir()
    (data / "items.jsonl").write_text(
        "".join(json.dumps({"item_id": str(item), "title": tiny.item_text(item)}) + "\n" for item in range(8))
    )
    settings = dataclasses.replace(PRESETS[Preset.QUICK], backbone=str(tiny_backbone))
    with pytest.raises(InvalidData, match="no texts of people"):
        fit_matcher(fit(str(data), settings, tmp_path / "run"), QUICK)
