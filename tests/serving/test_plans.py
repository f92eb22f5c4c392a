"""Compiled engines in a Triton repository: .plan files for the target gpu, refused where the stamp does not fit; .rtx never."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import text_format  # type: ignore[import-untyped]  # its stubs are a package of their own
from tritonclient.grpc import model_config_pb2

from bertrec.bundle import Bundle, EngineRecord, Runtime, seal
from bertrec.errors import InvalidBundle, InvalidInput
from export.encoder import export_plain
from export.tensorrt.bundles import compile_bundle
from export.tensorrt.settings import (
    BuildSettings,
    HardwareCompatibility,
    encoder_profiles,
    heads_profiles,
    matcher_profiles,
    ranker_profiles,
)
from export.tensorrt.stamps import CONTAINER_VARIABLES, make_stamp
from serving.assemble import Target, assemble, describe
from tests import tiny
from train.encoder import Encoder

PROFILES = {
    "encoder": encoder_profiles(128),
    "ranker": ranker_profiles(10, 20),
    "matcher": matcher_profiles(64, 8),
    "heads": heads_profiles(32),
}
ALL_PLANS = {"encoder": "fp32", "ranker": "fp32", "matcher": "plain", "heads": "fp32"}
PLAN = b"a plan can be compiled on a GPU alone, and nothing here looks into it"


@pytest.fixture
def planned(tiny_bundle: Path, tmp_path: Path) -> Callable[..., Path]:
    """Writes a bundle with .plan files, stamped as TensorRT's compiler stamps them for 128 tokens; changes: of the stamps."""

    def write(
        name: str = "planned",
        *,
        of: Path = tiny_bundle,
        plans: Mapping[str, str] = {"encoder": "fp32", "ranker": "fp32"},  # noqa: B006  # nobody changes it
        encoder: dict[str, Any] | None = None,
        both: dict[str, Any] | None = None,
    ) -> Path:
        folder = shutil.copytree(of, tmp_path / name)
        manifest = Bundle.open(of).manifest
        settings = BuildSettings(Runtime.TENSORRT, hardware_compatibility=HardwareCompatibility.AMPERE_PLUS, container="24.10")
        records = []
        for model, engine in plans.items():
            source, file = f"{model}/{engine}.onnx", f"{model}/{engine}.plan"
            (folder / file).write_bytes(PLAN + model.encode())
            stamp = make_stamp(
                settings,
                version="10.5.0",
                source=source,
                source_sha256=manifest.files[source].sha256,
                precision="fp32",
                profiles=PROFILES[model],
            )
            stamp |= ((encoder or {}) if model == "encoder" else {}) | (both or {})
            stamped: dict[str, Any] = {"runtime": "tensorrt", "stamp": stamp, "verdict": "unmeasured"}
            records.append(EngineRecord(model, f"{engine}.plan", file, "fp32", **stamped))
        seal(folder, dataclasses.replace(manifest, engines=(*manifest.engines, *records)))
        return folder

    return write


@pytest.fixture
def plain_bundle(tiny_bundle: Path, tiny_backbone: Path, tmp_path: Path) -> Path:
    """The tiny bundle with an encoder of standard operators."""
    folder = shutil.copytree(tiny_bundle, tmp_path / "plain")
    export_plain(Encoder.load(tiny_backbone, attention="eager"), folder / "encoder/plain.onnx")
    manifest = Bundle.open(tiny_bundle).manifest
    plain = EngineRecord("encoder", "plain", "encoder/plain.onnx", "fp32")
    seal(folder, dataclasses.replace(manifest, engines=(*manifest.engines, plain)))
    return folder


