"""A run is measured as a whole: against what is known beforehand, its own arrays and its record on disk."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from bertrec.errors import InvalidInput
from tests import tiny
from train.__main__ import main
from train.data import Dataset, Interaction, Item, Split
from train.evaluate import evaluate, primary_attribute, ranked
from train.examples import UNSEEN, Pairs, make_examples
from train.fit import fit
from train.measure import Subject, differences, measured, per_query, slices, whole
from train.metrics import ndcg, rank_metrics
from train.rankers import FUSED
from train.report import PER_QUERY_FILE, read_evaluation, read_per_query
from train.run import METRICS_FILE, Run
from train.settings import PRESETS, Preset


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, tiny_backbone: Path) -> Run:
    data = tiny.write_data(tmp_path_factory.mktemp("data") / "checkerboard", per_item=6)
    settings = dataclasses.replace(PRESETS[Preset.QUICK], backbone=str(tiny_backbone), batch_size=8, max_minutes=None)
    return fit(str(data), settings, tmp_path_factory.mktemp("runs") / "tiny")


def test_the_checkerboard_is_ranked_right_and_popularity_knows_nothing_of_it(run: Run) -> None:
    evaluation = evaluate(run)
    assert (evaluation.split, evaluation.seed, evaluation.items, evaluation.attribute) == ("test", 0, tiny.ITEMS, "colour")
    assert list(evaluation.kinds) == ["as-written"]
    rankers = list(evaluation.kinds["as-written"].rankers)
    assert rankers[:3] == [FUSED, "text alone", "lexical alone"]
    assert rankers[-3:] == ["popularity", "TF-IDF centroid", "zero-shot BERT"]
    for metric in ("recall_at_1", "recall_at_50", "ndcg_at_10", "class_at_1"):
        assert evaluation.value(FUSED, metric) == 1.0
    assert evaluation.value("TF-IDF centroid", "recall_at_1") == 1.0
    assert evaluation.value("popularity", "recall_at_1") < 0.3
    assert evaluation.value("popularity", "coverage_at_10") == pytest.approx(10 / tiny.ITEMS)
    assert evaluation.differences["popularity"]["recall_at_1"].excludes_zero
    assert evaluation.differences["TF-IDF centroid"]["recall_at_1"].value == 0.0


def test_what_is_written_is_what_was_found_and_agrees_with_the_ranks(run: Run) -> None:
    evaluation = evaluate(run)
    written = json.loads((run.folder / METRICS_FILE).read_text())
    assert written["kinds"]["as-written"]["rankers"][FUSED]["ndcg_at_10"] == {"value": 1.0, "low": 1.0, "high": 1.0}
    assert written["settings"]["seed"] == 0
    assert read_evaluation(run) == evaluation
    arrays = read_per_query(run)
    for name, metrics in evaluation.kinds["as-written"].rankers.items():
        ranks = arrays[f"as-written/{name}/ranks"]
        assert ranks.dtype == np.uint8
        assert rank_metrics(ranks.astype(np.int64))["mrr_at_10"].mean() == pytest.approx(metrics["mrr_at_10"].value)
        assert arrays[f"as-written/{name}/same_class"].mean() == pytest.approx(metrics["class_at_1"].value)


def test_an_evaluation_is_reused_unless_it_lacks_something(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    def reused(**asked: object) -> bool:
        capsys.readouterr()
        evaluate(run, **asked)  # type: ignore[arg-type]
        return "reused" in capsys.readouterr().err

    assert not reused(queries=["typos"], baselines=["popularity", "tfidf"])
    assert reused(queries=["as-written"], baselines=["tfidf"])
    assert reused(baselines=["none"], attribute="colour")
    assert not reused(baselines=["popularity", "zero-shot"])
    assert not reused(split="validation")
    (run.folder / PER_QUERY_FILE).unlink()
    assert not reused(split="validation")


def test_queries_of_another_kind_are_reported_apart(run: Run) -> None:
    evaluation = evaluate(run, queries=["all"], baselines=["none"])
    assert list(evaluation.kinds) == [  # no headlines, and nothing that clothes it calls
        *("as-written", "class-masked", "typos", "synonyms", "word-order")
    ]
    # Without the colour the other word of the item is left.
    assert evaluation.value(FUSED, "recall_at_1", "class-masked") > 0.5
    assert evaluation.kinds["typos"].queries == evaluation.kinds["as-written"].queries


def test_the_command_line_prints_both_tables(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", "--run", str(run.folder), "--queries", "as-written,typos", "--baselines", "all"]) == 0
    printed = capsys.readouterr()
    assert "class@1" in printed.out and "BM25" in printed.out
    assert "NDCG@10 by way of asking" in printed.out
    assert "names no users: als, itemknn left out" in printed.err
    assert main(["evaluate", "--run", str(run.folder), "--baselines", "magic"]) == 2
    assert "accepted are all, none, or some of popularity" in capsys.readouterr().err
    assert main(["evaluate", "--run", str(run.folder), "--queries", "sung"]) == 2
    assert "queries are 'sung'" in capsys.readouterr().err


# Four films; ann saw film 0 before. Film 3 is only known by a test row, so it is not ranked.
FILMS = Dataset(
    "films",
    tuple(
        Item(str(number), attributes={"year": "1999", "genre": genre}) for number, genre in enumerate(["A|B", "B", "C", "C|D"])
    ),
    (
        *(Interaction(item, f"film {item}") for item in (0, 0, 0, 1, 1, 2)),
        Interaction(0, "seen it", user_id="ann"),
        Interaction(1, "like film 0", user_id="ann", segments={"language": "en"}),
        Interaction(2, "the second", segments={"language": "en"}),
        Interaction(3, "a new one", segments={"language": "zh"}),
    ),
)
EXAMPLES = make_examples(FILMS, Split(np.arange(7), np.arange(0), np.asarray([7, 8, 9])))
SUBJECT = Subject(FILMS, EXAMPLES, "genre", 0, np.eye(3, dtype=np.float32))


@dataclass(frozen=True)
class ByText:
    """Scores the items by what the text says of it, or all queries alike."""

    name: str
    of: Callable[[str], list[float]]

    def scores(self, queries: Pairs) -> NDArray[np.float32]:
        return np.asarray([self.of(text) for text in queries.texts], np.float32)


BY_INDEX, REVERSED = ByText("by index", lambda _: [3, 2, 1]), ByText("reversed", lambda _: [1, 2, 3])


def test_what_the_asker_chose_before_is_left_out() -> None:
    assert EXAMPLES.test.histories == [(0,), (), ()]
    assert ranked(BY_INDEX, EXAMPLES.test).tolist() == [[1, 2, UNSEEN], [0, 1, 2], [0, 1, 2]]


def test_slices_classes_and_differences_by_hand() -> None:
    queries = EXAMPLES.test
    assert queries.items.tolist() == [1, 2, UNSEEN]
    answers = measured("as-written", queries, {ranker.name: ranked(ranker, queries) for ranker in (BY_INDEX, REVERSED)}, SUBJECT)
    assert answers.metrics["by index"]["recall_at_1"].tolist() == [1, 0, 0]
    assert answers.metrics["by index"]["ndcg_at_10"].tolist() == [1, 0.5, 0]
    assert answers.metrics["by index"]["class_at_1"].tolist() == [1, 0, 0]
    # Film 3 is no more ranked than it was seen, but the data says that it is of film 2's genre.
    assert answers.metrics["reversed"]["class_at_1"].tolist() == [0, 1, 1]

    group = whole(answers, SUBJECT)
    assert group.queries == 3
    assert group.rankers["by index"]["ndcg_at_10"].value == pytest.approx(0.5)
    assert group.rankers["by index"]["coverage_at_10"].value == 1.0

    sliced = slices(answers, SUBJECT)
    assert {key: {value: part.queries for value, part in of_key.items()} for key, of_key in sliced.items()} == {
        "language": {"en": 2, "zh": 1},
        "training_interactions": {"0": 1, "1": 1, "2-5": 1},
    }
    assert sliced["language"]["en"].rankers["by index"]["ndcg_at_10"].value == 0.75
    assert sliced["training_interactions"]["1"].rankers["reversed"]["recall_at_1"].value == 1.0

    by = differences(answers, "by index", SUBJECT)
    assert list(by) == ["reversed"]
    assert by["reversed"]["recall_at_1"].value == pytest.approx(1 / 3 - 1 / 3)
    assert by["reversed"]["class_at_1"].value == pytest.approx(1 / 3 - 2 / 3)
    arrays = per_query([answers])
    assert arrays["as-written/by index/ranks"].tolist() == [1, 3, 0]
    assert arrays["as-written/reversed/same_class"].tolist() == [False, True, True]
    assert arrays["as-written/rows"].tolist() == [7, 8, 9]
    assert ndcg(answers.tops["reversed"], queries.items).tolist() == pytest.approx([1 / np.log2(3), 1, 0])


def test_the_primary_attribute_is_the_one_that_names_the_kind() -> None:
    assert primary_attribute(FILMS) == "genre"
    assert primary_attribute(FILMS, "year") == "year"
    assert primary_attribute(Dataset("bare", (Item("a"),), ())) is None
    with pytest.raises(InvalidInput, match="attribute is 'colour'; the items of 'films' have year, genre"):
        primary_attribute(FILMS, "colour")


def test_a_query_block_is_no_boundary(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [f"{number}" for number in range(7)]
    queries = Pairs(texts, np.zeros(7, np.int64))
    ranker = ByText("by text", lambda text: [float(text), 1.0])
    at_once = ranked(ranker, queries)
    monkeypatch.setattr("train.evaluate.QUERY_BLOCK", 3)
    assert ranked(ranker, queries).tolist() == at_once.tolist() == [[1, 0], [0, 1], *[[0, 1]] * 5]
