"""What may be compiled for what, and which stamp fits which machine."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import tensorrt_rtx as trt

from bertrec.bundle import EngineRecord, Runtime
from bertrec.errors import InvalidBundle, InvalidInput
from export.tensorrt.settings import RTX_CAPABILITIES, BuildSettings, HardwareCompatibility, encoder_profiles
from export.tensorrt.stamps import check_stamp, container_tag, make_stamp

SHA256 = "ab" * 32


@pytest.fixture
def compiled() -> EngineRecord:
    """A record as the compiler writes it."""
    stamp = make_stamp(
        BuildSettings(Runtime.TENSORRT_RTX, target_sm=("86",), container="24.10"),
        version=trt.__version__,
        source="encoder/plain.onnx",
        source_sha256=SHA256,
        precision="fp32",
        profiles=encoder_profiles(64),
    )
    return EngineRecord("encoder", "plain.rtx", "encoder/plain.rtx", "fp32", runtime="tensorrt_rtx", stamp=stamp)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"runtime": Runtime.ORT}, "runtime is ort; accepted are tensorrt, tensorrt_rtx"),
        ({"target_sm": ("88",)}, "target_sm names '88'; accepted are 75, 80, 86, 89, 120, 121"),
        ({"target_sm": ("86", "86")}, "names a compute capability twice"),
        ({"runtime": Runtime.TENSORRT, "target_sm": ("86",)}, "TensorRT compiles for the GPU that it runs on"),
        ({"version_compatible": True}, "builds no version-compatible engines"),
        ({"hardware_compatibility": HardwareCompatibility.AMPERE_PLUS}, "name the GPUs by target_sm"),
        ({"timing_cache": Path("cache")}, "times no kernels when it compiles ahead of time"),
        ({"workspace_bytes": 1000}, "workspace_bytes is 1000; accepted is 1048576"),
    ],
)
def test_settings_that_no_compiler_can_fulfil_are_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        BuildSettings(**{"runtime": Runtime.TENSORRT_RTX, **given})


def test_the_compute_capabilities_are_those_that_tensorrt_for_rtx_has() -> None:
    assert {f"SM{sm}" for sm in RTX_CAPABILITIES} == set(trt.ComputeCapability.__members__) - {"NONE", "CURRENT"}


def test_profiles_cover_every_length_once() -> None:
    lengths = [(one.shapes["input_ids"][0][1], one.shapes["input_ids"][2][1]) for one in encoder_profiles(96)]
    assert lengths == [(1, 16), (17, 32), (33, 64), (65, 96)]
    assert len(encoder_profiles(512)) == 6
    assert len(encoder_profiles(10)) == 1


GOOD: dict[str, Any] = {
    "runtime": Runtime.TENSORRT_RTX,
    "version": trt.__version__,
    "container": "24.10",
    "compute_capability": "86",
}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"version": "1.8.0"}, rf"was compiled for tensorrt_rtx {trt.__version__}, and this is tensorrt_rtx 1\.8\.0"),
        ({"compute_capability": "90"}, "was compiled for compute capability 86, and this is compute capability 90"),
        ({"source_sha256": "0" * 64}, r"was compiled from another encoder/plain\.onnx: sha256 \w{12} instead of 000000000000"),
    ],
)
def test_a_stamp_that_does_not_fit_is_refused_with_the_command_that_builds_anew(
    compiled: EngineRecord, given: dict[str, str], message: str
) -> None:
    good = {**GOOD, "source_sha256": SHA256}
    check_stamp(compiled, **good)
    again = "python -m export tensorrt --bundle bundles/b --output NEW_BUNDLE --engine plain --runtime tensorrt_rtx"
    with pytest.raises(InvalidBundle, match=rf"{message}.*Build it anew: {again}"):
        check_stamp(compiled, **{**good, **given}, bundle="bundles/b")


def test_an_engine_of_another_runtime_or_without_a_stamp_is_refused(compiled: EngineRecord) -> None:
    with pytest.raises(InvalidInput, match=r"plain\.rtx is for tensorrt_rtx, not for tensorrt\. .* --runtime tensorrt"):
        check_stamp(compiled, runtime=Runtime.TENSORRT)
    with pytest.raises(InvalidInput, match="plain is for ort, not for tensorrt"):
        check_stamp(EngineRecord("encoder", "plain", "encoder/plain.onnx", "fp32"), runtime=Runtime.TENSORRT)
    bare = dataclasses.replace(compiled, stamp={})
    with pytest.raises(InvalidBundle, match="has no whole stamp"):
        check_stamp(bare, runtime=Runtime.TENSORRT_RTX)


def stamped(record: EngineRecord, **changes: object) -> EngineRecord:
    """The record as TensorRT would stamp it."""
    options = {**record.stamp["options"], "version_compatible": changes.pop("version_compatible", False)}
    stamp = {**record.stamp, "runtime": "tensorrt", "version": "10.5.0", "container": "24.10", "options": options, **changes}
    return dataclasses.replace(record, runtime="tensorrt", stamp=stamp)


def test_version_compatible_engines_fit_newer_releases_of_the_same_major_version(compiled: EngineRecord) -> None:
    exact = stamped(compiled)
    lenient = stamped(compiled, version_compatible=True)
    for version in ("10.5.0", "10.16.1.11"):
        check_stamp(lenient, runtime=Runtime.TENSORRT, version=version)
    for record, version in ((lenient, "10.4.0"), (lenient, "11.4.0"), (exact, "10.16.1.11")):
        with pytest.raises(InvalidBundle, match="was compiled for tensorrt"):
            check_stamp(record, runtime=Runtime.TENSORRT, version=version)
    with pytest.raises(InvalidBundle, match=r"was compiled for the container 24\.10, and this is the container 25\.01"):
        check_stamp(exact, runtime=Runtime.TENSORRT, container="25.01")


def test_a_capability_with_a_plus_fits_newer_gpus(compiled: EngineRecord) -> None:
    record = stamped(compiled, compute_capabilities=["80+"])
    for capability in ("80", "89", "120"):
        check_stamp(record, runtime=Runtime.TENSORRT, compute_capability=capability)
    with pytest.raises(InvalidBundle, match=r"compiled for compute capability 80\+"):
        check_stamp(record, runtime=Runtime.TENSORRT, compute_capability="75")


def test_the_container_is_read_from_its_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NVIDIA_TRITON_SERVER_VERSION", "NVIDIA_TENSORRT_VERSION"):
        monkeypatch.delenv(name, raising=False)
    assert container_tag() == ""
    monkeypatch.setenv("NVIDIA_TENSORRT_VERSION", "25.03")
    assert container_tag() == "25.03"
    monkeypatch.setenv("NVIDIA_TRITON_SERVER_VERSION", "24.10")
    assert container_tag() == "24.10"
