"""A real Triton, over gRPC and HTTP: right answers, the edge's answers, and one clear error for whatever cannot be answered."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from tritonclient.utils import InferenceServerException

from bertrec.answers import Options, Recommendation
from bertrec.bundle import Bundle
from bertrec.pipeline import Pipeline
from bertrec.tensors import OPTIONS, RECOMMEND, TEXT
from serving.triton import TritonServer
from tests.serving.asking import ask, ask_raw, at_once, edge, infer, strings, texts_per_execution
from tests.tiny import ITEMS, item_text

CLIENTS = 16
SCORE_TOLERANCE = 1e-4

TEXTS = [
    *(f"I want {item_text(item)}" for item in range(ITEMS)),
    "amber",
    "nothing that the catalogue knows",
    "A GREEN Gown!!",
    "🧥🌧️ jade coat 😀",
    "معطف دافئ green مريح",
    "保暖的外套 silver",
    "e\u0301te\u0301 crème brûlée teal",
    "\ufeffpink robe",
    "red\x00silver\x07 \x1b[31mskirt",
    "olive\u202e jacket \u200b\u200d",
    "hat " * 200,
    "quartz " + "x" * 100_000,
]


RED_FIRST = {"attribute": "colour", "equals": ["red"], "effect": "boost", "by": 3}


@pytest.fixture(scope="module")
def pipeline(tiny_bundle: Path) -> Pipeline:
    return edge(Bundle.open(tiny_bundle), "fp32")


@pytest.fixture(params=["grpc", "http"])
def protocol(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def assert_same(one: Recommendation, other: Recommendation) -> None:
    """Item for item; scores and reasons within the tolerance."""
    assert [item.item_id for item in one.items] == [item.item_id for item in other.items]
    np.testing.assert_allclose([i.score for i in one.items], [i.score for i in other.items], atol=SCORE_TOLERANCE)
    for here, there in zip(one.items, other.items, strict=True):
        assert (here.title, here.attributes) == (there.title, there.attributes)
        scores = [{reason.signal: reason.score for reason in item.reasons} for item in (here, there)]
        assert scores[0] == pytest.approx(scores[1], abs=SCORE_TOLERANCE)
        said = [{(reason.sentence, reason.words) for reason in item.reasons} for item in (here, there)]
        assert said[0] == said[1]
    assert replace(one, items=()) == replace(other, items=())


def test_every_item_of_the_checkerboard_is_found_by_its_own_words(triton: TritonServer, protocol: str) -> None:
    answers = ask(triton, protocol, [item_text(item) for item in range(ITEMS)], Options(k=1))
    assert [[item.item_id for item in answer.items] for answer in answers] == [[str(item)] for item in range(ITEMS)]


def test_answer_names_engine_bundle_and_reasons(triton: TritonServer, protocol: str, tiny_bundle: Path) -> None:
    (answer,) = ask(triton, protocol, ["a green gown please"], Options(k=3))
    assert (answer.engine, answer.bundle, answer.truncated) == ("fp32", Bundle.open(tiny_bundle).fingerprint, False)
    assert len(answer.items) == 3
    best = answer.items[0].reasons[0]
    assert (best.signal, best.words) == ("lexical", ("green", "gown"))
    assert answer.items[0].score == pytest.approx(sum(reason.score for reason in answer.items[0].reasons), abs=SCORE_TOLERANCE)


def test_answers_equal_the_edges(triton: TritonServer, protocol: str, pipeline: Pipeline) -> None:
    options = Options(k=ITEMS, history=("4",), diversity=0.3, rules=({"then": RED_FIRST},))
    for here, there in zip(ask(triton, protocol, TEXTS, options), pipeline.recommend(TEXTS, [options] * len(TEXTS)), strict=True):
        assert_same(here, there)


def test_a_batch_equals_its_texts_one_by_one(triton: TritonServer, protocol: str) -> None:
    batch = ask(triton, protocol, TEXTS)
    for text, answer in zip(TEXTS, batch, strict=True):
        assert_same(ask(triton, protocol, [text])[0], answer)


def test_options_are_honoured_text_by_text(triton: TritonServer, protocol: str) -> None:
    options = [Options(k=2), Options(exclude=("6",)), Options(filters={"colour": ("amber", "teal")})]
    raw = ask_raw(triton, protocol, ["green gown"] * 3, [one.to_json() for one in options])
    first, without, filtered = (Recommendation.from_json(answer) for answer in raw)
    assert [item.item_id for item in first.items][:1] == ["6"]
    assert len(first.items) == 2
    assert "6" not in [item.item_id for item in without.items]
    assert {item.attributes["colour"] for item in filtered.items} == {"amber", "teal"}


def test_k_larger_than_the_catalogue_gives_all_of_it(triton: TritonServer, protocol: str) -> None:
    (answer,) = ask(triton, protocol, ["green"], Options(k=200))
    assert len(answer.items) == ITEMS


def test_when_every_item_is_excluded_the_answer_is_empty(triton: TritonServer, protocol: str) -> None:
    (answer,) = ask(triton, protocol, ["green"], Options(exclude=tuple(str(item) for item in range(ITEMS))))
    assert answer.items == ()


@pytest.mark.parametrize("options", ["", "{}", '{"k": 3}', '{ "filters" : { } }'])
def test_options_may_be_left_empty(triton: TritonServer, options: str) -> None:
    (answer,) = ask_raw(triton, "grpc", ["green gown"], [options])
    assert Recommendation.from_json(answer).items[0].item_id == "6"


INVALID: list[tuple[str | bytes, str | bytes, str]] = [
    ("", "{}", "text 0 is empty"),
    (" \t\n\u3000", "{}", "text 0 is empty"),
    ("\x00\x01\x7f", "{}", "text 0 is empty"),
    (b"caf\xe9", "{}", "TEXT 0 is not UTF-8: byte 3 is 0xe9"),
    (b"\xff\xfe", "{}", "TEXT 0 is not UTF-8: byte 0 is 0xff"),
    (b"\xed\xa0\x80", "{}", "TEXT 0 is not UTF-8"),
    ("green", '{"k": 0}', "k is 0; accepted is a whole number of at least 1"),
    ("green", '{"k": -3}', "k is -3"),
    ("green", '{"k": "10"}', "k is '10'"),
    ("green", '{"k": 2.5}', "k is 2.5"),
    ("green", '{"k": true}', "k is True"),
    ("green", '{"k": null}', "k is None"),
    ("green", '{"k": NaN}', "k is nan"),
    ("green", '{"k": 201}', "k is 201; accepted is 1 to 200"),
    ("green", json.dumps({"k": "x" * 100_000}), "k is 'xxx"),
    ("green", "{", "OPTIONS is not JSON"),
    ("green", "[" * 100_000, "OPTIONS is not JSON"),
    ("green", "[1]", "OPTIONS is a JSON list"),
    ("green", "null", "OPTIONS is a JSON NoneType"),
    (
        "green",
        '{"count": 3}',
        "OPTIONS has the unknown key 'count'; accepted are diversity, exclude, explain, filters, history, k, popularity",
    ),
    ("green", b"\xff", "OPTIONS 0 is not UTF-8"),
    ("green", '{"exclude": "6"}', "exclude is '6'; accepted is a list of strings"),
    ("green", '{"exclude": [6]}', "exclude is [6]"),
    ("green", '{"filters": ["colour"]}', "filters is ['colour']"),
    ("green", '{"filters": {"colour": "red"}}', "filters['colour'] is 'red'"),
    (
        "green",
        '{"filters": {"size": ["L"]}}',
        "filters names the attribute 'size'; the catalogue has ['colour', 'fabric', 'kind', 'price']",
    ),
    ("green", '{"exclude": ["\\ud800"]}', "exclude holds"),
]


@pytest.mark.parametrize(("text", "options", "message"), INVALID, ids=[message[:40] for _, _, message in INVALID])
def test_bad_input_gets_one_clear_error_and_the_next_request_an_answer(
    triton: TritonServer, protocol: str, text: str | bytes, options: str | bytes, message: str
) -> None:
    with pytest.raises(InferenceServerException) as caught:
        ask_raw(triton, protocol, [text], [options])
    assert message in caught.value.message()
    assert caught.value.status() in ("StatusCode.INVALID_ARGUMENT", "400")
    assert ask(triton, protocol, ["green gown"], Options(k=1))[0].items[0].item_id == "6"


def test_an_error_names_the_text_of_the_request_that_is_bad(triton: TritonServer, protocol: str) -> None:
    with pytest.raises(InferenceServerException, match="text 2 is empty"):
        ask(triton, protocol, ["green", "red", " "])


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({TEXT.name: ("INT32", np.zeros((1, 1), np.int32)), OPTIONS.name: strings(["{}"])}, "TEXT"),
        ({TEXT.name: ("BYTES", np.asarray([[b"a", b"b"]], np.object_)), OPTIONS.name: strings(["{}"])}, "TEXT"),
        ({TEXT.name: strings(["a", "b"]), OPTIONS.name: strings(["{}"])}, "batch size does not match"),
        ({TEXT.name: strings(["green"])}, "expected 2 inputs but got 1"),
        (
            {TEXT.name: strings(["green"] * 65), OPTIONS.name: strings(["{}"] * 65)},
            "65 texts in one request; accepted are at most 64",
        ),
    ],
    ids=["wrong dtype", "wrong shape", "unequal batches", "missing input", "too many texts"],
)
def test_a_request_of_the_wrong_form_is_refused(
    triton: TritonServer, protocol: str, inputs: dict[str, tuple[str, NDArray[Any]]], message: str
) -> None:
    with pytest.raises(InferenceServerException) as caught:
        infer(triton, protocol, RECOMMEND.name, inputs)
    assert message in caught.value.message()
    assert ask(triton, protocol, ["green gown"], Options(k=1))[0].items[0].item_id == "6"


def test_an_unknown_model_or_version_is_refused(triton: TritonServer, protocol: str) -> None:
    with pytest.raises(InferenceServerException, match="unknown model: 'recommendd'"):
        infer(triton, protocol, "recommendd", {TEXT.name: strings(["green"])})


def test_bad_requests_do_not_hurt_those_that_share_their_batch(triton: TritonServer) -> None:
    before, _ = texts_per_execution(triton, RECOMMEND.name)
    bad = INVALID[:: len(INVALID) // 4][:4]

    def ask_well(item: int) -> list[str]:
        return [ask(triton, "grpc", [item_text(item)], Options(k=1))[0].items[0].item_id for _ in range(10)]

    def ask_badly(text: str | bytes, options: str | bytes) -> list[str]:
        refused = []
        for _ in range(10):
            with pytest.raises(InferenceServerException) as caught:
                ask_raw(triton, "grpc", [text], [options])
            refused.append(caught.value.message())
        return refused

    good = [partial(ask_well, item) for item in range(CLIENTS - len(bad))]
    wrong = [partial(ask_badly, text, options) for text, options, _ in bad]
    results = at_once([*good, *wrong])
    for item, found in enumerate(results[: len(good)]):
        assert found == [str(item)] * 10
    for (_, _, message), refused in zip(bad, results[len(good) :], strict=True):
        assert all(message in one for one in refused)
        assert len(refused) == 10
    _, joined = texts_per_execution(triton, RECOMMEND.name, before)
    assert joined > 1.5  # otherwise nothing shared a batch, and nothing was shown
