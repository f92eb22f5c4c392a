"""Matrix products in int8: with activation scales taken at run time, or calibrated once.

Rewritten here and not by onnxruntime's quantisers: those write no Q/DQ form of the fused attention, quantise an embedding table
with one scale for all its rows, and are too slow to try the products one by one (export/sensitivity.py).
"""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from bertrec.bundle import Runtime
from bertrec.errors import InvalidInput
from export.calibration import Calibration, Range, Tensors, calibrate, some_batches
from export.graphs import MICROSOFT, chosen_products, nodes_of, save
from export.smoothing import STRENGTH, smooth

CPU_FACTS = Path("/proc/cpuinfo")
VNNI_FLAGS = frozenset({"avx512_vnni", "avx_vnni"})
SMALLEST = 1e-8
"""A tensor or column that is all zeros gets this range, and no division by nothing."""

Quantised = tuple[str, str, str]


def has_vnni() -> bool:
    """Whether this CPU sums four u8×s8 products into 32 bits at once. Elsewhere than on Linux it counts as having none."""
    try:
        lines = CPU_FACTS.read_text(encoding="utf-8").splitlines()
    except OSError:
        return False
    return any(VNNI_FLAGS & set(line.split()) for line in lines if line.startswith("flags"))


def quantise_dynamic(source: Path, output: Path, *, exclude: Collection[str] = (), reduce_range: bool | None = None) -> None:
    """int8 weights per channel; activations are quantised at run time with one scale for the whole batch.

    So an answer depends on the texts that share its batch: see :func:`quantise_static` for one that does not.
    source: the fused encoder. exclude, reduce_range: as for :func:`quantise` and :func:`dynamic_recipe`.
    Raises InvalidInput for an unknown product, and for a graph that has none.
    """
    quantise(source, output, recipe=dynamic_recipe(reduce_range), exclude=exclude)


def quantise_static(
    source: Path,
    output: Path,
    *,
    batches: Iterable[Tensors],
    method: Calibration = Calibration.MIN_MAX,
    runtime: Runtime = Runtime.ORT,
    exclude: Collection[str] = (),
    reduce_range: bool | None = None,
    smoothing: float = STRENGTH,
) -> None:
    """int8 weights per channel and activations in one calibrated scale each: a text's answer is the same in any batch.

    smoothing: as for :func:`export.smoothing.smooth`, which comes first; 0 leaves it out. The other arguments are those of
    :func:`quantise` and :func:`static_recipe`, and so are the errors.
    """
    _check_readable(source, runtime)
    texts = some_batches(batches)
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=output.parent) as folder:
        if smoothing:
            smooth(source, Path(folder) / source.name, batches=texts, strength=smoothing)
            source = Path(folder) / source.name
        recipe = static_recipe(source, texts, method=method, runtime=runtime, reduce_range=reduce_range)
        quantise(source, output, recipe=recipe, exclude=exclude)


def dynamic_recipe(reduce_range: bool | None = None) -> Recipe:
    """Activation scales taken at run time, for ONNX Runtime.

    reduce_range: weights in 7 bits, without which the 16-bit sums of CPUs without VNNI saturate; by default where this one has
    none. An engine that is to run elsewhere had better say.
    """
    return Recipe(reduce_range=_reduced(reduce_range))


def static_recipe(
    source: Path,
    batches: Iterable[Tensors],
    *,
    method: Calibration = Calibration.MIN_MAX,
    runtime: Runtime = Runtime.ORT,
    reduce_range: bool | None = None,
) -> Recipe:
    """Calibrate an encoder.

    source: the fused encoder for ONNX Runtime, the plain one for TensorRT, which gets symmetric int8 with zero point 0.
    batches: ``input_ids`` and ``attention_mask``, each (batch, tokens) int64, of *training* texts. Padding does not count.
    reduce_range: as for :func:`dynamic_recipe`; TensorRT needs none.
    Raises InvalidInput for no batches, a graph without products, or a fused one for TensorRT.
    """
    _check_readable(source, runtime)
    model = onnx.load(str(source))
    names = nodes_of(chosen_products(model))
    activations = dict.fromkeys(node.input[0] for node in model.graph.node if node.name in names)
    ranges = calibrate(model, tuple(activations), batches, method=method)
    return Recipe(runtime, ranges, reduce_range=runtime is Runtime.ORT and _reduced(reduce_range))


def quantise(source: Path, output: Path, *, recipe: Recipe, exclude: Collection[str] = ()) -> None:
    """Write ``source`` with its products quantised; the same twice gives the same bytes.

    exclude: names of products (export/graphs.py) that stay in float32, such as ``0.output``. Raises InvalidInput for an unknown
    one, and for a graph that has none.
    """
    model = onnx.load(str(source))
    save(recipe.quantise(model, nodes_of(chosen_products(model, exclude))), output)


@dataclass(frozen=True)
class Recipe:
    """One way to quantise products.

    ranges: tensor → its calibrated range; None takes the scales at run time, which only ONNX Runtime can.
    reduce_range: weights in 7 bits.
    """

    runtime: Runtime = Runtime.ORT
    ranges: Mapping[str, Range] | None = None
    reduce_range: bool = False

    def quantise(self, model: ModelProto, chosen: Collection[str]) -> ModelProto:
        """The model, changed in place, with the nodes named in ``chosen`` quantised."""
        rewriter = _Rewriter(self, {tensor.name: tensor for tensor in model.graph.initializer})
        for node in model.graph.node:
            rewriter.add(node, quantise=node.name in chosen)
        del model.graph.node[:]
        model.graph.node.extend(rewriter.nodes)
        model.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in rewriter.constants.items())
        if self.runtime is Runtime.ORT and all(opset.domain != MICROSOFT for opset in model.opset_import):
            model.opset_import.append(helper.make_opsetid(MICROSOFT, 1))
        return model


