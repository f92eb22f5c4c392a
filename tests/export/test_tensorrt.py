"""Compiled engines: really built, ahead of time and with no GPU, by TensorRT for RTX; stamped; refused where they do not fit.

What TensorRT itself would do cannot be run without a GPU: that the compiler uses only names that its versions have is checked in
test_tensorrt_names.py.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import logging
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import tensorrt_rtx as trt
from onnx import TensorProto, helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

from bertrec.bundle import Bundle, EngineRecord, Runtime, seal
from bertrec.errors import InvalidBundle, InvalidInput, MissingDependency
from bertrec.matching import pair_batches
from bertrec.tensors import ENCODER, RANKER
from bertrec.text import Tokens
from export.encoder import export_plain
from export.ranker import export_ranker
from export.tensorrt import compiler, graphs
from export.tensorrt.bundles import compile_bundle
from export.tensorrt.compiler import build_engine
from export.tensorrt.graphs import check_graph
from export.tensorrt.settings import (
    BuildSettings,
    encoder_profiles,
    matcher_profiles,
    ranker_profiles,
)
from export.tensorrt.stamps import gpu_capability
from tests import tiny
from train.encoder import Encoder

RTX = BuildSettings(Runtime.TENSORRT_RTX, target_sm=("86",))
RTX_MAGIC = b"vtrt"
"""How every file of TensorRT for RTX 1.x begins."""


@pytest.fixture(scope="module")
def bundle(tiny_bundle: Path, tiny_backbone: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The tiny bundle with the engine ``plain``, of standard operators."""
    folder = shutil.copytree(tiny_bundle, tmp_path_factory.mktemp("plain") / "bundle")
    export_plain(Encoder.load(tiny_backbone, attention="eager"), folder / "encoder/plain.onnx")
    manifest = Bundle.open(tiny_bundle).manifest
    plain = EngineRecord("encoder", "plain", "encoder/plain.onnx", "fp32", batch_invariant=True)
    seal(folder, dataclasses.replace(manifest, engines=(*manifest.engines, plain)))
    return Bundle.open(folder)


