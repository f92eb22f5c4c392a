"""The probe asks all that a repository serves, and finds each answer that is another one. Real servers."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from bertrec.bundle import Bundle
from bertrec.errors import InvalidInput
from serving.__main__ import main
from serving.assemble import Target, assemble
from serving.probe import K, probe
from serving.triton import TritonServer

ALL = ("recommend", "match", "classify", "embed")


@pytest.fixture(scope="module")
def impaired(full_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TritonServer]:
    """A Triton whose heads are others than the bundle's, and which serves no ``match``."""
    repository = assemble(full_bundle, tmp_path_factory.mktemp("repository") / "impaired", target=Target.CPU)
    file = repository / "models/heads/1/model.onnx"
    network = onnx.load(file)
    for weights in network.graph.initializer:
        values = numpy_helper.to_array(weights)
        if values.dtype == np.float32:
            weights.CopyFrom(numpy_helper.from_array(values[..., ::-1].copy(), weights.name))
    file.unlink()  # it may be a link to the bundle's
    onnx.save(network, file)
    shutil.rmtree(repository / "models/match")
    with TritonServer(repository) as server:
        yield server


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_every_question_that_the_bundle_answers_is_asked(full_triton: TritonServer, full_bundle: Path, protocol: str) -> None:
    found = probe(full_triton.grpc_url if protocol == "grpc" else full_triton.http_url, full_bundle, timeout_s=30)
    assert (found.asked, found.items, found.bundle) == (ALL, K, Bundle.open(full_bundle).fingerprint)
    assert found.latency_ms > 0


def test_the_command_says_what_was_asked(
    full_triton: TritonServer, full_bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["probe", "--url", full_triton.grpc_url, "--bundle", str(full_bundle), "--timeout", "30"]
    assert main(arguments) == 0
    assert "answers rightly to recommend, match, classify, embed: 10 items of bundle" in capsys.readouterr().out
    assert main([*arguments, "--ask", "embed"]) == 0
    assert "answers rightly to recommend, embed: " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("asked", "code", "said"),
    [
        ("recommend,embed", 0, ""),
        ("classify", 1, "classify: sentiment negative has probability "),
        ("match", 1, "it has no model 'match'"),
    ],
)
def test_one_wrong_answer_ends_the_command_with_1(
    impaired: TritonServer, full_bundle: Path, capsys: pytest.CaptureFixture[str], asked: str, code: int, said: str
) -> None:
    command = ["probe", "--url", impaired.grpc_url, "--bundle", str(full_bundle), "--timeout", "30", "--ask", asked]
    assert main(command) == code
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == code


def test_what_the_bundle_cannot_answer_is_not_asked(tiny_bundle: Path) -> None:
    with pytest.raises(InvalidInput, match="cannot be asked to match, sing; it can be asked to recommend, embed"):
        probe("grpc://127.0.0.1:1", tiny_bundle, ask=["match", "sing"])
