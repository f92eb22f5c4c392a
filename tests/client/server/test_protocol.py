"""The KServe v2 protocol: spoken by our client, by NVIDIA's client, and by hand."""

from __future__ import annotations

import gzip
import json
from typing import Any

import numpy as np
import pytest
import tritonclient.http
from tritonclient.utils import InferenceServerException

from bertrec import __version__
from bertrec.answers import Recommendation
from bertrec.tensors import ANSWER, OPTIONS, RECOMMEND, TEXT
from client import InvalidInput, Recommender
from client.server.kserve import HEADER_LENGTH
from tests.client.server.running import Running
from tests.client.test_contract import MIXED_TEXTS, same
from tests.tiny import ITEMS, item_text

INFER = "/v2/models/recommend/infer"
ASKED: list[tuple[str, dict[str, Any]]] = [
    ("plain", {}),
    ("filters", {"filters": {"colour": ["red", "navy"]}}),
    ("history", {"history": ["3"], "k": ITEMS}),
    ("exclude", {"exclude": ["3", "5"], "popularity": 0, "diversity": 0.7}),
]


@pytest.mark.parametrize("options", [options for _, options in ASKED], ids=[name for name, _ in ASKED])
def test_our_client_gets_what_the_bundle_gives_in_process(
    served: Running, in_process: Recommender, options: dict[str, Any]
) -> None:
    with Recommender(served.url, timeout_s=20) as recommender:
        theirs = recommender.recommend(MIXED_TEXTS, **options)
    assert all(map(same, theirs, in_process.recommend(MIXED_TEXTS, **options)))
    assert [answer.degraded for answer in theirs] == [False] * len(MIXED_TEXTS)


def test_our_client_sends_long_lists_and_keeps_their_order(served: Running) -> None:
    wanted = [item % ITEMS for item in range(150)]
    with Recommender(served.url, timeout_s=20) as recommender:
        answers = recommender.recommend([item_text(item) for item in wanted], k=1)
    assert [answer.items[0].item_id for answer in answers] == [str(item) for item in wanted]


def test_bad_input_is_told_to_our_client_as_such(served: Running) -> None:
    with Recommender(served.url, timeout_s=20) as recommender, pytest.raises(InvalidInput, match="the attribute 'size'"):
        recommender.recommend("green", filters={"size": ["L"]})


@pytest.fixture
def nvidia(served: Running) -> Any:
    return tritonclient.http.InferenceServerClient(f"127.0.0.1:{served.port}")


def ask(nvidia: Any, *, binary: bool, **more: Any) -> Any:
    inputs = []
    for spec, rows in ((TEXT, ["green gown", "denim dress", "外套"]), (OPTIONS, ['{"k":2}'] * 3)):
        tensor = tritonclient.http.InferInput(spec.name, [3, 1], spec.dtype)
        tensor.set_data_from_numpy(np.asarray([[row.encode()] for row in rows], np.object_), binary_data=binary)
        inputs.append(tensor)
    return nvidia.infer(RECOMMEND.name, inputs, **more)


@pytest.mark.parametrize("binary", [True, False], ids=["binary in", "JSON in"])
@pytest.mark.parametrize("out", [True, False, None], ids=["binary out", "JSON out", "out by default"])
def test_nvidias_client_is_answered_in_binary_and_in_json(nvidia: Any, binary: bool, out: bool | None) -> None:
    more = {} if out is None else {"outputs": [tritonclient.http.InferRequestedOutput(ANSWER.name, binary_data=out)]}
    answer = ask(nvidia, binary=binary, request_id="abc", **more)
    values = answer.as_numpy(ANSWER.name)
    assert values.shape == (3, 1)
    found = [Recommendation.from_json(value) for value in values[:, 0]]
    assert [one.items[0].item_id for one in found][:2] == ["6", "3"]
    assert [len(one.items) for one in found] == [2, 2, 2]
    head = answer.get_response()
    assert (head["model_name"], head["model_version"], head["id"]) == ("recommend", "1", "abc")
    assert ("data" in head["outputs"][0]) == (out is False)


@pytest.mark.parametrize("packing", ["gzip", "deflate"])
def test_packed_requests_are_read(nvidia: Any, packing: str) -> None:
    answer = ask(nvidia, binary=True, request_compression_algorithm=packing, model_version="1")
    assert Recommendation.from_json(answer.as_numpy(ANSWER.name)[0, 0]).items[0].item_id == "6"


def test_health_and_metadata_are_those_of_the_model(nvidia: Any) -> None:
    assert nvidia.is_server_live()
    assert nvidia.is_server_ready()
    assert nvidia.is_model_ready("recommend")
    assert nvidia.is_model_ready("recommend", "1")
    assert not nvidia.is_model_ready("recommendd")
    assert nvidia.get_server_metadata()["version"] == __version__
    metadata = nvidia.get_model_metadata("recommend")
    assert metadata["inputs"] == [{"name": name, "datatype": "BYTES", "shape": [-1, 1]} for name in ("TEXT", "OPTIONS")]
    assert metadata["outputs"] == [{"name": "ANSWER", "datatype": "BYTES", "shape": [-1, 1]}]
    assert nvidia.get_model_config("recommend")["max_batch_size"] == 64
    with pytest.raises(InferenceServerException, match="unknown model: 'other'") as caught:
        nvidia.get_model_metadata("other")
    assert caught.value.status() == "404"


def request(**changed: Any) -> dict[str, Any]:
    text = {"name": "TEXT", "datatype": "BYTES", "shape": [1, 1], "data": ["green gown"], **changed}
    return {"inputs": [text, {"name": "OPTIONS", "datatype": "BYTES", "shape": [1, 1], "data": ["{}"]}]}