@pytest.fixture(scope="module")
def compiled(bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return compile_bundle(bundle, tmp_path_factory.mktemp("compiled") / "rtx", engines=["plain"], settings=RTX)


@pytest.fixture
def plain(bundle: Bundle) -> Path:
    return bundle.engine_path("encoder", "plain")


def test_a_bundle_gets_the_encoder_and_the_ranker_compiled_beside_all_that_it_had(bundle: Bundle, compiled: Bundle) -> None:
    for model, name in (("encoder", "plain.rtx"), ("ranker", "fp32.rtx")):
        record = compiled.engine(model, name)
        content = (compiled.folder / record.file).read_bytes()
        assert content.startswith(RTX_MAGIC)
        assert record.size_bytes == len(content) > (bundle.folder / record.file).with_suffix(".onnx").stat().st_size
        assert (record.runtime, record.verdict, record.quality) == ("tensorrt_rtx", "unmeasured", {})
        assert f"compiled by tensorrt_rtx {trt.__version__}; not measured, since Triton does not load it" in record.why
    assert compiled.manifest.engines[:-2] == bundle.manifest.engines
    assert {name: compiled.manifest.files[name] for name in bundle.manifest.files} == bundle.manifest.files
    assert compiled.fingerprint != bundle.fingerprint


def test_a_matcher_and_heads_are_compiled_where_a_bundle_has_them(tiny_backbone: Path, tmp_path: Path) -> None:
    folder = tiny.write_bundle(tmp_path / "whole", tiny_backbone, matcher=True, heads=True)
    export_plain(Encoder.load(tiny_backbone, attention="eager"), folder / "encoder/plain.onnx")
    manifest = Bundle.open(folder).manifest
    plain = EngineRecord("encoder", "plain", "encoder/plain.onnx", "fp32", batch_invariant=True)
    seal(folder, dataclasses.replace(manifest, engines=(*manifest.engines, plain)))
    compiled = compile_bundle(Bundle.open(folder), tmp_path / "rtx", engines=["plain"], settings=RTX)
    for model, name in (("matcher", "plain.rtx"), ("heads", "fp32.rtx")):
        record = compiled.engine(model, name)
        assert (compiled.folder / record.file).read_bytes().startswith(RTX_MAGIC)
        assert (record.runtime, record.verdict) == ("tensorrt_rtx", "unmeasured")
    assert compiled.engine("heads", "fp32.rtx").stamp["profiles"] == [{"interest_vector": [[1, 32], [8, 32], [64, 32]]}]
    # 64 tokens of the text and 8 of the item, which are padded to the next bucket
    lengths = [(1, 16), (17, 32), (33, 64), (65, 128)]
    names = ("input_ids", "attention_mask", "token_type_ids")
    wanted = [dict.fromkeys(names, [[1, least], [8, most], [64, most]]) for least, most in lengths]
    assert compiled.engine("matcher", "plain.rtx").stamp["profiles"] == wanted
    assert (compiled.matcher_engine, compiled.heads_engine) == ("fp32", "fp32")


@pytest.mark.parametrize(("max_tokens", "item_tokens"), [(64, 24), (64, 8), (128, 24), (512, 24), (40, 24)])
def test_a_plan_of_the_matcher_takes_every_pair_as_serving_pads_it(max_tokens: int, item_tokens: int) -> None:
    profiles = [one.shapes["input_ids"] for one in matcher_profiles(max_tokens, item_tokens)]
    for text, item in itertools.product(range(2, max_tokens + 1), (0, 2, item_tokens)):
        ((_, inputs),) = pair_batches([Tokens([5] * text, False)], [[6] * item])
        tokens = inputs["input_ids"].shape[1]
        assert any(least[1] <= tokens <= most[1] for least, _, most in profiles), (text, item, tokens)


def test_a_stamp_says_what_from_what_with_and_what_for(bundle: Bundle, compiled: Bundle) -> None:
    stamp = compiled.engine("encoder", "plain.rtx").stamp
    assert stamp["runtime"] == "tensorrt_rtx"
    assert stamp["version"] == trt.__version__
    assert stamp["compute_capabilities"] == ["86"]
    assert stamp["source"] == "encoder/plain.onnx"
    assert stamp["source_sha256"] == bundle.manifest.files["encoder/plain.onnx"].sha256
    assert stamp["precision"] == "fp32"
    assert stamp["options"]["strongly_typed"] is True
    assert stamp["profiles"] == [
        dict.fromkeys(("input_ids", "attention_mask"), [[1, 1], [8, 16], [64, 16]]),
        dict.fromkeys(("input_ids", "attention_mask"), [[1, 17], [8, 32], [64, 32]]),
        dict.fromkeys(("input_ids", "attention_mask"), [[1, 33], [8, 64], [64, 64]]),
    ]
    items = len(compiled.catalogue())
    width = sum(compiled.manifest.signals.values())
    assert compiled.engine("ranker", "fp32.rtx").stamp["profiles"] == [
        {"query_vector": [[1, width], [8, width], [64, width]], "boost": [[1, items], [8, items], [64, items]]}
    ]


def test_a_flipped_byte_in_a_compiled_engine_is_refused(compiled: Bundle, tmp_path: Path) -> None:
    folder = shutil.copytree(compiled.folder, tmp_path / "copy")
    content = bytearray((folder / "encoder/plain.rtx").read_bytes())
    content[len(content) // 2] ^= 1
    (folder / "encoder/plain.rtx").write_bytes(content)
    with pytest.raises(InvalidBundle, match=r"encoder/plain\.rtx was altered"):
        Bundle.open(folder)


def test_a_stamp_that_was_changed_by_hand_is_refused(compiled: Bundle, tmp_path: Path) -> None:
    folder = shutil.copytree(compiled.folder, tmp_path / "copy")
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["engines"][-1]["stamp"]["version"] = "1.0.0"
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(InvalidBundle, match="was altered after the bundle was sealed"):
        Bundle.open(folder)


def test_two_builds_give_the_same_bytes(plain: Path, compiled: Bundle, tmp_path: Path) -> None:
    stamp = build_engine(plain, tmp_path / "again.rtx", spec=ENCODER, profiles=encoder_profiles(64), settings=RTX)
    assert (tmp_path / "again.rtx").read_bytes() == compiled.engine_path("encoder", "plain.rtx").read_bytes()
    assert {**stamp, "source": "encoder/plain.onnx"} == compiled.engine("encoder", "plain.rtx").stamp


def test_target_gpus_change_the_engine_and_the_stamp(plain: Path, compiled: Bundle, tmp_path: Path) -> None:
    settings = BuildSettings(Runtime.TENSORRT_RTX, target_sm=("89", "120"))
    stamp = build_engine(plain, tmp_path / "two.rtx", spec=ENCODER, profiles=encoder_profiles(16), settings=settings)
    assert stamp["compute_capabilities"] == ["89", "120"]
    assert (tmp_path / "two.rtx").read_bytes() != compiled.engine_path("encoder", "plain.rtx").read_bytes()


class Calibration(CalibrationDataReader):  # type: ignore[misc]
    """Four batches of random tokens."""

    def __init__(self) -> None:
        random = np.random.default_rng(0)
        mask = np.ones((4, 16), np.int64)
        self._batches = iter([{"input_ids": random.integers(5, 60, (4, 16)), "attention_mask": mask} for _ in range(4)])

    def get_next(self) -> dict[str, Any] | None:
        return next(self._batches, None)


def test_an_int8_graph_with_quantise_and_dequantise_nodes_is_compiled(plain: Path, tmp_path: Path) -> None:
    quantised = tmp_path / "int8.onnx"
    quantize_static(
        str(plain),
        str(quantised),
        Calibration(),
        quant_format=QuantFormat.QDQ,
        op_types_to_quantize=["MatMul"],
        activation_type=QuantType.QInt8,
        weight_type=QuantType.QInt8,
        extra_options={"ActivationSymmetric": True, "WeightSymmetric": True},
    )
    assert sum(node.op_type == "QuantizeLinear" for node in onnx.load(str(quantised)).graph.node) >= 12
    engine = tmp_path / "int8.rtx"
    stamp = build_engine(quantised, engine, spec=ENCODER, profiles=encoder_profiles(16), settings=RTX, precision="int8")
    assert engine.read_bytes().startswith(RTX_MAGIC)
    assert stamp["precision"] == "int8"
    assert stamp["source_sha256"] == hashlib.sha256(quantised.read_bytes()).hexdigest()


def test_a_ranker_of_thousands_of_items_is_compiled(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    sides = {"text": random.normal(size=(5_000, 32)).astype(np.float32), "prior": np.ones((5_000, 1), np.float32)}
    export_ranker(sides, tmp_path / "ranker.onnx")
    build_engine(
        tmp_path / "ranker.onnx", tmp_path / "ranker.rtx", spec=RANKER, profiles=ranker_profiles(33, 5_000), settings=RTX
    )
    assert (tmp_path / "ranker.rtx").stat().st_size > 5_000 * 33 * 4


def top_k_model(path: Path, k: int, *, opset: int = 17, domain: str = "") -> Path:
    """The ranker's tensors around one TopK."""
    nodes = [
        helper.make_node("TopK", ["boost", "k"], ["score", "item_index"], axis=-1, domain=domain),
        helper.make_node("Unsqueeze", ["score", "axis"], ["terms"]),
    ]
    types = {"INT64": TensorProto.INT64, "FP32": TensorProto.FLOAT}
    inputs, outputs = (
        [helper.make_tensor_value_info(one.name, types[one.dtype], list(one.shape)) for one in tensors]
        for tensors in (RANKER.inputs, RANKER.outputs)
    )
    constants = [helper.make_tensor(name, TensorProto.INT64, [1], [value]) for name, value in (("k", k), ("axis", -1))]
    graph = helper.make_graph(nodes, "ranker", inputs, outputs, constants)
    imports = [helper.make_opsetid("", opset), *([helper.make_opsetid(domain, 1)] if domain else [])]
    onnx.save_model(helper.make_model(graph, opset_imports=imports, ir_version=8), str(path))
    return path


def test_graphs_that_tensorrt_cannot_compile_are_refused_before_it_is_tried(bundle: Bundle, tmp_path: Path) -> None:
    model = tmp_path / "model.onnx"
    check_graph(top_k_model(model, 3_840), RANKER)
    with pytest.raises(InvalidInput, match="has K = 3,841; TensorRT accepts 1 to 3,840"):
        check_graph(top_k_model(model, 3_841), RANKER)
    with pytest.raises(InvalidInput, match="has opset 12; accepted is 13 or newer"):
        check_graph(top_k_model(model, 10, opset=12), RANKER)
    with pytest.raises(InvalidInput, match=r"operator TopK of com\.example, which TensorRT does not know.*--engines fp32,plain"):
        check_graph(top_k_model(model, 10, domain="com.example"), RANKER)
    with pytest.raises(
        InvalidInput, match=r"has the inputs query_vector \(FP32\), boost \(FP32\); accepted for encoder are input_ids"
    ):
        check_graph(top_k_model(model, 10), ENCODER)
    with pytest.raises(InvalidInput, match=r"fp32\.onnx has the operator \w+ of com\.microsoft"):
        check_graph(bundle.engine_path("encoder", "fp32"), ENCODER)
    model.write_bytes(b"no model")
    with pytest.raises(InvalidInput, match=r"model\.onnx cannot be read as an ONNX file"):
        check_graph(model, ENCODER)


def test_the_limit_of_k_is_the_compiler_s_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Were the check not there, the compiler would give up at the very same number, and that is passed on."""
    monkeypatch.setattr(graphs, "MAX_TOP_K", 1_000_000)
    profiles = ranker_profiles(1, 5_000)
    build_engine(top_k_model(tmp_path / "good.onnx", 3_840), tmp_path / "good.rtx", spec=RANKER, profiles=profiles, settings=RTX)
    bad = top_k_model(tmp_path / "bad.onnx", 3_841)
    with pytest.raises(InvalidInput, match=r"cannot compile .*bad\.onnx: .*K exceeds the maximum value allowed \(3840\)"):
        build_engine(bad, tmp_path / "bad.rtx", spec=RANKER, profiles=profiles, settings=RTX)
    assert not (tmp_path / "bad.rtx").exists()


def test_what_cannot_be_compiled_leaves_nothing(bundle: Bundle, compiled: Bundle, tmp_path: Path) -> None:
    def refused(message: str, *, engines: list[str], of: Bundle = bundle) -> None:
        with pytest.raises(InvalidInput, match=message):
            compile_bundle(of, tmp_path / "out", engines=engines, settings=RTX)
        assert list(tmp_path.iterdir()) == []

    refused("has no encoder engine 'fp8'; it has fp32, int8, plain", engines=["fp8"])
    refused("no engine is named", engines=[])
    refused(r"operator \w+ of com\.microsoft", engines=["plain", "fp32"])
    refused(r"has plain\.rtx already", engines=["plain"], of=compiled)
    refused(r"plain\.rtx is compiled for tensorrt_rtx already", engines=["plain.rtx"], of=compiled)
    with pytest.raises(InvalidInput, match=r"exists\. A bundle is never changed"):
        compile_bundle(bundle, tmp_path, engines=["plain"], settings=RTX)


def test_ctrl_c_ends_the_build_and_leaves_nothing(bundle: Bundle, tmp_path: Path) -> None:
    class Interrupting(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            signal.raise_signal(signal.SIGINT)

    handler = Interrupting()
    before, outside = compiler.log.level, signal.signal(signal.SIGINT, signal.default_int_handler)
    compiler.log.addHandler(handler)
    compiler.log.setLevel(logging.DEBUG)  # the compiler's own messages, so that the signal comes while it works
    try:
        with pytest.raises(KeyboardInterrupt):
            compile_bundle(bundle, tmp_path / "out", engines=["plain"], settings=RTX)
    finally:
        compiler.log.removeHandler(handler)
        compiler.log.setLevel(before)
        after = signal.signal(signal.SIGINT, outside)  # a job in the background ignores it
    assert list(tmp_path.iterdir()) == []
    assert after is signal.default_int_handler


@pytest.mark.filterwarnings("ignore:.*no-ops in TensorRT-RTX")
def test_the_timing_cache_is_kept_and_a_damaged_one_is_written_anew(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """On the API of TensorRT for RTX, which takes and gives a cache; only TensorRT fills it."""
    builder = trt.Builder(compiler._logger(trt))
    path = tmp_path / "caches" / "timing"
    config = builder.create_builder_config()
    compiler._read_timing_cache(config, path)
    compiler._write_timing_cache(config, path)
    kept = path.read_bytes()
    assert len(kept) > 100
    path.write_bytes(b"damaged")
    config = builder.create_builder_config()
    compiler._read_timing_cache(config, path)
    assert "timing cache" in caplog.text
    compiler._write_timing_cache(config, path)
    assert path.read_bytes() == kept
    assert list(path.parent.iterdir()) == [path]


def test_tensorrt_that_is_not_installed_is_said_with_the_command(
    plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(MissingDependency, match=r"tensorrt is not installed; it comes with: pip install 'bertrec\[tensorrt\]'"):
        build_engine(plain, tmp_path / "x", spec=ENCODER, profiles=encoder_profiles(16), settings=BuildSettings(Runtime.TENSORRT))
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", None)
    with pytest.raises(MissingDependency, match=r"pip install 'bertrec\[tensorrt-rtx\]'"):
        build_engine(plain, tmp_path / "x", spec=ENCODER, profiles=encoder_profiles(16), settings=RTX)


@pytest.mark.skipif(bool(gpu_capability()), reason="there is a GPU here")
def test_tensorrt_without_a_gpu_is_refused_before_it_is_asked(
    plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", trt)  # any module: none of it may be used
    with pytest.raises(InvalidInput, match="there is none here. Run it on the target, in NVIDIA's container"):
        build_engine(plain, tmp_path / "x", spec=ENCODER, profiles=encoder_profiles(16), settings=BuildSettings(Runtime.TENSORRT))


WITHOUT_TORCH = """
import importlib.abc, sys
class Blocker(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name.split(".")[0] in ("torch", "transformers", "sklearn", "scipy", "pandas", "pyarrow", "onnxruntime"):
            raise ModuleNotFoundError(f"{name} is blocked", name=name)
sys.meta_path.insert(0, Blocker())
from export.tensorrt.__main__ import main
sys.exit(main(sys.argv[1:]))
"""


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own, as in NVIDIA's container: without torch and ONNX Runtime."""
    root = Path(__file__).parents[2]
    return subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH, *arguments], cwd=root, capture_output=True, text=True, check=False, timeout=120
    )


def test_the_command_compiles_where_there_is_no_torch(bundle: Bundle, tmp_path: Path) -> None:
    output = tmp_path / "out"
    done = command(
        *("--bundle", str(bundle.folder), "--output", str(output), "--engine", "plain", "--runtime", "tensorrt_rtx"),
        *("--target-sm", "86", "--container", "24.10"),
    )
    assert done.returncode == 0, done.stderr
    assert "encoder/plain.rtx: " in done.stderr
    stamp = Bundle.open(output).engine("ranker", "fp32.rtx").stamp
    assert (stamp["container"], stamp["compute_capabilities"], stamp["options"]["tf32"]) == ("24.10", ["86"], False)


def test_the_command_says_in_one_line_what_is_wrong(bundle: Bundle, tmp_path: Path) -> None:
    done = command(
        *("--bundle", str(bundle.folder), "--output", str(tmp_path / "out"), "--engine", "plain"),
        *("--runtime", "tensorrt_rtx", "--target-sm", "87"),
    )
    assert (done.returncode, done.stderr) == (
        2,
        "error: target_sm names '87'; accepted are 75, 80, 86, 89, 120, 121 (86 is 8.6)\n",
    )
    assert list(tmp_path.iterdir()) == []