@pytest.fixture(autouse=True)
def outside_of_a_container(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in CONTAINER_VARIABLES:
        monkeypatch.delenv(name, raising=False)


def test_plans_are_served_by_the_target_gpu_with_every_profile_and_in_their_container(
    planned: Callable[..., Path], tmp_path: Path
) -> None:
    output = assemble(planned(both={"container": "25.01"}), tmp_path / "out", target=Target.GPU, engine="fp32.plan")
    models = output / "models"
    assert (models / "encoder/1/model.plan").read_bytes() == PLAN + b"encoder"
    assert (models / "ranker/1/model.plan").read_bytes() == PLAN + b"ranker"
    assert (models / "recommend/1/engine.txt").read_text() == "fp32.plan\n"
    assert not list(models.rglob("*.onnx"))
    for model, profiles in (("encoder", ["0", "1", "2", "3"]), ("ranker", ["0"])):
        text = (models / model / "configs/gpu.pbtxt").read_text()
        config = text_format.Parse(text, model_config_pb2.ModelConfig())
        assert list(config.instance_group[0].profile) == profiles
        graphs = config.optimization.cuda.graph_spec
        assert config.optimization.cuda.graphs == (model == "encoder")
        lengths = [16, 32, 64, 128] if model == "encoder" else []  # each at the end of a profile
        assert [{name: list(shape.dim) for name, shape in one.input.items()} for one in graphs] == [
            {"input_ids": [length], "attention_mask": [length]} for length in lengths
        ]
        assert all(one.batch_size == 1 for one in graphs)
    commands = describe(output).commands
    assert "nvcr.io/nvidia/tritonserver:25.01-py3" in commands["docker"]
    assert commands["tritonserver"].endswith("--model-config-name=gpu")


@pytest.fixture
def whole_bundle(tiny_backbone: Path, tmp_path: Path) -> Path:
    """With a matcher and heads."""
    return tiny.write_bundle(tmp_path / "whole", tiny_backbone, matcher=True, heads=True)


def without(bundle: Path, folder: Path, file: str) -> Path:
    """A copy that lacks an engine."""
    shutil.copytree(bundle, folder)
    (folder / file).unlink()
    manifest = Bundle.open(bundle).manifest
    seal(folder, dataclasses.replace(manifest, engines=tuple(one for one in manifest.engines if one.file != file)))
    return folder


def test_matcher_and_heads_are_served_by_their_plans_too(
    planned: Callable[..., Path], whole_bundle: Path, tmp_path: Path
) -> None:
    folder = planned(of=whole_bundle, plans=ALL_PLANS)
    models = assemble(folder, tmp_path / "out", target=Target.GPU, engine="fp32.plan") / "models"
    assert not list(models.rglob("*.onnx"))
    for model in ("matcher", "heads"):
        assert (models / model / "1/model.plan").read_bytes() == PLAN + model.encode()
        config = text_format.Parse((models / model / "configs/gpu.pbtxt").read_text(), model_config_pb2.ModelConfig())
        assert list(config.instance_group[0].profile) == [str(index) for index in range(len(PROFILES[model]))]
    graphs = text_format.Parse((models / "matcher/configs/gpu.pbtxt").read_text(), model_config_pb2.ModelConfig())
    inputs = ("input_ids", "attention_mask", "token_type_ids")
    assert [{name: list(shape.dim) for name, shape in one.input.items()} for one in graphs.optimization.cuda.graph_spec] == [
        dict.fromkeys(inputs, [length]) for length in (16, 32, 64, 128)
    ]


@pytest.mark.parametrize("model", ["matcher", "heads"])
def test_a_model_that_was_not_compiled_is_refused_with_the_command(
    planned: Callable[..., Path], whole_bundle: Path, tmp_path: Path, model: str
) -> None:
    plans = {name: engine for name, engine in ALL_PLANS.items() if name != model}
    with pytest.raises(
        InvalidInput,
        match=rf"no {model} engine {ALL_PLANS[model]}\.plan; it has .*Make one: python -m export tensorrt .*--without {model}",
    ):
        assemble(planned(of=whole_bundle, plans=plans), tmp_path / "out", target=Target.GPU, engine="fp32.plan")
    stale = planned("stale", of=whole_bundle, plans=ALL_PLANS, encoder={"version": "10.4.0"})
    with pytest.raises(InvalidBundle, match=r"encoder/fp32\.plan and \w+/\w+\.plan were compiled for different things"):
        assemble(stale, tmp_path / "out", target=Target.GPU, engine="fp32.plan")


def test_gpu_ort_serves_the_matcher_of_standard_operators_though_another_is_chosen(
    whole_bundle: Path, planned: Callable[..., Path], tmp_path: Path
) -> None:
    assert Bundle.open(whole_bundle).matcher_engine == "fp32"
    for target, engine in ((Target.GPU_ORT, "plain"), (Target.CPU, "fp32")):
        served = assemble(whole_bundle, tmp_path / target.value, target=target) / "models/matcher/1/model.onnx"
        assert served.read_bytes() == (whole_bundle / f"matcher/{engine}.onnx").read_bytes()
    lacking = without(whole_bundle, tmp_path / "lacking", "matcher/plain.onnx")
    build = "python -m export build --run RUN --output NEW_BUNDLE --target gpu"
    with pytest.raises(InvalidInput, match=rf"no matcher engine plain; it has fp32\. Make one: {build} \(docs"):
        assemble(lacking, tmp_path / "out", target=Target.GPU_ORT)
    plans = {name: engine for name, engine in ALL_PLANS.items() if name != "matcher"}
    both = f"{build} and then python -m export tensorrt --bundle NEW_BUNDLE .* --engine fp32 --runtime tensorrt"
    with pytest.raises(InvalidInput, match=rf"no matcher engine plain\.plan; .*Make one: {both}"):
        assemble(planned(of=lacking, plans=plans), tmp_path / "out", target=Target.GPU, engine="fp32.plan")
    assert not (tmp_path / "out").exists()


def test_version_compatible_plans_are_served_as_such(planned: Callable[..., Path], tmp_path: Path) -> None:
    both = {"options": {"version_compatible": True}}
    output = assemble(planned(both=both), tmp_path / "out", target=Target.GPU, engine="fp32.plan")
    assert "--backend-config=tensorrt,version-compatible=true" in describe(output).commands["docker"]


def test_engines_that_a_target_cannot_load_are_refused_with_what_to_do(
    tiny_bundle: Path, plain_bundle: Path, planned: Callable[..., Path], tmp_path: Path
) -> None:
    output, plans = tmp_path / "out", planned()
    with pytest.raises(
        InvalidInput, match=r"encoder/fp32\.onnx is an ONNX file, .* --engines fp32,plain.*--target gpu-ort --engine"
    ):
        assemble(tiny_bundle, output, target=Target.GPU)
    again = "python -m export tensorrt --bundle .* --output NEW_BUNDLE --engine plain --runtime tensorrt"
    with pytest.raises(InvalidInput, match=rf"encoder/plain\.onnx is an ONNX file, .*: {again} .*--target gpu-ort"):
        assemble(plain_bundle, output, target=Target.GPU, engine="plain")
    for target in (Target.CPU, Target.GPU_ORT):
        with pytest.raises(InvalidInput, match=rf"target {target.value} serves ONNX files. Use --target gpu"):
            assemble(plans, output, target=target, engine="fp32.plan")
    assert not output.exists()


def test_an_engine_of_tensorrt_for_rtx_is_refused_for_every_target(plain_bundle: Path, tmp_path: Path) -> None:
    settings = BuildSettings(Runtime.TENSORRT_RTX, target_sm=("86",))
    compiled = compile_bundle(Bundle.open(plain_bundle), tmp_path / "rtx", engines=["plain"], settings=settings)
    for target in Target:
        with pytest.raises(
            InvalidInput, match=r"plain\.rtx is compiled for TensorRT for RTX, which Triton cannot load.*compile on"
        ):
            assemble(compiled.folder, tmp_path / "out", target=target, engine="plain.rtx")
    assert assemble(compiled.folder, tmp_path / "out", target=Target.GPU_ORT, engine="plain").is_dir()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"source_sha256": "0" * 64}, r"was compiled from another encoder/fp32\.onnx"),
        ({"version": "10.4.0"}, r"compiled for different things: version 10\.4\.0 and 10\.5\.0"),
        ({"compute_capabilities": ["86"]}, r"compute_capabilities \['86'\] and \['80\+'\]"),
        ({"container": "24.09"}, r"container 24\.09 and 24\.10"),
    ],
)
def test_a_stamp_that_does_not_fit_is_refused_with_the_command(
    planned: Callable[..., Path], tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    folder = planned(encoder=changes)
    with pytest.raises(
        InvalidBundle, match=rf"{message}.*python -m export tensorrt --bundle .* --engine fp32 --runtime tensorrt"
    ):
        assemble(folder, tmp_path / "out", target=Target.GPU, engine="fp32.plan")
    assert not (tmp_path / "out").exists()


def test_another_container_than_the_plans_were_compiled_in_is_refused(
    planned: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = planned()
    monkeypatch.setenv("NVIDIA_TRITON_SERVER_VERSION", "25.01")
    with pytest.raises(InvalidBundle, match=r"was compiled for the container 24\.10, and this is the container 25\.01"):
        assemble(folder, tmp_path / "out", target=Target.GPU, engine="fp32.plan")
    monkeypatch.setenv("NVIDIA_TRITON_SERVER_VERSION", "24.10")
    assert assemble(folder, tmp_path / "out", target=Target.GPU, engine="fp32.plan").is_dir()
