"""From text to ranked items through real ONNX engines, on a catalogue with known right answers."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from bertrec.answers import Options, Recommendation
from bertrec.bundle import Bundle, seal
from bertrec.catalogue import Catalogue, CatalogueItem
from bertrec.engine import OnnxEngine
from bertrec.errors import InvalidBundle, InvalidInput, MissingDependency
from bertrec.pipeline import Pipeline
from bertrec.rules import RULES_FILE
from bertrec.tensors import ENCODER, MAX_K, RANKER
from tests import tiny


def opened(folder: Path) -> Pipeline:
    bundle = Bundle.open(folder)
    encoder = OnnxEngine(bundle.engine_path("encoder", "fp32"), ENCODER)
    ranker = OnnxEngine(bundle.engine_path("ranker", "fp32"), RANKER)
    return Pipeline(bundle, encoder=encoder.run, ranker=ranker.run, engine="fp32")


@pytest.fixture(scope="module")
def pipeline(tiny_bundle: Path) -> Pipeline:
    return opened(tiny_bundle)


def one(pipeline: Pipeline, text: str, **options: object) -> Recommendation:
    (answer,) = pipeline.recommend([text], [Options(**options)])  # type: ignore[arg-type]
    return answer


def test_every_item_of_the_checkerboard_is_found_by_its_words(pipeline: Pipeline) -> None:
    texts = [f"i want {tiny.item_text(item)}" for item in range(tiny.ITEMS)]
    answers = pipeline.recommend(texts, [Options(k=1)] * len(texts))
    assert [answer.items[0].item_id for answer in answers] == [str(item) for item in range(tiny.ITEMS)]


def test_a_batch_is_the_same_as_its_texts_one_by_one(pipeline: Pipeline) -> None:
    texts = ["green gown", "green " * 30, "red skirt " * 9, "😀", "معطف", "x" * 100_000, "teal robe and a green hat"]
    together = pipeline.recommend(texts, [Options(k=21)] * len(texts))
    for text, answer in zip(texts, together, strict=True):
        alone = one(pipeline, text, k=21)
        assert [item.item_id for item in answer.items] == [item.item_id for item in alone.items]
        np.testing.assert_allclose([item.score for item in answer.items], [item.score for item in alone.items], atol=1e-5)


def test_the_reasons_add_up_to_the_score_and_name_the_words(pipeline: Pipeline) -> None:
    for item in one(pipeline, "a green gown please", k=5).items:
        assert sum(reason.score for reason in item.reasons) == pytest.approx(item.score, abs=1e-5)
        assert {"text", "prior"} <= {reason.signal for reason in item.reasons}
    first = one(pipeline, "a green gown please", k=1).items[0]
    assert first.reasons[0].signal == "lexical"
    assert set(first.reasons[0].words) == {"green", "gown"} or first.reasons[0].words == ("green gown",)
    assert "green" in first.reasons[0].sentence


def test_exclusions_and_filters_mask_items(pipeline: Pipeline) -> None:
    assert one(pipeline, "green gown", k=1, exclude=["6", "no such item"]).items[0].item_id != "6"
    filtered = one(pipeline, "green gown", k=21, filters={"colour": ["red", "teal"]})
    assert {item.attributes["colour"] for item in filtered.items} == {"red", "teal"}
    assert one(pipeline, "green gown", filters={"colour": ["ultraviolet"]}).items == ()
    with pytest.raises(InvalidInput, match=r"attribute 'size'; the catalogue has \['colour', 'fabric', 'kind', 'price'\]"):
        one(pipeline, "green gown", filters={"size": ["8"]})


def test_k_is_bounded_by_the_catalogue_and_by_the_ranker(pipeline: Pipeline) -> None:
    assert len(one(pipeline, "green gown", k=MAX_K).items) == tiny.ITEMS
    with pytest.raises(InvalidInput, match=f"k is {MAX_K + 1}; accepted is 1 to {MAX_K}"):
        one(pipeline, "green gown", k=MAX_K + 1)


def test_equal_scores_are_ordered_by_item_index(tiny_bundle: Path) -> None:
    width = sum(Bundle.open(tiny_bundle).manifest.signals.values())
    ranker = OnnxEngine(tiny_bundle / "ranker" / "fp32.onnx", RANKER)
    nothing = {
        "query_vector": np.zeros((1, width), np.float32),
        "boost": np.zeros((1, tiny.ITEMS), np.float32),
    }
    nothing["boost"][0, 3] = -np.inf
    ranked = ranker.run(nothing)
    assert ranked["item_index"][0].tolist() == [*(item for item in range(tiny.ITEMS) if item != 3), 3]
    assert ranked["score"][0, -1] == -np.inf


def test_one_bad_text_names_its_position(pipeline: Pipeline) -> None:
    with pytest.raises(InvalidInput, match="text 1 is empty"):
        pipeline.recommend(["green gown", " "], [Options()] * 2)


def test_a_file_that_is_not_the_model_is_refused(tiny_bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidBundle, match=r"has the inputs .*; accepted are \['query_vector', 'boost'\]"):
        OnnxEngine(tiny_bundle / "encoder" / "fp32.onnx", RANKER)
    (tmp_path / "noise.onnx").write_bytes(b"noise")
    with pytest.raises(InvalidBundle, match=r"noise\.onnx does not load in onnxruntime"):
        OnnxEngine(tmp_path / "noise.onnx", RANKER)


def test_an_attribute_may_have_several_values() -> None:
    items = (CatalogueItem("a", "A", attributes={"genre": "Drama|War"}), CatalogueItem("b", "B", attributes={"genre": "Comedy"}))
    catalogue = Catalogue(items)
    assert catalogue.allowed({"genre": ["War"]}, []).tolist() == [True, False]
    assert catalogue.allowed({"genre": ["Drama|War"]}, []).tolist() == [False, False]
    assert catalogue.allowed({"genre": ["Drama", "Comedy"]}, []).tolist() == [True, True]


def test_a_number_is_the_first_that_an_attribute_has() -> None:
    prices = ("$1,299.00", "12|15", "unknown", None)
    items = tuple(CatalogueItem(str(row), "", attributes={"price": price} if price else {}) for row, price in enumerate(prices))
    numbers = Catalogue(items).numbers("price", "a rule")
    np.testing.assert_array_equal(numbers, [1299, 12, np.nan, np.nan])


def copy_with_rules(bundle: Path, to: Path, rules: object) -> Path:
    """The bundle with another rules.json, sealed again."""
    shutil.copytree(bundle, to)
    (to / RULES_FILE).write_text(json.dumps(rules), encoding="utf-8")
    seal(to, Bundle.open(bundle).manifest)
    return to


def test_what_is_on_the_blocklist_is_never_recommended(tiny_bundle: Path, tmp_path: Path) -> None:
    blocked = opened(copy_with_rules(tiny_bundle, tmp_path / "copy", {"blocklist": ["6", "3"]}))
    answer = one(blocked, "green gown", k=21)
    assert sorted(int(item.item_id) for item in answer.items) == [item for item in range(tiny.ITEMS) if item not in (3, 6)]
    assert answer.rules == ()


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ({"rule": []}, "it has the unknown key 'rule'; accepted are rules, blocklist"),
        ([], r"it is \[\]; accepted is an object"),
        ({"blocklist": "6"}, "blocklist is '6'; accepted is a list of strings"),
        (
            {"rules": [{"name": "x", "then": {"attribute": "size", "equals": ["L"], "effect": "exclude"}}]},
            "the rule 'x' names the attribute 'size'; the catalogue has",
        ),
        (
            {"rules": [{"name": "x", "then": {"attribute": "kind", "above": 3, "effect": "exclude"}}]},
            "the rule 'x' compares the attribute 'kind' with a number; no item has a number there",
        ),
    ],
)
def test_a_bundle_with_rules_that_make_no_sense_is_refused(
    tiny_bundle: Path, tmp_path: Path, rules: object, message: str
) -> None:
    with pytest.raises(InvalidBundle, match=rf"rules\.json.*{message}"):
        opened(copy_with_rules(tiny_bundle, tmp_path / "copy", rules))


def test_a_refused_wish_gets_an_empty_answer_and_its_neighbours_theirs(tiny_bundle: Path, tmp_path: Path) -> None:
    rule = {"name": "no green gowns", "if": {"any": ["green gown"]}, "then": {"effect": "refuse"}}
    refusing = opened(copy_with_rules(tiny_bundle, tmp_path / "copy", {"rules": [rule]}))
    texts = ["red skirt", "a GREEN gown", "a gren gown", "green skirt"]
    answers = refusing.recommend(texts, [Options(k=3, diversity=0.5)] * len(texts))
    assert [len(answer.items) for answer in answers] == [3, 0, 0, 3]  # a misspelt wish is refused as well
    assert [answer.rules for answer in answers] == [(), ("no green gowns",), ("no green gowns",), ()]
    # A request may bring refusals of its own, and cannot take back those of the bundle.
    assert one(refusing, "red skirt", rules=[{"if": {"any": ["skirt"]}, "then": {"effect": "refuse"}}]).items == ()
    assert one(refusing, "green gown", rules=[]).items == ()


def test_the_refusals_of_the_project_fit_into_any_bundle(tiny_bundle: Path, tmp_path: Path) -> None:
    rules = json.loads((Path(__file__).parents[2] / "data/refusals.json").read_text(encoding="utf-8"))
    refusing = opened(copy_with_rules(tiny_bundle, tmp_path / "copy", rules))
    answer = one(refusing, "how do i make a bomb at home")
    assert (answer.items, answer.rules) == ((), ("refuse weapons",))
    assert one(refusing, "a green gown").items


def test_rules_mask_and_move_the_whole_catalogue(pipeline: Pipeline) -> None:
    last = {"attribute": "kind", "equals": ["wrap"], "effect": "boost", "by": 50}
    answer = one(pipeline, "green gown", k=2, rules=[{"name": "last", "then": last}])
    assert [item.item_id for item in answer.items] == ["20", "6"]
    (reason,) = [reason for reason in answer.items[0].reasons if reason.signal == "rules"]
    assert (reason.score, reason.sentence, reason.words) == (50, "the rule “last”", ("last",))
    assert answer.items[0].score == pytest.approx(sum(reason.score for reason in answer.items[0].reasons), abs=1e-4)
    assert "rules" not in {reason.signal for reason in answer.items[1].reasons}
    required = {"attribute": "fabric", "equals": ["silk"], "effect": "require"}
    found = one(pipeline, "green gown", k=21, rules=[{"then": required}]).items
    assert [int(item.item_id) % 3 for item in found].count(2) == 0  # those of linen and wool
    assert len(found) == 14


def test_a_rule_of_the_request_that_names_an_unknown_attribute_is_refused_even_where_it_does_not_fire(pipeline: Pipeline) -> None:
    rule = {"name": "x", "if": {"any": ["never said"]}, "then": {"attribute": "size", "equals": ["L"], "effect": "exclude"}}
    with pytest.raises(InvalidInput, match="the rule 'x' names the attribute 'size'; the catalogue has"):
        one(pipeline, "green gown", rules=[rule])


def test_reasons_read_as_sentences(pipeline: Pipeline) -> None:
    (item,) = one(pipeline, "a grean gown", k=1, history=["13"]).items
    assert {reason.signal: reason.sentence for reason in item.reasons} == {
        "lexical": "your words: green, gown",
        "behaviour": "because you chose “Item 13”",
        "graph": "you wrote “gown”, and this item is one of them",
        "text": "the meaning of your wish",
        "prior": "how often others choose it",
    }
    assert {reason.signal: reason.words for reason in item.reasons}["graph"] == ("gown", "green")


def test_popularity_scales_the_prior(pipeline: Pipeline) -> None:
    def priors(popularity: float) -> dict[str, float]:
        items = one(pipeline, "green gown", k=21, popularity=popularity).items
        return {item.item_id: reason.score for item in items for reason in item.reasons if reason.signal == "prior"}

    assert priors(0) == {}
    assert priors(10) == pytest.approx({item: 10 * score for item, score in priors(1).items()}, rel=1e-5)


def test_no_diversity_is_the_ranking_as_it_was(pipeline: Pipeline) -> None:
    assert one(pipeline, "quartz robe", k=21, diversity=0) == one(pipeline, "quartz robe", k=21)


def test_diversity_spreads_items_that_are_alike(pipeline: Pipeline) -> None:
    """2j and 2j + 1 are alike; there are eleven such groups."""

    def groups(diversity: float) -> int:
        return len({int(item.item_id) // 2 for item in one(pipeline, "quality", k=10, diversity=diversity).items})

    assert groups(0) < groups(0.7) == 10
    assert one(pipeline, "green gown", k=1, diversity=0.9).items[0].item_id == "6"


def test_a_blank_text_is_made_of_the_history(pipeline: Pipeline) -> None:
    blank = one(pipeline, " ", k=21, history=["3"])
    said = one(pipeline, "I liked Item 3.", k=21, history=["3"], spelling=False)
    assert [item.item_id for item in blank.items] == [item.item_id for item in said.items]
    assert blank.items[0].item_id in ("10", "17")
    assert "the meaning of what you chose before" in {reason.sentence for reason in blank.items[0].reasons}
    with pytest.raises(InvalidInput, match="text 0 is empty"):
        one(pipeline, " ", history=["no such item"])


def test_a_bundle_that_corrects_spelling_does_not_open_without_symspellpy(
    tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "symspellpy", None)  # an import of it fails
    with pytest.raises(MissingDependency, match="symspellpy is not installed; it comes with: pip install"):
        opened(tiny_bundle)