class _Rewriter:
    """Writes a graph's nodes anew, one after another. A quantised tensor is (values, scale, zero point), all by name."""

    def __init__(self, recipe: Recipe, weights: Mapping[str, TensorProto]) -> None:
        self.nodes: list[NodeProto] = []
        self.constants: dict[str, NDArray[np.generic]] = {}
        self._recipe, self._weights = recipe, weights
        self._activations: dict[str, Quantised] = {}

    def add(self, node: NodeProto, *, quantise: bool) -> None:
        if not quantise:
            self.nodes.append(node)
        elif node.op_type == "Attention":
            self._add_attention(node)
        elif self._recipe.ranges is None:
            weight = self._weight(node.input[1])
            self._make("DynamicQuantizeMatMul", [node.input[0], *weight], node.output, node.name, domain=MICROSOFT)
        else:
            left, right = self._activation(node.input[0]), self._weight(node.input[1])
            inputs = [self._dequantised(left), self._dequantised(right, axis=1)]
            self._make("MatMul", inputs, node.output, node.name)

    def _add_attention(self, node: NodeProto) -> None:
        """QAttention takes scales that were calibrated as well as such that were just computed."""
        values, scale, zero = self._activation(node.input[0])
        weight, weight_scale, weight_zero = self._weight(node.input[1])
        mask = node.input[3] if len(node.input) > 3 else ""
        inputs = [values, weight, node.input[2], scale, weight_scale, mask, zero, weight_zero]
        attributes = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
        self._make("QAttention", inputs, node.output, node.name, domain=MICROSOFT, **attributes)

    def _activation(self, name: str) -> Quantised:
        """A tensor in 8 bits; quantised once, however many products read it."""
        if name not in self._activations:
            quantised = (f"{name}_quantised", f"{name}_scale", f"{name}_zero_point")
            if self._recipe.ranges is None:
                self._make("DynamicQuantizeLinear", [name], quantised, quantised[0])
            else:
                scale, zero = scale_of(self._recipe.ranges[name], symmetric=self._recipe.runtime is not Runtime.ORT)
                self.constants |= {quantised[1]: scale, quantised[2]: zero}
                self._make("QuantizeLinear", [name, *quantised[1:]], quantised[:1], quantised[0])
            self._activations[name] = quantised
        return self._activations[name]

    def _weight(self, name: str) -> Quantised:
        """A matrix in int8, each column with its own scale."""
        quantised = (f"{name}_quantised", f"{name}_scale", f"{name}_zero_point")
        if name not in self.constants:
            matrix = numpy_helper.to_array(self._weights[name])  # (inputs, outputs)
            values, scales = quantise_columns(matrix, largest=64 if self._recipe.reduce_range else 127)
            self.constants |= dict(zip(quantised, (values, scales, np.zeros(len(scales), np.int8)), strict=True))
        return quantised

    def _dequantised(self, quantised: Quantised, **attributes: int) -> str:
        """The tensor in float32 again: (values, scale, zero point) → DequantizeLinear, which the runtimes fuse away."""
        name = f"{quantised[0]}_dequantised"
        if all(name not in node.output for node in self.nodes):
            self._make("DequantizeLinear", list(quantised), [name], name, **attributes)
        return name

    def _make(self, operator: str, inputs: list[str], outputs: Sequence[str], name: str, **attributes: Any) -> None:  # noqa: ANN401  # as ONNX has them
        self.nodes.append(helper.make_node(operator, inputs, list(outputs), name, **attributes))


def scale_of(values: Range, *, symmetric: bool) -> tuple[NDArray[np.float32], NDArray[np.generic]]:
    """Scale and zero point of a tensor: int8 about 0 where symmetric, else uint8 over its whole range, 0 always among it."""
    low, high = min(values.low, 0.0), max(values.high, 0.0)
    if symmetric:
        return np.asarray(max(-low, high, SMALLEST) / 127, np.float32), np.asarray(0, np.int8)
    scale = max(high - low, SMALLEST) / 255
    return np.asarray(scale, np.float32), np.asarray(np.clip(round(-low / scale), 0, 255), np.uint8)


def quantise_columns(matrix: NDArray[np.float32], *, largest: int = 127) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """(inputs, outputs) float32 → the same in int8 from −largest to largest, and (outputs,) float32 scales."""
    scales = np.maximum(np.abs(matrix).max(axis=0), SMALLEST) / largest
    return np.rint(matrix / scales).astype(np.int8), scales.astype(np.float32)


def _check_readable(source: Path, runtime: Runtime) -> None:
    """Raises InvalidInput for a graph with ONNX Runtime's own operators that is meant for TensorRT."""
    nodes = onnx.load(str(source), load_external_data=False).graph.node
    own = sorted({node.op_type for node in nodes if node.domain == MICROSOFT})
    if runtime is not Runtime.ORT and own:
        raise InvalidInput(f"{source} has {', '.join(own)}, which {runtime.value} does not read; give the plain encoder")


def _reduced(given: bool | None) -> bool:
    return not has_vnni() if given is None else given
