"""Every name of TensorRT that the compiler uses is one that its bindings have: 10.0, 10.16, 11.4, and TensorRT for RTX here.

The names of the bindings lie in tensorrt_names/*.txt, one ``class.member`` a line, written from the wheels by
``python -m tests.export.tensorrt_names.regenerate``.
"""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
import tensorrt_rtx

from export.tensorrt import compiler
from export.tensorrt.settings import HardwareCompatibility

VERSIONS = ("10.0", "10.16", "11.4")
LISTS = Path(__file__).parent / "tensorrt_names"
MODULE = "trt"
OBJECTS = {
    "builder": "Builder",
    "network": "INetworkDefinition",
    "parser": "OnnxParser",
    "config": "IBuilderConfig",
    "profile": "IOptimizationProfile",
    "cache": "ITimingCache",
    "error": "ParserError",
}
"""How the compiler's source calls TensorRT's objects → their class."""
PLAIN_VALUES = {"plan"}
"""What it takes from TensorRT and passes on without looking into it."""
RTX_ONLY = {"ComputeCapability", "IBuilderConfig.num_compute_capabilities", "IBuilderConfig.set_compute_capability"}
"""What the compiler uses for TensorRT for RTX alone."""


def source() -> ast.Module:
    return ast.parse(Path(compiler.__file__).read_text(encoding="utf-8"))


def dotted(node: ast.expr) -> list[str]:
    """a.b.c → [a, b, c]; empty for anything that does not begin with a name."""
    if isinstance(node, ast.Name):
        return [node.id]
    if isinstance(node, ast.Attribute) and (before := dotted(node.value)):
        return [*before, node.attr]
    return []


def used(tree: ast.Module) -> set[str]:
    """``class.member`` of every attribute and overridden method; a class alone where only it is named."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and (names := dotted(node)):
            root, rest = names[0], [name for name in names[1:] if not name.startswith("__")]
            if rest and root == MODULE:
                found.add(".".join(rest))
            elif rest and root in OBJECTS:
                found.add(f"{OBJECTS[root]}.{rest[0]}")
        elif isinstance(node, ast.ClassDef):
            for base in node.bases:
                if dotted(base)[:1] == [MODULE]:
                    methods = [one.name for one in node.body if isinstance(one, ast.FunctionDef)]
                    found |= {f"{dotted(base)[1]}.{method}" for method in methods if not method.startswith("_")}
    return {name for name in found if not any(other.startswith(f"{name}.") for other in found)}


def known(version: str) -> set[str]:
    """The members of a version of the bindings, and its classes."""
    members = set((LISTS / f"{version}.txt").read_text(encoding="utf-8").split())
    return members | {member.split(".")[0] for member in members}


def test_the_names_are_found_in_the_source() -> None:
    found = used(source())
    assert len(found) >= 30
    assert {
        "NetworkDefinitionCreationFlag.STRONGLY_TYPED",
        "Builder.build_serialized_network",
        "OnnxParser.parse_from_file",
        "IBuilderConfig.set_timing_cache",
        "IOptimizationProfile.set_shape",
        "ILogger.INTERNAL_ERROR",
        "IProgressMonitor.step_complete",
    } <= found


def test_no_object_of_tensorrt_goes_by_a_name_that_this_test_does_not_follow() -> None:
    for node in ast.walk(source()):
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call):
            root = dotted(node.value.func)[:1]
            if root and (root[0] in OBJECTS or root[0] == MODULE):
                names = {target.id for target in node.targets if isinstance(target, ast.Name)}
                assert names <= OBJECTS.keys() | PLAIN_VALUES, f"line {node.lineno}"


@pytest.mark.parametrize("version", VERSIONS)
def test_tensorrt_has_every_name_that_is_used(version: str) -> None:
    assert used(source()) - RTX_ONLY - known(version) == set()


def test_the_lists_would_tell() -> None:
    """What TensorRT 11 took away, and what only newer ones have."""
    removed = {"BuilderFlag.FP16", "BuilderFlag.INT8", "IBuilderConfig.int8_calibrator"}
    assert removed <= known("10.0")
    assert removed <= known("10.16")
    assert not removed & known("11.4")
    assert "BuilderFlag.STRICT_NANS" in known("10.16") - known("10.0")
    tree = ast.parse("config.set_flag(trt.BuilderFlag.FP16)\nconfig.int8_calibrator = None")
    assert used(tree) - known("11.4") == {"BuilderFlag.FP16", "IBuilderConfig.int8_calibrator"}


def test_tensorrt_for_rtx_has_every_name_that_is_used() -> None:
    def there(name: str) -> bool:
        first, _, member = name.partition(".")
        return hasattr(tensorrt_rtx, first) and (not member or hasattr(getattr(tensorrt_rtx, first), member))

    assert [name for name in sorted(used(source())) if not there(name)] == []
    assert not there("BuilderFlag.FP16")


def test_hardware_compatibility_levels_are_tensorrt_s_own() -> None:
    levels = {f"HardwareCompatibilityLevel.{level.name}" for level in HardwareCompatibility}
    assert levels <= known("10.16")
    assert levels <= known("11.4")
    assert levels - known("10.0") == {"HardwareCompatibilityLevel.SAME_COMPUTE_CAPABILITY"}
