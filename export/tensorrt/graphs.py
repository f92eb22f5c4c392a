"""Whether TensorRT can compile an ONNX graph, said before it is tried."""

from __future__ import annotations

from pathlib import Path

import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]  # its stubs are a package of their own
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, numpy_helper

from bertrec.errors import InvalidInput
from bertrec.tensors import ModelSpec

MIN_OPSET = 13
"""Older opsets have no QuantizeLinear with a scale per channel."""
MAX_TOP_K = 3_840
"""TensorRT's limit for TopK's K."""
STANDARD_DOMAINS = ("", "ai.onnx")
_DTYPES = {TensorProto.INT64: "INT64", TensorProto.FLOAT: "FP32", TensorProto.BOOL: "BOOL"}


def check_graph(path: Path, spec: ModelSpec) -> None:
    """Raise InvalidInput, saying what is accepted, for a graph that TensorRT cannot compile into the model ``spec``.

    Checked are the opset, operators of other domains, the K of TopK, and the names and dtypes of inputs and outputs.
    """
    model = _load(path)
    opset = max((one.version for one in model.opset_import if one.domain in STANDARD_DOMAINS), default=0)
    if opset < MIN_OPSET:
        raise InvalidInput(f"{path} has opset {opset}; accepted is {MIN_OPSET} or newer. Export it again")
    if foreign := [node for node in model.graph.node if node.domain not in STANDARD_DOMAINS]:
        raise InvalidInput(
            f"{path} has the operator {foreign[0].op_type} of {foreign[0].domain}, which TensorRT does not know; accepted are "
            "standard operators. Export an engine without fusion: python -m export build … --engines fp32,plain"
        )
    for node in model.graph.node:
        if node.op_type == "TopK":
            _check_top_k(path, model.graph, node)
    for kind, wanted, found in (
        ("inputs", spec.inputs, model.graph.input),
        ("outputs", spec.outputs, model.graph.output),
    ):
        has = {one.name: _DTYPES.get(one.type.tensor_type.elem_type, "another type") for one in found}
        accepted = {one.name: one.dtype for one in wanted}
        if has != accepted:
            raise InvalidInput(f"{path} has the {kind} {_listed(has)}; accepted for {spec.name} are {_listed(accepted)}")


def _load(path: Path) -> ModelProto:
    try:
        return onnx.load(str(path), load_external_data=False)
    except (OSError, DecodeError) as error:
        raise InvalidInput(f"{path} cannot be read as an ONNX file: {error}") from None


def _check_top_k(path: Path, graph: GraphProto, node: NodeProto) -> None:
    constants = {tensor.name: tensor for tensor in graph.initializer}
    constants |= {one.output[0]: one.attribute[0].t for one in graph.node if one.op_type == "Constant"}
    if node.input[1] not in constants:
        raise InvalidInput(f"{path}: the K of TopK {node.name!r} is computed; TensorRT wants a constant")
    k = int(numpy_helper.to_array(constants[node.input[1]]).reshape(-1)[0])
    if not 1 <= k <= MAX_TOP_K:
        raise InvalidInput(f"{path}: TopK {node.name!r} has K = {k:,}; TensorRT accepts 1 to {MAX_TOP_K:,}")


def _listed(tensors: dict[str, str]) -> str:
    return ", ".join(f"{name} ({dtype})" for name, dtype in tensors.items()) or "none"
