"""From text to ranked items through real ONNX engines, on a catalogue with known right answers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bertrec.answers import Options, Recommendation
from bertrec.bundle import Bundle
from bertrec.catalogue import Catalogue, CatalogueItem
from bertrec.engine import OnnxEngine
from bertrec.errors import InvalidAnswer, InvalidBundle, InvalidInput
from bertrec.pipeline import Pipeline
from bertrec.tensors import ENCODER, MAX_K, RANKER
from tests import tiny


@pytest.fixture(scope="module")
def pipeline(tiny_bundle: Path) -> Pipeline:
    bundle = Bundle.open(tiny_bundle)
    encoder = OnnxEngine(bundle.engine_path("encoder", "fp32"), ENCODER)
    ranker = OnnxEngine(bundle.engine_path("ranker", "fp32"), RANKER)
    return Pipeline(bundle, encoder=encoder.run, ranker=ranker.run, engine="fp32")


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
        assert {reason.signal for reason in item.reasons} == {"text", "lexical", "prior"}
    first = one(pipeline, "a green gown please", k=1).items[0]
    assert first.reasons[0].signal == "lexical"
    assert set(first.reasons[0].words) == {"green", "gown"} or first.reasons[0].words == ("green gown",)
    assert "green" in first.reasons[0].sentence


def test_exclusions_and_filters_mask_items(pipeline: Pipeline) -> None:
    assert one(pipeline, "green gown", k=1, exclude=["6", "no such item"]).items[0].item_id != "6"
    filtered = one(pipeline, "green gown", k=21, filters={"colour": ["red", "teal"]})
    assert {item.attributes["colour"] for item in filtered.items} == {"red", "teal"}
    assert one(pipeline, "green gown", filters={"colour": ["ultraviolet"]}).items == ()
    with pytest.raises(InvalidInput, match=r"attribute 'size'; the catalogue has \['colour', 'kind'\]"):
        one(pipeline, "green gown", filters={"size": ["8"]})


def test_k_is_bounded_by_the_catalogue_and_by_the_ranker(pipeline: Pipeline) -> None:
    assert len(one(pipeline, "green gown", k=MAX_K).items) == tiny.ITEMS
    with pytest.raises(InvalidInput, match=f"k is {MAX_K + 1}; accepted is 1 to {MAX_K}"):
        one(pipeline, "green gown", k=MAX_K + 1)


def test_equal_scores_are_ordered_by_item_index(tiny_bundle: Path) -> None:
    ranker = OnnxEngine(tiny_bundle / "ranker" / "fp32.onnx", RANKER)
    nothing = {
        "interest_vector": np.zeros((1, 32), np.float32),
        "lexical_vector": np.zeros((1, 63), np.float32),
        "allowed": np.ones((1, tiny.ITEMS), bool),
    }
    nothing["allowed"][0, 3] = False
    ranked = ranker.run(nothing)
    assert ranked["item_index"][0].tolist() == [*(item for item in range(tiny.ITEMS) if item != 3), 3]
    assert ranked["score"][0, -1] == -np.inf


def test_one_bad_text_names_its_position(pipeline: Pipeline) -> None:
    with pytest.raises(InvalidInput, match="text 1 is empty"):
        pipeline.recommend(["green gown", " "], [Options()] * 2)


def test_a_file_that_is_not_the_model_is_refused(tiny_bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(
        InvalidBundle, match=r"has the inputs .*; accepted are \['interest_vector', 'lexical_vector', 'allowed'\]"
    ):
        OnnxEngine(tiny_bundle / "encoder" / "fp32.onnx", RANKER)
    (tmp_path / "noise.onnx").write_bytes(b"noise")
    with pytest.raises(InvalidBundle, match=r"noise\.onnx does not load in onnxruntime"):
        OnnxEngine(tmp_path / "noise.onnx", RANKER)


def test_answers_travel_as_json_unchanged(pipeline: Pipeline) -> None:
    answer = one(pipeline, "green gown with a très long 名字", k=3)
    assert Recommendation.from_json(answer.to_json()) == answer


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"items": [{}]}', '{"items": [], "truncated": false}', "null", "7"])
def test_what_is_no_answer_is_refused(text: str) -> None:
    with pytest.raises(InvalidAnswer, match="ANSWER cannot be read"):
        Recommendation.from_json(text)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ('{"k": 0}', "k is 0; accepted is a whole number of at least 1"),
        ('{"k": true}', "k is True"),
        ('{"k": "3"}', "k is '3'"),
        ('{"k": 1.5}', r"k is 1\.5"),
        ('{"limit": 3}', "unknown key 'limit'; accepted are exclude, filters and k"),
        ("{", "OPTIONS is not JSON"),
        ("[]", "OPTIONS is a JSON list"),
        ('{"exclude": "7"}', "exclude is '7'; accepted is a list of strings"),
        ('{"exclude": [7]}', r"exclude is \[7\]"),
        ('{"filters": []}', r"filters is \[\]; accepted is a mapping"),
        ('{"filters": {"colour": "red"}}', r"filters\['colour'\] is 'red'"),
    ],
)
def test_options_that_make_no_sense_say_why(given: str, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        Options.from_json(given)


def test_options_have_one_canonical_form() -> None:
    options = Options(k=3, exclude=["b", "a"], filters={"colour": ["red"]})
    assert options.to_json() == '{"exclude":["b","a"],"filters":{"colour":["red"]},"k":3}'
    assert Options.from_json(options.to_json()) == options
    assert Options.from_json("") == Options()


def test_an_attribute_may_have_several_values() -> None:
    items = (CatalogueItem("a", "A", attributes={"genre": "Drama|War"}), CatalogueItem("b", "B", attributes={"genre": "Comedy"}))
    catalogue = Catalogue(items)
    assert catalogue.allowed(Options(filters={"genre": ["War"]})).tolist() == [True, False]
    assert catalogue.allowed(Options(filters={"genre": ["Drama|War"]})).tolist() == [False, False]
    assert catalogue.allowed(Options(filters={"genre": ["Drama", "Comedy"]})).tolist() == [True, True]
