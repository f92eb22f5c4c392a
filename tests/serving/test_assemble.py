"""Assembling a Triton repository: whole or not at all, and never over somebody else's files."""

from __future__ import annotations

import json
import logging
import os
import shutil
from pathlib import Path

import pytest

from bertrec.bundle import Bundle
from bertrec.errors import InvalidBundle, InvalidInput
from serving import assemble as assembling
from serving.assemble import REPOSITORY_FILE, Target, assemble, describe


def files_in(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def altered_bundle(tiny_bundle: Path, tmp_path: Path) -> Path:
    """A copy to alter."""
    return shutil.copytree(tiny_bundle, tmp_path / "bundle")


def test_repository_holds_all_that_triton_needs(tiny_bundle: Path, triton_repository: Path) -> None:
    found = files_in(triton_repository)
    models = triton_repository / "models"
    assert found["models/encoder/1/model.onnx"] == (tiny_bundle / "encoder/fp32.onnx").read_bytes()
    assert found["models/ranker/1/model.onnx"] == (tiny_bundle / "ranker/fp32.onnx").read_bytes()
    assert found["models/recommend/1/engine.txt"] == b"fp32\n"
    assert found["models/recommend/1/model.py"] == (assembling.TEMPLATES / "model.py").read_bytes()
    assert "models/recommend/1/bertrec/pipeline.py" in found
    for model in ("recommend", "encoder", "ranker"):
        names = {path.name for path in (models / model / "configs").iterdir()}
        assert names == {"cpu.pbtxt", "gpu.pbtxt", "gpu-ort.pbtxt"}


def test_recommend_brings_the_bundle_without_its_engines(tiny_bundle: Path, triton_repository: Path) -> None:
    folder = triton_repository / "models/recommend/1/bundle"
    assert Bundle.open(folder, engines=False).fingerprint == Bundle.open(tiny_bundle).fingerprint
    assert not list(folder.rglob("*.onnx"))


def test_repository_file_says_what_it_is_and_how_to_serve_it(tiny_bundle: Path, triton_repository: Path) -> None:
    repository = describe(triton_repository)
    assert repository.bundle == Bundle.open(tiny_bundle).manifest.fingerprint
    assert (repository.target, repository.engine, repository.version) == ("cpu", "fp32", 1)
    assert "--model-config-name=cpu" in repository.commands["tritonserver"]


def test_gpu_ort_is_served_by_its_own_configs_and_warns_of_what_tensorrt_cannot_compile(
    tiny_bundle: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    commands = describe(assemble(tiny_bundle, tmp_path / "gpu", target=Target.GPU_ORT)).commands
    assert "encoder/fp32.onnx has fused operators of ONNX Runtime's own (com.microsoft)" in caplog.text
    assert "--model-config-name=gpu-ort" in commands["docker"]
    assert "--gpus all" in commands["docker"]


def test_engine_and_version_are_chosen(tiny_bundle: Path, tmp_path: Path) -> None:
    output = assemble(tiny_bundle, tmp_path / "out", target=Target.CPU, engine="int8", version=7)
    assert (output / "models/encoder/7/model.onnx").read_bytes() == (tiny_bundle / "encoder/int8.onnx").read_bytes()
    assert (output / "models/recommend/7/engine.txt").read_text() == "int8\n"


def test_the_same_repository_is_reused_and_said_so(tiny_bundle: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    output = assemble(tiny_bundle, tmp_path / "out", target=Target.CPU)
    before = {path: path.stat().st_mtime_ns for path in output.rglob("*")}
    with caplog.at_level(logging.INFO):
        assert assemble(tiny_bundle, output, target=Target.CPU) == output
    assert {path: path.stat().st_mtime_ns for path in output.rglob("*")} == before
    assert "used as it is" in caplog.text


@pytest.mark.parametrize("change", [{"target": Target.GPU_ORT}, {"engine": "int8"}, {"version": 2}])
def test_another_repository_takes_the_place_of_the_old(tiny_bundle: Path, tmp_path: Path, change: dict[str, object]) -> None:
    output = assemble(tiny_bundle, tmp_path / "out", target=Target.CPU)
    wanted = {"target": Target.CPU, **change}
    assemble(tiny_bundle, output, **wanted)  # type: ignore[arg-type]
    fresh = assemble(tiny_bundle, tmp_path / "fresh", **wanted)  # type: ignore[arg-type]
    assert files_in(output) == files_in(fresh)
    assert {path.name for path in tmp_path.iterdir()} == {"out", "fresh"}


def test_a_change_of_the_code_is_assembled_again(tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    output = assemble(tiny_bundle, tmp_path / "out", target=Target.CPU)
    stale = json.loads((output / REPOSITORY_FILE).read_text())
    (output / REPOSITORY_FILE).write_text(json.dumps({**stale, "source": "0" * 64}))
    assemble(tiny_bundle, output, target=Target.CPU)
    assert describe(output).source == stale["source"]


def test_an_empty_folder_is_filled(tiny_bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    assert describe(assemble(tiny_bundle, tmp_path / "out", target=Target.CPU)).target == "cpu"


@pytest.mark.parametrize("name", ["notes.txt", REPOSITORY_FILE])
def test_a_foreign_folder_is_refused_and_left_as_it_was(tiny_bundle: Path, tmp_path: Path, name: str) -> None:
    output = tmp_path / "mine"
    output.mkdir()
    (output / name).write_text("{}")
    with pytest.raises(InvalidInput, match="something else than an assembled repository"):
        assemble(tiny_bundle, output, target=Target.CPU)
    assert files_in(output) == {name: b"{}"}


def test_a_file_in_the_way_is_refused(tiny_bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("mine")
    with pytest.raises(InvalidInput, match="something else"):
        assemble(tiny_bundle, tmp_path / "out", target=Target.CPU)


@pytest.mark.parametrize("name", ["encoder/fp32.onnx", "encoder/int8.onnx", "catalogue.jsonl", "signals/lexical_idf.npy"])
def test_a_flipped_byte_in_any_file_is_refused_before_anything_is_written(
    altered_bundle: Path, tmp_path: Path, name: str
) -> None:
    content = bytearray((altered_bundle / name).read_bytes())
    content[len(content) // 2] ^= 1
    (altered_bundle / name).write_bytes(content)
    with pytest.raises(InvalidBundle, match=f"{name} was altered"):
        assemble(altered_bundle, tmp_path / "out", target=Target.CPU)
    assert {path.name for path in tmp_path.iterdir()} == {"bundle"}


def test_a_missing_file_is_named(altered_bundle: Path, tmp_path: Path) -> None:
    (altered_bundle / "ranker/fp32.onnx").unlink()
    with pytest.raises(InvalidBundle, match=r"ranker/fp32\.onnx is missing"):
        assemble(altered_bundle, tmp_path / "out", target=Target.CPU)


def test_unknown_engine_target_and_version_are_refused_with_what_there_is(tiny_bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="no encoder engine 'fp8'; it has fp32, int8"):
        assemble(tiny_bundle, tmp_path / "out", target=Target.CPU, engine="fp8")
    with pytest.raises(InvalidInput, match="target is 'tpu'; accepted are cpu, gpu, gpu-ort"):
        assemble(tiny_bundle, tmp_path / "out", target="tpu")  # type: ignore[arg-type]
    with pytest.raises(InvalidInput, match="version is 0; accepted is a whole number of at least 1"):
        assemble(tiny_bundle, tmp_path / "out", target=Target.CPU, version=0)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("existing", [False, True])
def test_an_interruption_leaves_what_was_there(
    tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, existing: bool
) -> None:
    output = tmp_path / "out"
    if existing:
        assemble(tiny_bundle, output, target=Target.CPU)
    before = files_in(tmp_path)

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(assembling, "_write_python_model", interrupt)
    with pytest.raises(KeyboardInterrupt):
        assemble(tiny_bundle, output, target=Target.CPU, version=2)
    assert files_in(tmp_path) == before


def test_an_interruption_between_the_two_renames_puts_the_old_one_back(
    tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = assemble(tiny_bundle, tmp_path / "out", target=Target.CPU)
    before = files_in(tmp_path)
    rename = os.rename

    def interrupt(source: Path, destination: Path) -> None:
        if Path(source).name == "new":
            raise KeyboardInterrupt
        rename(source, destination)

    monkeypatch.setattr(os, "rename", interrupt)
    with pytest.raises(KeyboardInterrupt):
        assemble(tiny_bundle, output, target=Target.CPU, version=2)
    assert files_in(tmp_path) == before
