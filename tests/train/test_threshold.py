"""When to answer nothing: thresholds by hand, and on a run whose right answers are known."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from bertrec.confidence import SURENESS
from bertrec.errors import InvalidData, InvalidInput
from tests import tiny
from train.__main__ import main
from train.examples import UNSEEN, Pairs
from train.fit import fit
from train.rankers import fused_ranker
from train.run import Run
from train.settings import PRESETS, Preset
from train.threshold import ANSWERABLE, Outcomes, Questions, answer, best_threshold, find_threshold, halves, judge

NOTHING = ["nothing please", "what is very long", "wish wish wish", "that catalogue", "please want", "what knows that"]


def questions(sureness: list[float], right: list[bool], kinds: list[str]) -> Questions:
    """Two measures: the sureness given, and one that tells nothing."""
    measures = {"told": np.asarray(sureness), "constant": np.zeros(len(right))}
    return Questions(
        [f"question {n}" for n in range(len(right))], kinds, np.zeros(len(right), np.int64), np.asarray(right), measures
    )


@pytest.mark.parametrize(
    ("sureness", "right", "threshold"),
    [
        ([1.0, 2.0, 3.0, 4.0], [False, False, True, True], 2.5),
        ([4.0, 1.0, 3.0, 2.0], [True, False, True, False], 2.5),  # in any order
        ([1.0, 2.0, 3.0, 4.0], [True, True, True, False], 1.0),  # nothing is worth refusing
        ([1.0, 1.0, 1.0, 2.0], [False, True, True, True], 1.0),  # no cut between equals
        ([1.0, 2.0, 3.0, 4.0], [False, True, False, True], 3.5),  # of equally good cuts the cautious one
        ([1.0, 2.0], [True, False], np.nextafter(2.0, 3.0)),  # as good to refuse everything as nothing: the cautious one
    ],
)
def test_the_threshold_makes_the_most_right_decisions(sureness: list[float], right: list[bool], threshold: float) -> None:
    assert best_threshold(np.asarray(sureness), np.asarray(right)) == threshold


def test_no_threshold_decides_better_than_the_chosen_one() -> None:
    random = np.random.default_rng(0)
    for _ in range(50):
        sureness, right = random.integers(8, size=12).astype(float), random.random(12) < 0.5
        chosen = best_threshold(sureness, right)
        decisions = [(right == (sureness >= cut)).sum() for cut in np.arange(-0.5, 9.0)]
        assert (right == (sureness >= chosen)).sum() == max(decisions)


def test_a_judgement_counts_what_the_other_half_was_answered() -> None:
    kinds = [ANSWERABLE] * 4 + [ANSWERABLE, ANSWERABLE, ANSWERABLE, "none", "none"]
    asked = questions([1, 2, 3, 4, 5, 1, 2, 9, 0], [False, False, True, True, True, True, False, False, False], kinds)
    found = judge(asked, np.arange(4), np.arange(4, 9), seed=0)
    assert (found.measure, found.threshold, found.auc_chosen) == ("told", 2.5, {"told": 1.0, "constant": 0.5})
    assert found.outcomes == {ANSWERABLE: Outcomes(1, 0, 1, 1), "none": Outcomes(0, 1, 1, 0)}
    assert found.right.value == pytest.approx(3 / 5)
    assert found.over_answering.value == pytest.approx(3 / 5 - 2 / 5)
    assert found.over_refusing.value == pytest.approx(3 / 5 - 3 / 5)
    assert found.auc == pytest.approx(3 / 6)  # (5, 1) against (2, 9, 0)
    with pytest.raises(InvalidData, match="of 2 questions, 0 are answered right; accepted is a half with right and wrong"):
        judge(asked, np.arange(2), np.arange(4, 9), seed=0)


def test_halves_are_drawn_kind_by_kind() -> None:
    kinds = ["a"] * 10 + ["b"] * 5
    first, second = halves(kinds, 0)
    assert sorted([*first, *second]) == list(range(15))
    assert [(sum(kinds[p] == kind for p in half)) for half in (first, second) for kind in "ab"] == [5, 2, 5, 3]
    assert halves(kinds, 0)[0].tolist() == first.tolist() != halves(kinds, 1)[0].tolist()


def test_measures_of_sureness_by_hand() -> None:
    fused, text = np.asarray([[0.0, np.log(3.0), -np.inf]], np.float32), np.asarray([[7.0, 1.0, -np.inf]], np.float32)
    found = {name: measure(fused, text)[0] for name, measure in SURENESS.items()}
    assert found == pytest.approx({"score": np.log(3.0), "margin": np.log(3.0), "probability": 0.75, "text": 7.0})


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, tiny_backbone: Path) -> Run:
    data = tiny.write_data(tmp_path_factory.mktemp("data") / "checkerboard", per_item=6)
    settings = dataclasses.replace(PRESETS[Preset.QUICK], backbone=str(tiny_backbone), batch_size=8, max_minutes=None)
    return fit(str(data), settings, tmp_path_factory.mktemp("runs") / "tiny")


def test_the_checkerboard_is_answered_and_everything_else_refused(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, page = tmp_path / "nothing.jsonl", tmp_path / "page.md"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in NOTHING))
    assert main(["threshold", "--run", str(run.folder), "--unanswerable", str(path), "--page", str(page)]) == 0
    assert "AUC 1.000" in capsys.readouterr().out
    written = json.loads((run.folder / "threshold.json").read_text())
    judgement, examples = written["judgement"], written["examples"]
    assert (
        judgement["auc"] == 1.0 and judgement["right"]["value"] >= 0.8
    )  # a threshold chosen by nine questions may miss a little
    answered = [row for row in examples if row["kind"] == ANSWERABLE and row["sureness"] >= judgement["threshold"]]
    assert judgement["outcomes"][ANSWERABLE]["answered_right"] == len(answered) and all(row["right"] for row in answered)
    nothing = judgement["outcomes"]["no answer"]
    assert nothing["answered_wrong"] + nothing["refused_rightly"] == len(NOTHING) // 2
    assert written["run_created"] == run.record["created"]
    assert f"| no answer | {' | '.join(str(count) for count in nothing.values())} |" in page.read_text()


def test_questions_that_cannot_be_read_are_said(run: Run, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"unanswerable is '.*absent.jsonl'; accepted is a file that ends in .parquet"):
        find_threshold(run, tmp_path / "absent.jsonl")
    path = tmp_path / "nothing.jsonl"
    path.write_text('{"text": "what is it?"}\n{"text": " "}\n')
    with pytest.raises(InvalidData, match="row 2, column text: found nothing to read; accepted is a question"):
        find_threshold(run, path)
    path.write_text('{"text": "what is it?", "kind": "answerable"}\n')
    with pytest.raises(InvalidData, match="column kind: found 'answerable'; accepted is the name of a kind without answers"):
        find_threshold(run, path)


def test_sureness_looks_at_the_candidates_that_a_server_gets(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    ranker, asked = fused_ranker(run), Pairs(NOTHING, np.full(len(NOTHING), UNSEEN, np.int64))
    whole = answer(ranker, asked, NOTHING)
    monkeypatch.setattr("train.threshold.MAX_K", 2)
    two = answer(ranker, asked, NOTHING)
    np.testing.assert_allclose(two.sureness["margin"], whole.sureness["margin"])
    np.testing.assert_allclose(two.sureness["probability"], 1 / (1 + np.exp(-whole.sureness["margin"])), rtol=1e-5)
    assert (two.sureness["probability"] > whole.sureness["probability"]).all()
    assert (two.sureness["text"] <= whole.sureness["text"]).all()
