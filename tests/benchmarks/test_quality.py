"""The quality benchmark: two seeds of a tiny data set from the command line to the page, and its parts by hand."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.__main__ import PRESETS, main
from benchmarks.pooling import Seed, pooled, pooled_slices
from benchmarks.quality import QualitySettings, best_details, chosen_point, measure_quality, read_quality
from benchmarks.quality_page import quality_page
from benchmarks.studies import ABLATION, CORRECTED, CUT, TYPOS_CORRECTED, run_studies
from benchmarks.targets import Target, targets
from benchmarks.transfer import cut, english_only, measure_transfer
from bertrec.errors import InvalidInput
from tests import tiny
from train.data import Dataset, Interaction, Item
from train.evaluate import run_dataset
from train.report import read_evaluation, read_per_query
from train.run import Run, open_run
from train.settings import Preset


@dataclasses.dataclass(frozen=True)
class Measured:
    """What one call of the command left."""

    arguments: list[str]
    output: Path
    page: Path
    runs: tuple[Run, ...]
    content: dict[str, Any]


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory, tiny_backbone: Path) -> Measured:
    folder = tmp_path_factory.mktemp("quality")
    data = tiny.write_data(folder / "checkerboard", per_item=6)
    output, page = folder / "results" / "quality.json", folder / "docs" / "quality.md"
    arguments = ["quality", "--preset", "quick", "--data", str(data), "--seeds", "0,1", "--backbone", str(tiny_backbone)]
    arguments += ["--runs", str(folder / "runs"), "--output", str(output), "--page", str(page)]
    assert main(arguments) == 0
    runs = tuple(open_run(folder / "runs" / f"checkerboard-quick-{seed}") for seed in (0, 1))
    return Measured(arguments, output, page, runs, json.loads(output.read_text()))


def test_a_figure_at_the_top_is_that_of_the_evaluations(measured: Measured) -> None:
    for ranker in ("fused", "text alone", "TF-IDF centroid", "popularity"):
        for metric in ("ndcg_at_10", "recall_at_1", "class_at_1", "coverage_at_10", "novelty_at_10"):
            statistic = measured.content["checkerboard"][ranker][metric]
            evaluations = [read_evaluation(run) for run in measured.runs]
            values = [evaluation.value(ranker, metric) for evaluation in evaluations if evaluation is not None]
            assert statistic["seeds"] == pytest.approx(values, abs=1e-5)
            assert statistic["value"] == pytest.approx(np.mean(values), abs=1e-5)  # both seeds hold out as many queries
            assert statistic["preset"] == "quick"
    popularity = measured.content["checkerboard"]["popularity"]["recall_at_10"]
    assert popularity["low"] < popularity["value"] < popularity["high"]
    assert measured.content["checkerboard"]["fused"]["recall_at_1"]["value"] == 1.0


def test_the_details_hold_what_was_asked_and_where(measured: Measured) -> None:
    details = measured.content["details"]["quick"]["checkerboard"]
    asked = ["as-written", "class-masked", "typos", "synonyms", "word-order"]  # nobody has a history
    assert list(details["kinds"]) == [*asked, CORRECTED, TYPOS_CORRECTED]
    assert details["seeds"] == [0, 1]
    assert [run["settings"]["seed"] for run in details["runs"]] == [0, 1]
    assert all(run["minutes"] >= 0 for run in details["runs"])
    assert details["provenance"]["cores"] >= 1
    queries = details["kinds"]["as-written"]["queries"]
    assert sum(group["queries"] for group in details["slices"]["training_interactions"].values()) == queries
    assert {"at most 5"} == set(details["slices"]["few_training_interactions"])  # of six texts an item one is held out


def test_lists_of_unlike_items_cost_what_is_shown_and_no_diversity_costs_nothing(measured: Measured) -> None:
    details = measured.content["details"]["quick"]["checkerboard"]
    lists = details["diversified"]["rankers"]
    assert lists["diversity 0"]["ndcg_at_10"] == details["ablation"]["rankers"]["fused"]["ndcg_at_10"]
    assert lists["diversity 0.5"]["diversity_at_10"]["value"] > lists["diversity 0"]["diversity_at_10"]["value"]
    assert lists["diversity 0.5"]["recall_at_1"] == lists["diversity 0"]["recall_at_1"]  # the first item stays
    assert list(details["shorter"]["rankers"]) == ["fused"]  # the tiny vectors have 32 dimensions


def test_the_ablation_answers_the_same_queries(measured: Measured) -> None:
    details = measured.content["details"]["quick"]["checkerboard"]
    signals = list(measured.runs[0].record["signals"])
    assert list(details["ablation"]["rankers"]) == [
        "fused",
        *(f"fused without {signal}" for signal in signals),
        *(f"{signal} alone" for signal in signals),
    ]
    as_written = details["kinds"]["as-written"]["rankers"]
    for name in ("fused", "text alone", "lexical alone"):
        for metric in ("ndcg_at_10", "coverage_at_10"):
            assert details["ablation"]["rankers"][name][metric] == as_written[name][metric]
    # The prior alone is the baseline popularity, by another road.
    prior, popularity = details["ablation"]["rankers"]["prior alone"], as_written["popularity"]
    assert prior["recall_at_10"]["value"] == popularity["recall_at_10"]["value"]
    behind = details["ablation"]["differences"]["prior alone"]["recall_at_10"]
    assert behind["value"] == pytest.approx(1.0 - popularity["recall_at_10"]["value"], abs=1e-5)
    assert behind["low"] > 0


def test_popularity_by_its_chosen_weight_is_the_fused_recommender(measured: Measured) -> None:
    details = measured.content["details"]["quick"]["checkerboard"]
    points = details["operating_points"]
    assert list(points["test"]["rankers"]) == [f"popularity × {share}" for share in ("0", "0.25", "0.5", "0.75", "1", "1.5", "2")]
    assert points["test"]["rankers"]["popularity × 1"]["ndcg_at_10"] == details["ablation"]["rankers"]["fused"]["ndcg_at_10"]
    assert points["chosen"] == "popularity × 0"  # all are right, and the first of several is taken


def test_a_second_call_measures_nothing_anew_and_keeps_what_else_is_there(
    measured: Measured, capsys: pytest.CaptureFixture[str]
) -> None:
    others = {**measured.content["details"], "full": {"another": measured.content["details"]["quick"]["checkerboard"]}}
    measured.output.write_text(json.dumps({**measured.content, "details": others}))
    times = [path.stat().st_mtime_ns for run in measured.runs for path in run.folder.iterdir()]
    assert main(measured.arguments) == 0
    assert [path.stat().st_mtime_ns for run in measured.runs for path in run.folder.iterdir()] == times
    assert capsys.readouterr().err.count("reused") == 6  # training, evaluation and studies of both seeds
    written = json.loads(measured.output.read_text())
    assert written["details"]["full"]["another"]["seeds"] == [0, 1]
    assert written["another"]["fused"] == measured.content["checkerboard"]["fused"]
    assert written["checkerboard"] == measured.content["checkerboard"]


def test_the_page_shows_the_figures(measured: Measured) -> None:
    page = measured.page.read_text()
    assert "## checkerboard" in page
    assert "| fused | 1.000 ± 0.000 |" in page
    assert "| fused without lexical |" in page
    assert "### Typing errors" in page
    assert "Bold: popularity × 0," in page
    assert "| clothing | NDCG@10, fused | ≥ 0.380 | – | not measured |" in page
    assert "Preset quick, seeds 0, 1, backbone" in page
    assert "21 items ranked" in page
    assert "-0.0%" not in page
    assert "### Short histories" not in page
    assert all(line.count("|") >= 3 for line in page.splitlines() if line.startswith("|"))


def test_pooling_by_hand(measured: Measured) -> None:
    evaluation = read_evaluation(measured.runs[0])
    assert evaluation is not None
    dataset = Dataset(
        "two",
        (Item("a"), Item("b")),
        tuple(Interaction(0, "x", segments={"query": query, "item": "new"}) for query in ("long", "short", "long")),
    )

    def seed(rows: list[int], fused: list[int], other: list[int]) -> Seed:
        kind = {
            "rows": rows,
            "fused/ranks": fused,
            "other/ranks": other,
            "fused/coverage_at_10": 0.5,
            "other/coverage_at_10": 1.0,
        }
        arrays = {
            **{f"as-written/{name}": np.asarray(value) for name, value in kind.items()},
            "times": np.asarray([0, 6][: len(rows)]),
        }
        return Seed(measured.runs[0], evaluation, arrays)

    seeds = [seed([0, 1], [1, 0], [2, 3]), seed([2], [1], [1])]
    group = pooled(seeds, "as-written")
    assert group["queries"] == 3
    assert group["rankers"]["fused"]["recall_at_1"]["value"] == pytest.approx(2 / 3, abs=1e-5)
    assert group["rankers"]["fused"]["recall_at_1"]["seeds"] == [0.5, 1.0]
    assert group["rankers"]["fused"]["coverage_at_10"] == {"value": 0.5, "low": None, "high": None, "seeds": [0.5, 0.5]}
    ahead = (1 - 1 / np.log2(3) - 1 / np.log2(4) + 0) / 3
    assert group["differences"]["other"]["ndcg_at_10"]["value"] == pytest.approx(ahead, abs=1e-5)
    slices = pooled_slices(seeds, dataset)
    assert {value: part["queries"] for value, part in slices["query"].items()} == {"long": 2, "short": 1}
    assert slices["query, item"]["long, new"]["rankers"]["fused"]["recall_at_10"]["value"] == 1.0
    assert slices["query"]["short"]["rankers"]["fused"]["recall_at_10"]["seeds"] == [0.0, None]
    assert {value: part["queries"] for value, part in slices["training_interactions"].items()} == {"0": 2, ">5": 1}
    assert pooled(seeds, "never asked") == {"queries": 0, "rankers": {}}


def test_targets_are_judged_by_the_numbers() -> None:
    def rankers(**ndcg: float) -> dict[str, Any]:
        return {name: {"ndcg_at_10": {"value": value}} for name, value in ndcg.items()}

    def recall(queries: int, value: float) -> dict[str, Any]:
        return {"queries": queries, "rankers": {"fused": {"recall_at_10": {"value": value}}}}

    clothing = {
        "kinds": {"as-written": {"rankers": rankers(fused=0.4)}, TYPOS_CORRECTED: {"rankers": rankers(fused=0.37)}},
        "slices": {
            "few_training_interactions": {"at most 5": recall(40, 0.15)},
            "training_interactions": {"0": recall(10, 0.0), "1": recall(10, 0.1), "2-5": recall(20, 0.25), ">5": recall(9, 1.0)},
        },
    }
    movielens = {
        "kinds": {
            "as-written": {"differences": {"ALS": {"ndcg_at_10": {"value": 0.01, "low": -0.01}}}},
            CUT: {"rankers": rankers(fused=0.0625, ALS=0.05, popularity=0.04)},
        }
    }
    judged = {(one.data, one.what): one.verdict for one in targets({"clothing": clothing, "movielens": movielens})}
    assert judged["clothing", "NDCG@10, fused"] == "reached"
    assert judged["clothing", "R@10, items with at most 5 training reviews, 0 being a miss"] == "missed by 0.050"
    assert judged["clothing", "R@10, items with 1 to 5 training reviews"] == "reached"  # (10 · 0.1 + 20 · 0.25) / 30 = 0.2
    assert judged["clothing", "NDCG@10 lost to typing errors, corrected"] == "missed by 2.5%"
    assert judged["movielens", "NDCG@10, fused − ALS, low end of the interval"] == "missed by 0.010"
    assert judged["movielens", "NDCG@10 over the better of ALS and popularity, 4 choices known"] == "reached"
    assert judged["apps", "R@10, Chinese summaries"] == "not measured"
    assert Target("x", "y", 0.05, 0.05, at_most=True).verdict == "reached"


def test_the_operating_point_is_the_best_that_shows_half_of_the_catalogue() -> None:
    points = {"a": (0.3, 0.9), "b": (0.35, 0.5), "c": (0.4, 0.49)}
    rankers = {
        name: {"ndcg_at_10": {"value": ndcg}, "coverage_at_10": {"value": shown}} for name, (ndcg, shown) in points.items()
    }
    assert chosen_point({"rankers": rankers}) == "b"
    assert chosen_point({"rankers": {"c": rankers["c"]}}) is None


def test_short_histories_are_studied_where_users_are_named(tmp_path: Path, tiny_backbone: Path) -> None:
    data = tiny.write_data(tmp_path / "users", per_item=6)
    rows = [json.loads(line) for line in (data / "interactions.jsonl").read_text().splitlines()]
    for number, row in enumerate(rows):  # eleven users, each of whom chose twelve things
        row |= {"user_id": str(number % 11), "timestamp": f"2026-01-01T00:{number // 60:02}:{number % 60:02}Z", "text": ""}
    (data / "interactions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = QualitySettings(data=(str(data),), seeds=(0,), runs=tmp_path / "runs", backbone=str(tiny_backbone))
    content = measure_quality(settings, tmp_path / "quality.json")
    details = best_details(content)["users"]
    assert list(details["kinds"]) == ["as-written", CUT]
    assert list(details["kinds"][CUT]["rankers"]) == ["fused", "popularity", "ALS", "item neighbours"]
    assert "ALS" in details["kinds"]["as-written"]["rankers"]
    assert "### Short histories" in quality_page(content)


def test_the_studies_of_another_run_are_not_taken(measured: Measured) -> None:
    run = measured.runs[0]
    kept = run_studies(run, run_dataset(run))
    assert kept["created"] == run.record["created"]
    assert f"{ABLATION}/fused without lexical/ranks" in kept
    assert len(kept["times"]) == len(read_per_query(run)["as-written/rows"])


def test_transfer_trains_both_encoders_on_the_same_texts(
    measured: Measured, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("benchmarks.transfer.LABELLED", (0, 1_000))
    dataset = run_dataset(measured.runs[0])
    sizes = [len(cut(_split(dataset), labelled, seed=0).interactions) for labelled in (0, 5, 1_000)]
    assert sizes == [2 * tiny.ITEMS, 2 * tiny.ITEMS + 5, 6 * tiny.ITEMS]
    found = measure_transfer(measured.runs[0], _split(dataset), tmp_path)
    assert [(row["labelled"], row["encoder"], row["ranker"]) for row in found["rows"]] == [
        (labelled, encoder, ranker)
        for labelled in (0, 1_000)
        for encoder in ("pre-trained", "fine-tuned on clothes")
        for ranker in ("fused", "text alone")
    ]
    by_size = [
        row["ndcg_at_10"]["value"] for row in found["rows"] if row["ranker"] == "fused" and row["encoder"] == "pre-trained"
    ]
    assert by_size[-1] > by_size[0]
    page = quality_page({"details": {}, "transfer": {"quick": found}})
    assert "| quick | 1,000 | fine-tuned on clothes | text alone |" in page


def _split(dataset: Dataset) -> Dataset:
    """The data set with its split given: of each item's six texts four train."""
    parts = ["train"] * 4 + ["validation", "test"]
    rows = [dataclasses.replace(row, split=parts[at // tiny.ITEMS]) for at, row in enumerate(dataset.interactions)]
    return dataclasses.replace(dataset, interactions=tuple(rows))


def test_only_english_sentences_are_carried_over_to() -> None:
    rows = tuple(Interaction(0, query, segments={"query": query}) for query in ("english sentence", "chinese summary"))
    assert [row.text for row in english_only(Dataset("apps", (Item("a"),), rows)).interactions] == ["english sentence"]


def test_data_that_was_not_fetched_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("train.movielens.load_movielens.__defaults__", (tmp_path,))
    content = measure_quality(QualitySettings(data=("movielens",), runs=tmp_path / "runs"), tmp_path / "quality.json")
    assert content == {"details": {}, "transfer": {}}
    assert "left out: data set 'movielens' has not been fetched" in capsys.readouterr().err


def test_what_cannot_be_measured_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    common = ["--output", str(tmp_path / "quality.json"), "--page", str(tmp_path / "quality.md"), "--runs", str(tmp_path)]
    for given, told in {
        ("--seeds", "0,one"): "--seeds names 'one'; accepted are whole numbers",
        ("--seeds", "0,0"): "seeds are [0, 0]; accepted are one or more different whole numbers",
        ("--data", "nothing"): "data source 'nothing'",
        ("--data", ","): "no data is named",
    }.items():
        assert main(["quality", *given, *common]) == 2
        assert told in capsys.readouterr().err
    (tmp_path / "quality.json").write_text("{}")
    with pytest.raises(InvalidInput, match="is not what this command writes .KeyError: 'details'.; remove it or choose another"):
        read_quality(tmp_path / "quality.json")


def test_the_presets_of_the_command_line_are_those_of_training() -> None:
    assert list(PRESETS) == [preset.value for preset in Preset]
