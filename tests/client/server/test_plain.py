"""Plain JSON, the page, and the description."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from client import Recommender
from client.server.model import EdgeModel
from tests.client.server.running import Running
from tests.tiny import WORDS


def test_a_wish_is_answered_as_the_command_line_prints_it(served: Running, in_process: Recommender) -> None:
    record = served.recommend({"text": "denim dress", "k": 3}).json
    expected = in_process.recommend("denim dress", k=3)
    assert [item["item_id"] for item in record["items"]] == [item.item_id for item in expected.items]
    assert [item["score"] for item in record["items"]] == pytest.approx([item.score for item in expected.items], abs=1e-4)
    assert record["items"][0]["reasons"][0]["sentence"] == expected.items[0].reasons[0].sentence
    assert (record["text"], record["served_by"], record["bundle"]) == ("denim dress", "edge", expected.bundle)
    assert 0 < record["compute_ms"] <= record["latency_ms"]


def test_a_list_is_answered_in_its_order(served: Running) -> None:
    answers = served.recommend({"text": ["green gown", "denim dress"], "k": 1}).json["answers"]
    assert [answer["items"][0]["item_id"] for answer in answers] == ["6", "3"]


def test_options_are_honoured(served: Running) -> None:
    record = served.recommend({"text": "denim dress", "filters": {"colour": ["red", "navy"]}}).json
    assert {item["attributes"]["colour"] for item in record["items"]} == {"red", "navy"}
    assert served.recommend({"history": ["3"]}).status == 200


@pytest.mark.parametrize(
    ("wish", "message"),
    [
        ([], "a JSON list"),
        ({}, "text 0 is empty"),
        ({"text": 3}, "text is neither a string nor a list"),
        ({"text": []}, "text is neither a string nor a list"),
        ({"text": ["a"] * 65}, "text is neither a string nor a list"),
        ({"text": "a", "count": 3}, "the key 'count' is unknown; accepted are text, k, exclude"),
        ({"text": "a", "k": 0}, "k is 0"),
        ({"text": "a", "k": 201}, "k is 201"),
        ({"text": "a", "filters": {"\ud800": ["x"]}}, "filters"),
        ({"text": "a", "\ud800": 1}, "is unknown"),
        ({"text": "a", "rules": [{}] * 500}, "rules"),
    ],
)
def test_what_cannot_be_answered_gets_400(served: Running, wish: Any, message: str) -> None:
    response = served.recommend(wish)
    assert response.status == 400
    assert message in response.json["error"]


def test_other_types_other_methods_and_other_places_are_refused(served: Running) -> None:
    assert served.send("POST", "/recommend", b'{"text": "a"}', {"Content-Type": "text/plain"}).status == 415
    assert served.get("/recommend").status == 405
    assert served.get("/recommend").headers["allow"] == "POST"
    lost = served.get("/nowhere")
    assert (lost.status, "/nowhere" in lost.json["error"]) == (404, True)


def test_the_page_needs_nothing_from_elsewhere(served: Running) -> None:
    page = served.get("/")
    assert page.headers["content-type"].startswith("text/html")
    assert "default-src 'self'" in page.headers["content-security-policy"]
    for path in ("/", "/docs", "/page.css", "/page.js"):
        text = served.get(path).body.decode()
        assert not re.search(r"https?://|//cdn|@import", text)
        assert "innerHTML" not in text
    loaded = re.findall(r'(?:src|href)="(/[^"]*)"', page.body.decode())
    assert {"/page.css", "/page.js", "/docs"} == set(loaded)
    assert [served.get(path).status for path in loaded] == [200] * 3


def test_the_attributes_to_filter_by_are_counted(served: Running, model: EdgeModel) -> None:
    attributes = served.get("/attributes").json["attributes"]
    assert attributes == model.attributes
    assert attributes["colour"] == {colour: 1 for colour in sorted(WORDS[: len(WORDS) // 2])}
    assert sum(attributes["fabric"].values()) == 2 * len(attributes["colour"])  # every item has two


def test_every_place_that_openapi_describes_is_there(served: Running) -> None:
    described = served.get("/openapi.json").json
    assert described["openapi"].startswith("3.1")
    docs = served.get("/docs").body.decode()
    for path, operations in described["paths"].items():
        assert path in docs
        for method, operation in operations.items():
            if method == "get":
                assert served.get(path).status == 200
                continue
            example = operation["requestBody"]["content"]["application/json"]["example"]
            sent = served.send("POST", path, json.dumps(example).encode(), {"Content-Type": "application/json"})
            assert sent.status == 200