def infer(served: Running, body: bytes, **headers: str) -> Any:
    return served.send("POST", INFER, body, {name.replace("_", "-"): value for name, value in headers.items()})


MALFORMED: list[tuple[str, bytes, str]] = [
    ("empty", b"", "not JSON"),
    ("no JSON", b"{", "not JSON"),
    ("deep", b"[" * 200_000, "not JSON"),
    ("not UTF-8", b'{"inputs": "\xff"}', "not JSON"),
    ("list", b"[]", "a JSON list"),
    ("no inputs", b"{}", "inputs is missing"),
    ("inputs of strings", b'{"inputs": ["TEXT"]}', "inputs is missing or not a list of objects"),
    ("one input", json.dumps({"inputs": request()["inputs"][:1]}).encode(), "expected 2 inputs but got 1: OPTIONS"),
    ("twice", json.dumps({"inputs": request()["inputs"] * 2}).encode(), "comes twice"),
    ("unknown input", json.dumps(request(name="TEXTS")).encode(), "'TEXTS' is unknown"),
    ("unhashable name", json.dumps(request(name=[])).encode(), "unknown"),
    ("wrong type", json.dumps(request(datatype="INT32")).encode(), "datatype of TEXT"),
    ("wide", json.dumps(request(shape=[1, 2])).encode(), "accepted is [texts, 1]"),
    ("boolean shape", json.dumps(request(shape=[True, 1])).encode(), "accepted is [texts, 1]"),
    ("no rows", json.dumps(request(shape=[0, 1], data=[])).encode(), "batch-size must be"),
    ("negative", json.dumps(request(shape=[-1, 1])).encode(), "batch-size must be"),
    ("too many", json.dumps(request(shape=[65, 1], data=["a"] * 65)).encode(), "batch-size must be <= 64"),
    ("unequal", json.dumps(request(shape=[2, 1], data=["a", "b"])).encode(), "batch size does not match"),
    ("fewer rows", json.dumps(request(shape=[2, 1])).encode(), "TEXT holds 1 strings"),
    ("numbers", json.dumps(request(data=[1])).encode(), "not a list of strings"),
    ("no data", json.dumps(request(data=None)).encode(), "not a list of strings"),
    ("parameters", json.dumps(request(parameters=[])).encode(), "parameters is not an object"),
    ("shared memory", json.dumps(request(parameters={"shared_memory_region": "x"})).encode(), "shared memory"),
    ("beyond the body", json.dumps(request(parameters={"binary_data_size": 10})).encode(), "0 bytes are left"),
    ("negative size", json.dumps(request(parameters={"binary_data_size": -1})).encode(), "binary_data_size of TEXT is -1"),
    ("unknown output", json.dumps({**request(), "outputs": [{"name": "SCORE"}]}).encode(), "'SCORE' is unknown"),
    ("surrogate id", json.dumps({**request(), "id": "\ud800"}).encode(), "id is not a printable string"),
    ("blank text", json.dumps(request(data=[" "])).encode(), "text 0 is empty"),
    ("surrogate text", json.dumps(request(data=["\ud800"])).encode(), "lone surrogate"),
]


@pytest.mark.parametrize(("body", "message"), [case[1:] for case in MALFORMED], ids=[case[0] for case in MALFORMED])
def test_a_malformed_request_gets_400_that_says_why(served: Running, body: bytes, message: str) -> None:
    response = infer(served, body)
    assert response.status == 400
    assert message in response.json["error"]
    assert infer(served, json.dumps(request()).encode()).status == 200


@pytest.mark.parametrize(
    ("tail", "size", "message"),
    [
        (b"\x05\0\0\0green", 9, None),
        (b"\x05\0\0\0green", 8, "ends within string 0"),
        (b"\xff\xff\xff\xffgreen", 9, "ends within string 0"),
        (b"\x05\0\0", 3, "ends within string 0"),
        (b"\x05\0\0\0gr\xffen", 9, "TEXT 0 is not UTF-8: byte 2 is 0xff"),
        (b"\x05\0\0\0green\x01\0\0\0a", 14, "TEXT holds 2 strings, and its shape says 1"),
        (b"\x05\0\0\0greenmore", 9, "4 bytes behind the last tensor"),
        (b"", 0, "TEXT holds 0 strings"),
    ],
)
def test_binary_tensors_are_read_to_the_byte(served: Running, tail: bytes, size: int, message: str | None) -> None:
    head = json.dumps(request(parameters={"binary_data_size": size})).encode()
    response = infer(served, head + tail, **{HEADER_LENGTH: str(len(head))})
    assert response.status == (400 if message else 200)
    assert message is None or message in response.json["error"]


@pytest.mark.parametrize("length", ["-1", "a", "", "1e3", "٣", "99999999999999999999"])
def test_a_header_length_beyond_the_body_is_refused(served: Running, length: str) -> None:
    response = infer(served, json.dumps(request()).encode(), **{HEADER_LENGTH: length.encode().decode("latin-1")})
    assert (response.status, HEADER_LENGTH in response.json["error"]) == (400, True)


@pytest.mark.parametrize(
    ("body", "status"), [(gzip.compress(b"{}")[:-9], 400), (b"{}", 400), (gzip.compress(bytes(9 << 20)), 413)]
)
def test_a_packed_body_is_bounded_and_checked(served: Running, body: bytes, status: int) -> None:
    assert infer(served, body, Content_Encoding="gzip").status == status


def test_other_packings_are_refused(served: Running) -> None:
    assert infer(served, b"{}", Content_Encoding="br").status == 415
