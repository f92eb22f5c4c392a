"""Encoders in fewer bits: what they keep of the answers, in any batch, and in which operators."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper, numpy_helper

from bertrec.bundle import Runtime
from bertrec.engine import OnnxEngine
from bertrec.errors import InvalidInput
from bertrec.session_options import SessionOptions
from bertrec.tensors import ENCODER
from export import quantise as quantising
from export.calibration import PERCENTILE, Calibration, Tensors, calibrate, observe
from export.encoder import export_plain, fuse
from export.graphs import Product, ProductKind, count_operators
from export.precision import TablePrecision, shrink_embeddings, to_half
from export.quantise import dynamic_recipe, has_vnni, quantise, quantise_columns, quantise_dynamic, quantise_static, static_recipe
from export.sensitivity import Sensitivity, choose_skipped, layer_sensitivity
from export.smoothing import smooth
from train.encoder import Encoder

TOKENS = 16
ACTIVATION = "/bert/encoder/layer.0/intermediate/intermediate_act_fn/Mul_1_output_0"
"""What GELU gives in the first layer: the input of ``0.output``."""


def texts(seed: int, count: int = 32) -> dict[str, NDArray[np.int64]]:
    random = np.random.default_rng(seed)
    mask = (np.arange(TOKENS)[None] < random.integers(3, TOKENS + 1, (count, 1))).astype(np.int64)  # (batch, tokens)
    return {"input_ids": random.integers(5, 48, (count, TOKENS)) * mask, "attention_mask": mask}


TRAINING: list[Tensors] = [texts(seed) for seed in range(4)]
HELD_OUT = texts(99)


@pytest.fixture(scope="module")
def plain(tiny_backbone: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny encoder, but like a trained one: its layers do more than pass on, and one GELU of the first gives about 60."""
    encoder = Encoder.load(tiny_backbone, attention="eager")
    with torch.no_grad():
        for parameter in encoder.bert.encoder.parameters():
            parameter.mul_(10.0 if parameter.dim() == 2 else 1.0)
        encoder.bert.encoder.layer[0].intermediate.dense.bias[0] = 60.0
        encoder.bert.encoder.layer[0].output.dense.weight[:, 0] /= 60
    path = tmp_path_factory.mktemp("quantise") / "plain.onnx"
    export_plain(encoder, path)
    return path


@pytest.fixture(scope="module")
def fused(plain: Path) -> Path:
    fuse(plain, plain.with_name("fused.onnx"), heads=4, hidden=32, layers=2)
    return plain.with_name("fused.onnx")


def vectors(path: Path, batch: Tensors = HELD_OUT) -> NDArray[Any]:
    return OnnxEngine(path, ENCODER, SessionOptions(1)).run(batch)["interest_vector"]


