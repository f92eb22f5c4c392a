"""The stand-in for Triton's onnxruntime backend: joins what has the same shape, and gives each request its own rows or error."""

from __future__ import annotations

import random
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from tritonclient.utils import InferenceServerException

from bertrec.bundle import Bundle
from bertrec.engine import OnnxEngine
from bertrec.session_options import SessionOptions
from bertrec.tensors import ATTENTION_MASK, ENCODER, INPUT_IDS, INTEREST_VECTOR, RANKER
from serving.triton import TritonServer
from tests.serving.asking import at_once, infer, texts_per_execution

CLIENTS = 16
REQUESTS = 20
TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def encoder(tiny_bundle: Path) -> OnnxEngine:
    return OnnxEngine(tiny_bundle / "encoder/fp32.onnx", ENCODER, SessionOptions(1))


def inputs_of(rows: int, tokens: int, seed: int) -> dict[str, NDArray[Any]]:
    ids = np.random.default_rng(seed).integers(5, 40, (rows, tokens))
    return {INPUT_IDS.name: ids, ATTENTION_MASK.name: np.ones_like(ids)}


def encode(server: TritonServer, inputs: dict[str, NDArray[Any]]) -> NDArray[np.float32]:
    tensors = {name: ("INT64", values) for name, values in inputs.items()}
    vectors: NDArray[np.float32] = infer(server, "grpc", ENCODER.name, tensors).as_numpy(INTEREST_VECTOR.name)
    return vectors


def test_requests_at_once_of_any_shape_get_their_own_rows(triton: TritonServer, encoder: OnnxEngine) -> None:
    before, _ = texts_per_execution(triton, ENCODER.name)

    def work(number: int) -> list[tuple[dict[str, NDArray[Any]], NDArray[np.float32]]]:
        """Ask again as soon as an answer is there, so that requests keep waiting for each other whatever the machine does."""
        choose = random.Random(number)
        asked = [inputs_of(choose.choice([1, 2, 3]), choose.choice([8, 16]), 100 * number + turn) for turn in range(REQUESTS)]
        return [(one, encode(triton, one)) for one in asked]

    for answered in at_once([partial(work, number) for number in range(CLIENTS)]):
        for one, vectors in answered:
            np.testing.assert_allclose(vectors, encoder.run(one)[INTEREST_VECTOR.name], atol=TOLERANCE)
    _, joined = texts_per_execution(triton, ENCODER.name, before)
    assert joined > 2.5  # a request has 2 texts on average


def test_a_bad_request_is_an_error_and_those_beside_it_are_answered(triton: TritonServer, encoder: OnnxEngine) -> None:
    asked = [inputs_of(1, 8, seed) for seed in range(CLIENTS)]
    asked[5][INPUT_IDS.name][0, 0] = 10**6
    for number, (one, result) in enumerate(zip(asked, at_once([partial(encode, triton, one) for one in asked]), strict=True)):
        if number == 5:
            assert isinstance(result, InferenceServerException)
            assert "onnxruntime: " in result.message()
            assert "out of data bounds" in result.message()
        else:
            np.testing.assert_allclose(result, encoder.run(one)[INTEREST_VECTOR.name], atol=TOLERANCE)


def test_inputs_of_unequal_length_are_refused(triton: TritonServer) -> None:
    unequal = {**inputs_of(1, 8, 0), ATTENTION_MASK.name: np.ones((1, 9), np.int64)}
    with pytest.raises(InferenceServerException, match="onnxruntime: "):
        encode(triton, unequal)


def test_the_ranker_answers_with_all_its_outputs(triton: TritonServer, tiny_bundle: Path) -> None:
    engine = OnnxEngine(tiny_bundle / "ranker/fp32.onnx", RANKER, SessionOptions(1))
    random_state = np.random.default_rng(0)
    bundle = Bundle.open(tiny_bundle)
    width, items = sum(bundle.manifest.signals.values()), len(bundle.catalogue())
    given: dict[str, tuple[str, NDArray[Any]]] = {
        "query_vector": ("FP32", random_state.normal(size=(3, width)).astype(np.float32)),
        "boost": ("FP32", np.where(random_state.random((3, items)) > 0.5, 0, -np.inf).astype(np.float32)),
    }
    answer = infer(triton, "grpc", RANKER.name, given)
    expected = engine.run({name: values for name, (_, values) in given.items()})
    for output in RANKER.outputs:
        np.testing.assert_allclose(answer.as_numpy(output.name), expected[output.name], atol=TOLERANCE)
