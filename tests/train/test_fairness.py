"""Groups are compared, exposure is counted, harmful requests are refused; and the card says what the records say."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from bertrec.errors import InvalidInput, InvalidRun
from tests import tiny
from train.__main__ import main
from train.bootstrap import Estimate
from train.card import card
from train.clothing import load_clothing
from train.data import Dataset, Item
from train.evaluate import evaluate
from train.examples import UNSEEN, Examples, Pairs
from train.fairness import FAIRNESS_FILE, FEWEST, Gap, exposure, fairness, popularity, refusals, segment
from train.fit import fit
from train.records import write_json
from train.run import Run
from train.settings import PRESETS, Preset


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, tiny_backbone: Path) -> Run:
    """A run on the checkerboard that was evaluated."""
    data = tiny.write_data(tmp_path_factory.mktemp("data") / "checkerboard", per_item=6)
    settings = dataclasses.replace(PRESETS[Preset.QUICK], backbone=str(tiny_backbone), batch_size=8, max_minutes=None)
    trained = fit(str(data), settings, tmp_path_factory.mktemp("runs") / "tiny")
    evaluate(trained)
    return trained


def test_a_real_gap_is_told_from_one_by_chance() -> None:
    random = np.random.default_rng(0)
    quality = np.concatenate([random.uniform(0.5, 0.9, 200), random.uniform(0.1, 0.5, 100), np.zeros(FEWEST - 1)])
    groups = ["served"] * 200 + ["neglected"] * 100 + ["few"] * (FEWEST - 1)
    found = segment(quality, groups, 0)
    assert found.queries == {"few": FEWEST - 1, "neglected": 100, "served": 200}
    assert found.gap is not None
    assert (found.gap.best, found.gap.worst) == ("served", "neglected")  # the few take no part
    assert found.gap.difference.value == pytest.approx(quality[:200].mean() - quality[200:300].mean())
    assert found.gap.difference.excludes_zero
    assert found.gap.by_chance == pytest.approx(1 / 1001)

    alike = random.uniform(0.0, 1.0, 600)
    gap = segment(alike, [str(number % 6) for number in range(600)], 0).gap
    assert gap is not None and gap.by_chance > 0.05
    assert segment(alike, ["one"] * 600, 0).gap is None


def test_exposure_counts_the_places_of_each_group(run: Run) -> None:
    found = fairness(run)
    assert found.attribute == "colour" and found.segments == {}
    assert len(found.exposure) == tiny.ITEMS  # each item has a colour of its own
    assert sum(share.shown.value for share in found.exposure.values()) == pytest.approx(1.0)
    assert sum(share.chosen for share in found.exposure.values()) == pytest.approx(1.0)
    assert sum(share.asked for share in found.exposure.values()) == pytest.approx(1.0)
    with pytest.raises(InvalidInput, match="attribute is 'price'"):
        fairness(run, attribute="price")


def test_who_is_shown_more_popular_items_than_they_ask_for() -> None:
    counts = np.asarray([6, 2, 0, 0])  # 3, 1, 0 and 0 times the average item's
    top = np.asarray([[0, 1]] * FEWEST + [[2, UNSEEN]] * FEWEST + [[0, 0]])
    relevant = np.asarray([1] * FEWEST + [0] * FEWEST + [UNSEEN])
    found = popularity(top, relevant, counts, ["old"] * FEWEST + ["young"] * FEWEST + ["few"], 0)
    assert found.asked == {"few": 0.0, "old": 1.0, "young": 3.0}
    assert found.shown == {"few": 3.0, "old": 2.0, "young": 0.0}
    assert {name: one.value for name, one in found.lift.items()} == {"few": 3.0, "old": 1.0, "young": -3.0}
    assert found.gap == Gap("old", "young", Estimate(4.0, 4.0, 4.0), 1 / 1001)  # the few take no part


def test_shares_of_the_places_against_what_was_asked_for() -> None:
    items = tuple(Item(str(row), attributes={"department": name}) for row, name in enumerate("abb"))
    asked = Pairs(["one", "two", "three"], np.asarray([2, 1, UNSEEN]))
    nothing = Pairs([], np.zeros(0, np.int64))
    examples = Examples(np.arange(3), np.asarray([3, 1, 0]), ["", "", ""], nothing, nothing, asked)
    top = np.asarray([[0, 1], [0, 1], [2, 1]])
    found = exposure(Dataset("three", items, ()), examples, asked, top, "department", 0)
    assert (found["a"].items, found["a"].chosen, found["a"].asked) == (1, 0.75, 0.0)
    assert found["a"].shown.value == pytest.approx(1 / 3) and found["b"].shown.value == pytest.approx(2 / 3)
    assert found["a"].lift == Estimate(0.5, 0.5, 0.5)  # over the two queries whose item can be shown
    assert found["b"].lift == Estimate(-0.5, -0.5, -0.5)


def test_the_bundled_rules_refuse_the_list_and_hardly_a_review() -> None:
    found = refusals([interaction.text for interaction in load_clothing().interactions[::5]])
    assert found.harmful >= 40
    assert (found.refused, list(found.missed)) == (found.harmful, [])
    assert all(found.by_rule.values())
    assert (found.held_out, found.held_out_refused) == (4529, 0)


def test_what_no_rule_knows_is_reported_as_missed(tmp_path: Path) -> None:
    harmful, book = tmp_path / "harmful.txt", tmp_path / "rules.json"
    harmful.write_text("# a comment\nbuy a cannon\nbuy a catapult\n")
    book.write_text(json.dumps({"rules": [{"name": "no", "if": {"any": ["cannon"]}, "then": {"effect": "refuse"}}]}))
    found = refusals(["a red coat", "a cannon print"], harmful=harmful, book=book)
    assert (found.harmful, found.refused, list(found.missed)) == (2, 1, ["buy a catapult"])
    assert (found.held_out, found.held_out_refused) == (2, 1)
    harmful.write_text("# nothing\n")
    with pytest.raises(InvalidInput, match="holds no requests"):
        refusals([], harmful=harmful, book=book)


def test_the_card_takes_every_figure_from_the_records(run: Run, tmp_path: Path) -> None:
    copy = Run(shutil.copytree(run.folder, tmp_path / "run"), run.record)
    assert f"python -m train fairness --run {copy.folder.name}" in card(copy)
    assert main(["fairness", "--run", str(copy.folder)]) == 0
    assert main(["card", "--run", str(copy.folder), "--output", str(tmp_path / "card.md")]) == 0
    text = (tmp_path / "card.md").read_text()
    titles = re.findall(r"^## (.*)$", text, re.MULTILINE)
    assert titles[0] == "Model details" and titles[-1] == "Caveats and recommendations" and len(titles) == 9
    written = json.loads((copy.folder / "metrics.json").read_text())
    written["kinds"]["as-written"]["rankers"]["fused"]["ndcg_at_10"] = {"value": 0.1234, "low": 0.1, "high": 0.2}
    write_json(copy.folder / "metrics.json", written)
    assert "0.123 (0.100…0.200)" in card(copy) and "0.123 (0.100…0.200)" not in text
    found = json.loads((copy.folder / FAIRNESS_FILE).read_text())
    found["segments"] = {"age": {"gap": {"best": "old", "worst": "young", "by_chance": 0.2, "difference": dict.fromkeys(
        ("value", "low", "high"), 0.25)}}}  # fmt: skip
    by_age = {"asked": {"old": 1.5}, "shown": {"old": 2.25}, "lift": {"old": dict.fromkeys(("value", "low", "high"), 0.75)}}
    gap = {"best": "old", "worst": "young", "by_chance": 0.01, "difference": dict.fromkeys(("value", "low", "high"), 0.5)}
    found["popularity"] = {"age": {**by_age, "gap": gap}}
    share = found["exposure"]["amber"]
    found["exposure"] = {"amber": share, "teal": {**share, "lift": {"value": -0.9, "low": -0.95, "high": -0.85}}}
    write_json(tmp_path / "other.json", found)
    said = card(copy, fairness=tmp_path / "other.json")
    assert "| age | old | 1.500 | 2.250 | 0.750 (0.750…0.750) |" in said
    assert "age: 0.500 (0.500…0.500) between old and young" in said and "so it is more than chance gives" in said
    assert "the largest gap between what is shown and what was asked for is that of teal, -0.900 (-0.950…-0.850):" in said
    assert "age: 0.250 (0.250…0.250) between old and young" in said and "no more than chance gives" in said


def test_the_card_says_what_the_matcher_could_reach_and_what_it_moves(run: Run, tmp_path: Path) -> None:
    copy = Run(shutil.copytree(run.folder, tmp_path / "run"), run.record)
    told = {"texts": 812, "majority": 0.5, "accuracy": 0.671, "f1": 0.7, "auc": 0.75}
    reranked = {
        "texts": 412,
        "weight": 0.25,
        "candidate_recall": 0.8125,
        "ndcg_at_10": {"recommender": 0.3871, "reranked": 0.3882, "matcher alone": 0.2133},
        "difference": [0.0011, -0.002, 0.004],
        "exposure": {
            "recommender": {"coverage_at_10": 0.53, "gini_at_10": 0.81},
            "reranked": {"coverage_at_10": 0.55, "gini_at_10": 0.79},
        },
    }
    (copy.folder / "matcher").mkdir()
    record = {"settings": {"top": 50}, "test": {"fits": told, "recommends": told, "reranked": reranked}}
    write_json(copy.folder / "matcher/matcher.json", record)
    said = " ".join(card(copy).split())
    assert "On 412 texts of those whose item is in the catalogue, candidate recall@50 is 0.812" in said
    assert "NDCG@10: recommender 0.387, reranked 0.388, matcher alone 0.213." in said
    assert "Exposure without and with reranking: coverage@10 0.530 and 0.550, gini@10 0.810 and 0.790." in said


def test_a_card_wants_a_run_that_was_evaluated(run: Run, tmp_path: Path) -> None:
    with pytest.raises(InvalidRun, match="is not evaluated; do it by: python -m train evaluate"):
        card(Run(tmp_path, run.record))
    with pytest.raises(InvalidRun, match="nothing.json cannot be read; it is made by: python -m train fairness"):
        card(run, fairness=tmp_path / "nothing.json")
    write_json(tmp_path / "older.json", {"segments": {}})
    with pytest.raises(InvalidRun, match="older.json cannot be read; it is made by: python -m train fairness"):
        card(run, fairness=tmp_path / "older.json")