def rounded(path: Path) -> NDArray[Any]:
    """The vectors with numbers rounded as the file says and products in floats, as TensorRT sums them.

    ONNX Runtime's integer kernels saturate on CPUs without VNNI, where the weights have 8 bits as TensorRT's do.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    (found,) = session.run(["interest_vector"], dict(HELD_OUT))
    return np.asarray(found)


def loss(path: Path, reference: Path, read: Callable[[Path], NDArray[Any]] = vectors) -> float:
    """1 − mean cosine."""
    mine, theirs = read(path).astype(np.float64), vectors(reference).astype(np.float64)
    lengths = np.linalg.norm(mine, axis=1) * np.linalg.norm(theirs, axis=1)
    return float(1 - ((mine * theirs).sum(axis=1) / lengths).mean())


def batch_difference(path: Path) -> float:
    alone = [vectors(path, {name: values[row : row + 1] for name, values in HELD_OUT.items()}) for row in range(32)]
    return float(np.abs(np.concatenate(alone) - vectors(path)).max())


def constants(path: Path) -> dict[str, NDArray[Any]]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in onnx.load(str(path)).graph.initializer}


def test_dynamic_int8_has_the_operators_and_depends_on_the_batch(fused: Path, tmp_path: Path) -> None:
    quantise_dynamic(fused, tmp_path / "int8.onnx", exclude=["0.output"])
    found = count_operators(tmp_path / "int8.onnx")
    assert (found["QAttention"], found["DynamicQuantizeMatMul"], found["MatMul"]) == (2, 5, 1)
    assert 0 < loss(tmp_path / "int8.onnx", fused) < 1e-3
    assert batch_difference(tmp_path / "int8.onnx") > 1e-4


def test_static_int8_answers_alike_in_any_batch(fused: Path, tmp_path: Path) -> None:
    quantise_static(fused, tmp_path / "int8.onnx", batches=TRAINING)
    found = count_operators(tmp_path / "int8.onnx")
    assert (found["QAttention"], found["MatMul"], found["QuantizeLinear"]) == (2, 6, 8)
    assert found["DequantizeLinear"] == 12  # an activation and a matrix for each MatMul
    assert 0 < loss(tmp_path / "int8.onnx", fused) < 1e-3
    assert batch_difference(tmp_path / "int8.onnx") <= 1e-6


def test_onnxruntime_runs_static_int8_in_integer_kernels(fused: Path, tmp_path: Path) -> None:
    quantise_static(fused, tmp_path / "int8.onnx", batches=TRAINING)
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "loaded.onnx")
    options.log_severity_level = 3
    onnxruntime.InferenceSession(str(tmp_path / "int8.onnx"), options, providers=["CPUExecutionProvider"])
    loaded = count_operators(tmp_path / "loaded.onnx")
    assert (loaded["MatMulIntegerToFloat"], loaded["QAttention"]) == (6, 2)
    assert not {"MatMul", "DequantizeLinear"} & set(loaded)


def test_tensorrt_gets_symmetric_int8_in_standard_operators(plain: Path, tmp_path: Path) -> None:
    quantise_static(plain, tmp_path / "int8.onnx", batches=TRAINING, runtime=Runtime.TENSORRT)
    model = onnx.load(str(tmp_path / "int8.onnx"))
    onnx.checker.check_model(model)
    assert {node.domain for node in model.graph.node} == {""}
    found = count_operators(tmp_path / "int8.onnx")
    assert (found["QuantizeLinear"], found["DequantizeLinear"]) == (8, 20)  # query, key and value read one activation
    values = constants(tmp_path / "int8.onnx")
    zeros = [value for name, value in values.items() if name.endswith("_zero_point")]
    assert len(zeros) == 20
    assert all(zero.dtype == np.int8 and not zero.any() for zero in zeros)
    axes = [node.attribute[0].i for node in model.graph.node if node.op_type == "DequantizeLinear" and node.attribute]
    assert axes == [1] * 12
    assert 0 < loss(tmp_path / "int8.onnx", plain) < 5e-3
    assert batch_difference(tmp_path / "int8.onnx") <= 1e-6


def test_tensorrt_rtx_compiles_what_was_quantised_for_it(plain: Path, tmp_path: Path) -> None:
    tensorrt = pytest.importorskip("tensorrt_rtx")
    quantise_static(plain, tmp_path / "int8.onnx", batches=TRAINING, runtime=Runtime.TENSORRT_RTX)
    to_half(plain, tmp_path / "fp16.onnx")
    logger = tensorrt.Logger(tensorrt.Logger.ERROR)
    for name in ("int8", "fp16"):
        builder = tensorrt.Builder(logger)
        network = builder.create_network(0)
        parser = tensorrt.OnnxParser(network, logger)
        assert parser.parse((tmp_path / f"{name}.onnx").read_bytes()), [str(parser.get_error(0))]
        config, profile = builder.create_builder_config(), builder.create_optimization_profile()
        for tensor in ENCODER.inputs:
            profile.set_shape(tensor.name, (1, 1), (8, 16), (32, 64))
        config.add_optimization_profile(profile)
        assert builder.build_serialized_network(network, config) is not None


def test_smoothing_changes_no_answer_and_halves_the_loss(plain: Path, fused: Path, tmp_path: Path) -> None:
    for source, runtime in ((fused, Runtime.ORT), (plain, Runtime.TENSORRT)):
        smooth(source, tmp_path / "smooth.onnx", batches=TRAINING)
        np.testing.assert_allclose(vectors(tmp_path / "smooth.onnx"), vectors(source), atol=2e-6)
        quantise_static(source, tmp_path / "before.onnx", batches=TRAINING, runtime=runtime, smoothing=0.0)
        quantise_static(source, tmp_path / "after.onnx", batches=TRAINING, runtime=runtime)
        read = rounded if runtime is Runtime.TENSORRT else vectors
        assert loss(tmp_path / "after.onnx", source, read) < 0.5 * loss(tmp_path / "before.onnx", source, read)
    with pytest.raises(InvalidInput, match=r"smoothing strength is 1\.5; accepted is a number from 0 to 1"):
        smooth(fused, tmp_path / "none.onnx", batches=TRAINING, strength=1.5)


@pytest.mark.parametrize("method", list(Calibration))
def test_ranges_are_those_of_the_texts_and_not_of_the_padding(fused: Path, method: Calibration) -> None:
    model = onnx.load(str(fused))
    seen = np.concatenate([values[ACTIVATION] for values in observe(model, [ACTIVATION], TRAINING)])
    assert seen.shape == (sum(int(batch["attention_mask"].sum()) for batch in TRAINING), 64)
    found = calibrate(model, [ACTIVATION], TRAINING, method=method)[ACTIVATION]
    if method is Calibration.MIN_MAX:
        assert (found.low, found.high) == (seen.min(), seen.max())
    else:
        assert seen.min() <= found.low < 0 < found.high <= seen.max()
        clipped = float((np.abs(seen) > found.high * (1 + 1e-6)).mean())
        assert clipped <= (1 - PERCENTILE / 100 if method is Calibration.PERCENTILE else 0.05)
    padded = [{**batch, "input_ids": np.where(batch["attention_mask"] == 1, batch["input_ids"], 47)} for batch in TRAINING]
    again = calibrate(model, [ACTIVATION], padded, method=method)[ACTIVATION]
    np.testing.assert_allclose((again.low, again.high), (found.low, found.high), rtol=1e-5)


def test_entropy_clips_a_lone_outlier() -> None:
    """In a graph of one Identity: 100,000 values of a bell curve and one far away."""
    values = np.random.default_rng(0).normal(size=100_000).astype(np.float32)
    values[7] = 100.0
    shape = [1, values.size, 1]
    graph = helper.make_graph(
        [helper.make_node("Identity", ["input"], ["seen"]), helper.make_node("Identity", ["attention_mask"], ["mask"])],
        "one",
        [
            helper.make_tensor_value_info("input", TensorProto.FLOAT, shape),
            helper.make_tensor_value_info("attention_mask", TensorProto.INT64, shape[:2]),
        ],
        [helper.make_tensor_value_info("mask", TensorProto.INT64, shape[:2])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    batch: Tensors = {"input": values.reshape(shape), "attention_mask": np.ones(shape[:2], np.int64)}
    ranges = {method: _range_of(model, batch, method) for method in Calibration}
    assert ranges[Calibration.MIN_MAX] == 100.0
    assert ranges[Calibration.ENTROPY] < 20.0


def _range_of(model: ModelProto, batch: Tensors, method: Calibration) -> float:
    return calibrate(model, ["seen"], [batch], method=method)["seen"].high


def test_sensitivity_finds_the_outlier_and_repeats(fused: Path) -> None:
    recipe = static_recipe(fused, TRAINING)
    measured = layer_sensitivity(fused, TRAINING, recipe=recipe)
    assert len(measured) == 8
    assert max(measured, key=lambda one: one.loss).product.name == "0.output"
    assert all(one.loss > 0 for one in measured)
    assert layer_sensitivity(fused, TRAINING, recipe=recipe) == measured
    assert choose_skipped(measured, budget=sum(one.loss for one in measured) / 2) == ("0.output",)


def test_what_is_skipped_is_what_loses_most_for_its_size() -> None:
    def product(layer: int, weights: int, lost: float) -> Sensitivity:
        return Sensitivity(Product(layer, ProductKind.OUTPUT, (f"node {layer}",), weights), 1 - lost)

    measured = [product(0, 100, 0.004), product(1, 400, 0.006), product(2, 100, 0.001), product(3, 100, 0.003)]
    assert choose_skipped(measured, budget=0.02) == ()
    assert choose_skipped(measured, budget=0.011) == ("0.output",)
    assert choose_skipped(measured, budget=0.008) == ("0.output", "3.output")
    assert choose_skipped(measured, budget=0.0) == ("0.output", "1.output", "2.output", "3.output")
    with pytest.raises(InvalidInput, match="loss budget is -1"):
        choose_skipped(measured, budget=-1)


def test_half_precision_keeps_norms_softmax_and_the_output_in_float32(plain: Path, tmp_path: Path) -> None:
    to_half(plain, tmp_path / "fp16.onnx")
    model = onnx.load(str(tmp_path / "fp16.onnx"))
    onnx.checker.check_model(model)
    types = [tensor.type.tensor_type.elem_type for tensor in (*model.graph.input, *model.graph.output)]
    assert types == [TensorProto.INT64, TensorProto.INT64, TensorProto.FLOAT]
    values = constants(tmp_path / "fp16.onnx")
    matrices = [values[node.input[1]] for node in model.graph.node if node.op_type == "MatMul" and node.input[1] in values]
    assert [matrix.dtype for matrix in matrices] == [np.dtype(np.float16)] * 12
    widened = {node.output[0] for node in model.graph.node if node.op_type == "Cast" and node.attribute[0].i == TensorProto.FLOAT}
    kept = [node for node in model.graph.node if node.op_type in ("LayerNormalization", "Softmax")]
    assert len(kept) == 7
    assert all(node.input[0] in widened for node in kept)
    lengths = np.linalg.norm(vectors(tmp_path / "fp16.onnx").astype(np.float64), axis=1)
    np.testing.assert_allclose(lengths, 1.0, atol=1e-6)  # as no vector is that was rounded to half precision
    assert 0 < loss(tmp_path / "fp16.onnx", plain) < 1e-4


@pytest.mark.parametrize(
    ("precision", "bytes_per_number", "most"), [(TablePrecision.INT8, 1, 1e-3), (TablePrecision.FP16, 2, 1e-6)]
)
def test_embedding_tables_shrink(
    fused: Path, tmp_path: Path, precision: TablePrecision, bytes_per_number: int, most: float
) -> None:
    shrink_embeddings(fused, tmp_path / "small.onnx", precision=precision)
    tables = {
        name: value
        for name, value in constants(fused).items()
        if name.endswith(("word_embeddings.weight", "position_embeddings.weight"))
    }
    saved = sum(table.size * (4 - bytes_per_number) for table in tables.values())
    rows = sum(len(table) for table in tables.values())
    spent = fused.stat().st_size - (tmp_path / "small.onnx").stat().st_size
    assert spent == pytest.approx(saved - (4 * rows if precision is TablePrecision.INT8 else 0), abs=1_500)  # names of nodes
    assert 0 < loss(tmp_path / "small.onnx", fused) < most
    assert batch_difference(tmp_path / "small.onnx") <= 1e-6


def test_int8_matrices_are_the_columns_to_half_a_step() -> None:
    matrix = np.random.default_rng(0).normal(size=(7, 5)).astype(np.float32)
    matrix[:, 2] = 0
    for largest in (127, 64):
        values, scales = quantise_columns(matrix, largest=largest)
        assert np.abs(values[:, [0, 1, 3, 4]]).max(axis=0).tolist() == [largest] * 4
        assert (np.abs(values * scales - matrix) <= scales * 0.501).all()


def test_without_vnni_the_weights_have_seven_bits(fused: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    facts = tmp_path / "cpuinfo"
    monkeypatch.setattr(quantising, "CPU_FACTS", facts)
    for flags, found in (("fma avx2", False), ("avx2 avx512_vnni", True), ("avx2 avx_vnni", True), ("avx_vnni_int8", False)):
        facts.write_text(f"model name\t: avx_vnni\nflags\t\t: {flags}\n")
        assert has_vnni() is found
        quantise_dynamic(fused, tmp_path / "int8.onnx")
        weights = [value for name, value in constants(tmp_path / "int8.onnx").items() if name.endswith("_quantised")]
        assert len(weights) == 8
        assert {int(np.abs(weight).max()) for weight in weights} == {127 if found else 64}
    facts.unlink()
    assert not has_vnni()
    assert dynamic_recipe(reduce_range=False).reduce_range is False


def test_the_same_twice_gives_the_same_bytes(plain: Path, fused: Path, tmp_path: Path) -> None:
    makers: list[Callable[[Path], None]] = [
        lambda path: quantise_dynamic(fused, path),
        lambda path: to_half(plain, path),
        lambda path: shrink_embeddings(fused, path),
        lambda path: smooth(fused, path, batches=TRAINING),
        lambda path: quantise_static(plain, path, batches=TRAINING, runtime=Runtime.TENSORRT),
        *(lambda path, method=method: quantise_static(fused, path, batches=TRAINING, method=method) for method in Calibration),
    ]
    for make in makers:
        make(tmp_path / "one.onnx")
        make(tmp_path / "other.onnx")
        assert (tmp_path / "one.onnx").read_bytes() == (tmp_path / "other.onnx").read_bytes()


def test_what_cannot_be_quantised_is_refused(plain: Path, fused: Path, tmp_path: Path) -> None:
    output = tmp_path / "none.onnx"
    with pytest.raises(InvalidInput, match="no texts to calibrate with; static int8 needs some training texts"):
        quantise_static(fused, output, batches=[])
    with pytest.raises(InvalidInput, match="no texts to calibrate with"):
        smooth(fused, output, batches=iter([]))
    with pytest.raises(InvalidInput, match="no texts to measure sensitivity on"):
        layer_sensitivity(fused, [], recipe=dynamic_recipe())
    with pytest.raises(InvalidInput, match=r"no product '9\.output' to leave out; the encoder has 0\.qkv, 0\.attention_output"):
        quantise_dynamic(fused, output, exclude=["9.output"])
    with pytest.raises(InvalidInput, match="has Attention, BiasGelu, .* which tensorrt does not read; give the plain encoder"):
        quantise_static(fused, output, batches=TRAINING, runtime=Runtime.TENSORRT)
    with pytest.raises(InvalidInput, match="no BERT layers to put in half precision"):
        to_half(_without_layers(tmp_path), output)
    with pytest.raises(InvalidInput, match="no matrix product of a BERT layer"):
        quantise(_without_layers(tmp_path), output, recipe=dynamic_recipe())
    with pytest.raises(InvalidInput, match="no embedding table"):
        shrink_embeddings(_without_layers(tmp_path), output)
    assert not output.exists()


def _without_layers(folder: Path) -> Path:
    tensors = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "none", tensors[:1], tensors[1:])
    onnx.save_model(helper.make_model(graph), str(folder / "identity.onnx"))
    return folder / "identity.onnx"
