"""match, classify and embed over HTTP: by our client, by NVIDIA's, and in plain JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.http

from bertrec.session_options import SessionOptions
from bertrec.tensors import EMBED, INTEREST_VECTOR, QUESTIONS, TEXT
from client import Recommender
from client.server.model import EdgeModel
from tests.client.server.running import Response, Running, running

TEXTS = ["a green gown", "red", "我想要一件外套"]
ITEMS = ["7", "0"]


@pytest.fixture(scope="module")
def full(full_bundle: Path) -> Iterator[Running]:
    with running(EdgeModel(full_bundle, session=SessionOptions(1))) as server:
        yield server


@pytest.fixture(scope="module")
def here(full_bundle: Path) -> Iterator[Recommender]:
    with Recommender(bundle=full_bundle, threads=1) as recommender:
        yield recommender


def post(server: Running, path: str, body: Any) -> Response:  # noqa: ANN401
    return server.send("POST", path, json.dumps(body).encode(), {"Content-Type": "application/json"})


def test_our_client_gets_what_the_bundle_says_in_process(full: Running, here: Recommender) -> None:
    with Recommender(full.url, timeout_s=20) as there:
        for given, wanted in zip(there.match(TEXTS, ITEMS), here.match(TEXTS, ITEMS), strict=True):
            assert [one.probability for one in given.matches] == pytest.approx(
                [one.probability for one in wanted.matches], abs=1e-5
            )
        for found, known in zip(there.classify(TEXTS), here.classify(TEXTS), strict=True):
            assert found.labels["sentiment"] == pytest.approx(known.labels["sentiment"], abs=1e-5)
            assert found.recommends == pytest.approx(known.recommends, abs=1e-5)
        theirs, ours = (np.stack([one.vector for one in who.embed(TEXTS)]) for who in (there, here))
        np.testing.assert_allclose(theirs, ours, atol=1e-5)


@pytest.mark.parametrize("binary", [False, True])
def test_nvidias_client_reads_vectors(full: Running, here: Recommender, binary: bool) -> None:  # noqa: FBT001
    nvidia = tritonclient.http.InferenceServerClient(f"127.0.0.1:{full.port}")
    tensor = tritonclient.http.InferInput(TEXT.name, [len(TEXTS), 1], "BYTES")
    tensor.set_data_from_numpy(np.asarray(TEXTS, object).reshape(-1, 1), binary_data=binary)
    wanted = tritonclient.http.InferRequestedOutput(INTEREST_VECTOR.name, binary_data=binary)
    vectors = nvidia.infer(EMBED.name, [tensor], outputs=[wanted]).as_numpy(INTEREST_VECTOR.name)
    np.testing.assert_allclose(vectors, np.stack([one.vector for one in here.embed(TEXTS)]), atol=1e-5)
    assert {spec.name for spec in QUESTIONS if nvidia.is_model_ready(spec.name)} == {spec.name for spec in QUESTIONS}
    assert nvidia.get_model_metadata(EMBED.name)["outputs"] == [
        {"name": "interest_vector", "datatype": "FP32", "shape": [-1, -1]}
    ]


def test_plain_json(full: Running, here: Recommender) -> None:
    record = post(full, "/match", {"text": "red", "items": ITEMS}).json
    assert [one["item_id"] for one in record["matches"]] == ITEMS and record["served_by"] == "edge"
    records = post(full, "/classify", {"text": TEXTS}).json["answers"]
    assert [list(one["labels"]) for one in records] == [["sentiment", "fabric"]] * len(TEXTS)
    assert post(full, "/embed", {"text": "red"}).json["vector"] == pytest.approx(here.embed("red").vector.tolist(), abs=1e-5)
    assert len(post(full, "/recommend", {"text": "red", "rerank": True}).json["items"]) == 10


@pytest.mark.parametrize(
    ("path", "body", "message"),
    [
        ("/match", {"text": "red"}, "items is missing"),
        ("/match", {"text": "red", "items": ["x"]}, "items names 'x'"),
        ("/match", {"text": "red", "items": 3}, "items is 3"),
        ("/classify", {"text": " "}, "text 0 is empty"),
        ("/classify", {"text": "red", "k": 3}, "the key 'k' is unknown; accepted are text"),
        ("/embed", {"text": 3}, "text is neither a string nor"),
    ],
)
def test_what_cannot_be_answered_is_refused(full: Running, path: str, body: Any, message: str) -> None:  # noqa: ANN401
    response = post(full, path, body)
    assert response.status == 400
    assert message in response.json["error"]


def test_a_bundle_without_matcher_and_heads_has_no_such_model(served: Running) -> None:
    for name in ("match", "classify"):
        assert post(served, f"/{name}", {"text": "red"}).status == 404
        assert served.get(f"/v2/models/{name}").status == 404
        assert post(served, f"/v2/models/{name}/infer", {}).status == 404
    assert served.get("/v2/models/embed/ready").status == 200
