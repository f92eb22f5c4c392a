"""The one-file recommender in a real Triton: a custom operator library, a string in, strings out, and no batch dimension."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from google.protobuf import text_format  # type: ignore[import-untyped]  # its stubs are a package of their own
from tritonclient.grpc import model_config_pb2
from tritonclient.utils import InferenceServerException

from bertrec.bundle import Bundle
from bertrec.errors import ServerFailed
from bertrec.onefile import ONEFILE, OneFileRecommender
from bertrec.tensors import ITEM_INDEX, SCORE, TEXT
from export.onefile import build_onefile
from serving.assemble import MODELS_FOLDER, TEMPLATES
from serving.triton import TritonServer
from tests.serving import asking
from tests.serving.asking import at_once, infer
from tests.tiny import ITEMS, item_text

CLIENTS = 8
TOLERANCE = 1e-5
TEXTS = ["a jade coat", "CRÈME brûlée, été", "coat🧥 🧥", "保暖的外套", "hat " * 300, *(item_text(item) for item in range(ITEMS))]
CONFIG = TEMPLATES / ONEFILE.name / "configs/cpu.pbtxt"


@pytest.fixture(scope="module")
def file(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("onefile") / "one.onnx"
    build_onefile(Bundle.open(tiny_bundle), "fp32", path)
    return path


def with_onefile(repository: Path, file: Path, folder: Path) -> Path:
    """The repository with the model ``onefile`` beside the others, laid out as docs/onefile.md says."""
    shutil.copytree(repository, folder)
    model = folder / MODELS_FOLDER / ONEFILE.name
    shutil.copytree(CONFIG.parent, model / "configs")
    (model / "1").mkdir()
    shutil.copy(file, model / "1/model.onnx")
    return folder


@pytest.fixture(scope="module")
def server(triton_repository: Path, file: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TritonServer]:
    repository = with_onefile(triton_repository, file, tmp_path_factory.mktemp("repository") / "onefile")
    with TritonServer(repository) as server:
        yield server


@pytest.fixture(scope="module")
def here(file: Path) -> OneFileRecommender:
    return OneFileRecommender(file, threads=1)


def ask(server: TritonServer, protocol: str, text: str | bytes) -> list[tuple[str, float, int]]:
    content = text.encode() if isinstance(text, str) else text
    answer = infer(server, protocol, ONEFILE.name, {TEXT.name: ("BYTES", np.asarray([content], np.object_))})
    ids, scores, indices = (answer.as_numpy(name) for name in ("item_id", SCORE.name, ITEM_INDEX.name))
    assert (scores.dtype, indices.dtype) == (np.float32, np.int64)
    return list(zip([one.decode() for one in ids], scores.tolist(), indices.tolist(), strict=True))


def assert_same(found: list[tuple[str, float, int]], here: OneFileRecommender, text: str) -> None:
    wanted = here.recommend(text, ITEMS)
    assert [(item_id, index) for item_id, _, index in found] == [(item.item_id, item.index) for item in wanted]
    np.testing.assert_allclose([score for _, score, _ in found], [item.score for item in wanted], atol=TOLERANCE)


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_triton_answers_as_the_edge_does(server: TritonServer, here: OneFileRecommender, protocol: str) -> None:
    for text in TEXTS:
        assert_same(ask(server, protocol, text), here, text)


def test_requests_at_once_get_their_own_answers(server: TritonServer, here: OneFileRecommender) -> None:
    texts = TEXTS[:CLIENTS]
    for text, found in zip(texts, at_once([partial(ask, server, "grpc", text) for text in texts]), strict=True):
        assert_same(found, here, text)


def test_an_empty_text_is_ranked_by_what_says_nothing(server: TritonServer) -> None:
    assert ask(server, "grpc", "") == ask(server, "grpc", " \u200b ")


def test_a_text_that_is_no_unicode_is_an_error_and_the_model_lives_on(server: TritonServer, here: OneFileRecommender) -> None:
    with pytest.raises(InferenceServerException, match="onnxruntime: .*utf-8"):
        ask(server, "grpc", b"\xff\xfe coat")
    assert_same(ask(server, "grpc", "a jade coat"), here, "a jade coat")


def test_two_texts_in_one_request_are_refused(server: TritonServer) -> None:
    with pytest.raises(InferenceServerException, match=r"unexpected shape for input 'TEXT'.* Expected \[1\], got \[2\]"):
        infer(server, "grpc", ONEFILE.name, {TEXT.name: ("BYTES", np.asarray([b"a", b"b"], np.object_))})


def test_the_other_models_are_served_beside_it(server: TritonServer) -> None:
    (answer,) = asking.ask(server, "grpc", ["green gown"])
    assert answer.items


def test_a_library_that_is_not_there_fails_the_model_with_the_reason(triton_repository: Path, file: Path, tmp_path: Path) -> None:
    repository = with_onefile(triton_repository, file, tmp_path / "repository")
    config = repository / MODELS_FOLDER / ONEFILE.name / "configs/cpu.pbtxt"
    config.write_text(config.read_text(encoding="utf-8").replace("libortextensions.so", "libmissing.so"), encoding="utf-8")
    with pytest.raises(ServerFailed, match=r"model onefile does not load: .*libmissing\.so"):
        TritonServer(repository).start()


def test_the_config_holds_what_the_file_has() -> None:
    config: Any = text_format.Parse(CONFIG.read_text(encoding="utf-8"), model_config_pb2.ModelConfig())
    kinds = {model_config_pb2.TYPE_STRING: "BYTES", model_config_pb2.TYPE_INT64: "INT64", model_config_pb2.TYPE_FP32: "FP32"}

    def tensors(given: Any) -> list[tuple[str, str, list[int]]]:
        return [(one.name, kinds[one.data_type], list(one.dims)) for one in given]

    assert (config.name, config.backend, config.max_batch_size) == (ONEFILE.name, "onnxruntime", 0)
    assert tensors(config.input) == [(TEXT.name, "BYTES", [1])]
    assert tensors(config.output) == [(one.name, one.dtype, [-1]) for one in ONEFILE.outputs]
    assert list(config.model_operations.op_library_filename) == ["libortextensions.so"]
    assert not config.HasField("dynamic_batching")
