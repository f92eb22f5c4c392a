"""The stamp of a compiled engine: what it was compiled from, with and for. A mismatch is refused before anything loads it."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bertrec.bundle import EngineRecord, Runtime
from bertrec.errors import InvalidBundle, InvalidInput
from export.tensorrt.settings import RTX_DEFAULT_CAPABILITIES, BuildSettings, HardwareCompatibility, Profile

CONTAINER_VARIABLES = ("NVIDIA_TRITON_SERVER_VERSION", "NVIDIA_TENSORRT_VERSION")
"""Where NVIDIA's containers of Triton and of TensorRT say their tag, such as 24.10."""
_MAJOR, _MINOR = 75, 76  # of cuDeviceGetAttribute: CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR


def make_stamp(
    settings: BuildSettings, *, version: str, source: str, source_sha256: str, precision: str, profiles: Sequence[Profile]
) -> dict[str, Any]:
    """What :class:`bertrec.bundle.EngineRecord` keeps of a build; JSON through and through.

    version: of the compiler. source: the ONNX file's path in the bundle. compute_capabilities: without the dot; ``80+`` is
    8.0 and newer.
    """
    return {
        "runtime": settings.runtime.value,
        "version": version,
        "container": settings.container,
        "compute_capabilities": list(_capabilities(settings)),
        "source": source,
        "source_sha256": source_sha256,
        "precision": precision,
        "profiles": [{name: [list(shape) for shape in shapes] for name, shapes in one.shapes.items()} for one in profiles],
        "options": {
            "hardware_compatibility": settings.hardware_compatibility.value,
            "version_compatible": settings.version_compatible,
            "workspace_bytes": settings.workspace_bytes,
            "tf32": settings.tf32,
            "strongly_typed": True,
        },
    }


def check_stamp(
    record: EngineRecord,
    *,
    runtime: Runtime,
    version: str = "",
    container: str = "",
    compute_capability: str = "",
    source_sha256: str = "",
    bundle: Path | str = "BUNDLE",
) -> None:
    """Hold an engine against what is to load it; what is empty is not known, and not checked.

    version: of the runtime. container: its tag. compute_capability: of the GPU, without the dot. source_sha256: of the ONNX
    file that it must be compiled from. Raises InvalidInput for an engine of another runtime, InvalidBundle for one whose stamp
    is missing or says something else; both say the command that builds the right one.
    """
    again = f"Build it anew: {rebuild_command(record, runtime, bundle)}"
    if record.runtime != runtime.value:
        raise InvalidInput(f"the {record.model} engine {record.name} is for {record.runtime}, not for {runtime.value}. {again}")
    stamp = record.stamp
    if not {"version", "container", "compute_capabilities", "source_sha256", "options"} <= set(stamp):
        raise InvalidBundle(f"the {record.model} engine {record.name} has no whole stamp of how it was compiled. {again}")
    if version and not _version_fits(stamp, version):
        raise _mismatch(record, f"{runtime.value} {stamp['version']}", f"{runtime.value} {version}", again)
    if container and stamp["container"] and container != stamp["container"]:
        raise _mismatch(record, f"the container {stamp['container']}", f"the container {container}", again)
    if compute_capability and not _capability_fits(stamp["compute_capabilities"], compute_capability):
        built = ", ".join(stamp["compute_capabilities"])
        raise _mismatch(record, f"compute capability {built}", f"compute capability {compute_capability}", again)
    if source_sha256 and stamp["source_sha256"] != source_sha256:
        raise InvalidBundle(
            f"the {record.model} engine {record.name} was compiled from another {stamp.get('source', 'ONNX file')}: "
            f"sha256 {stamp['source_sha256'][:12]} instead of {source_sha256[:12]}. {again}"
        )


def rebuild_command(record: EngineRecord, runtime: Runtime, bundle: Path | str) -> str:
    """The command that compiles the record's source for ``runtime``."""
    source = Path(str(record.stamp.get("source", record.file))).stem or "plain"
    engine = source if record.model == "encoder" else "plain"  # the others are compiled along with any encoder
    return f"python -m export tensorrt --bundle {bundle} --output NEW_BUNDLE --engine {engine} --runtime {runtime.value}"


def container_tag() -> str:
    """The tag of NVIDIA's container that this runs in, such as 24.10; empty outside of one."""
    return next((os.environ[name] for name in CONTAINER_VARIABLES if os.environ.get(name)), "")


def gpu_capability() -> str:
    """The first GPU's compute capability without the dot, such as 86; empty where there is no GPU or no driver."""
    try:
        cuda = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return ""
    device, major, minor = ctypes.c_int(), ctypes.c_int(), ctypes.c_int()
    if cuda.cuInit(0) or cuda.cuDeviceGet(ctypes.byref(device), 0):
        return ""
    for number, attribute in ((major, _MAJOR), (minor, _MINOR)):
        if cuda.cuDeviceGetAttribute(ctypes.byref(number), attribute, device):
            return ""
    return f"{major.value}{minor.value}"


def _capabilities(settings: BuildSettings) -> tuple[str, ...]:
    if settings.runtime is Runtime.TENSORRT_RTX:
        return settings.target_sm or RTX_DEFAULT_CAPABILITIES
    if settings.hardware_compatibility is HardwareCompatibility.AMPERE_PLUS:
        return ("80+",)
    return (gpu_capability(),)


def _capability_fits(built: Sequence[str], given: str) -> bool:
    return any(int(given) >= int(one[:-1]) if one.endswith("+") else given == one for one in built)


def _version_fits(stamp: Any, given: str) -> bool:  # noqa: ANN401  # JSON
    """Engines load in the very version that built them; version-compatible ones in newer ones of the same major version."""
    if not stamp["options"]["version_compatible"]:
        return bool(stamp["version"] == given)
    built_for, runs = _numbers(stamp["version"]), _numbers(given)
    return built_for[0] == runs[0] and built_for <= runs


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdigit())


def _mismatch(record: EngineRecord, built: str, given: str, again: str) -> InvalidBundle:
    return InvalidBundle(f"the {record.model} engine {record.name} was compiled for {built}, and this is {given}. {again}")
