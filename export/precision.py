"""Encoders in fewer bits without calibration: half precision for GPUs, and smaller embedding tables for any runtime."""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper
from onnxruntime.transformers.float16 import convert_float_to_float16
from onnxruntime.transformers.onnx_model import OnnxModel

from bertrec.errors import InvalidInput
from export.graphs import save
from export.quantise import quantise_columns

IN_FLOAT32 = ("LayerNormalization", "Softmax")
"""Sums over many values, in which half precision loses what it cannot win back."""
LEAST_ROWS = 64
"""A smaller table, such as that of the two token types, is left as it is."""


class TablePrecision(str, Enum):
    """What an embedding table is kept in."""

    INT8 = "int8"  # one scale a row
    FP16 = "fp16"


def to_half(source: Path, output: Path) -> None:
    """Weights and activations in float16; layer norm, softmax, and pooling and scaling to length 1 in float32.

    source: the plain encoder. Inputs stay int64, the interest vector float32. For GPUs: a CPU has no such kernels, and would
    cast to and fro. Raises InvalidInput for a graph without BERT layers.
    """
    model = onnx.load(str(source))
    outside = [node.name for node in model.graph.node if not node.name.startswith("/bert/")]
    if len(outside) == len(model.graph.node):
        raise InvalidInput(f"{source} has no BERT layers to put in half precision; give the encoder written by export_plain")
    half = convert_float_to_float16(model, keep_io_types=True, op_block_list=list(IN_FLOAT32), node_block_list=outside)
    _stay_wide(half)
    save(half, output)


def _stay_wide(model: ModelProto) -> None:
    """Do without the casts to float16 and at once back, that the converter puts between two operators in float32."""
    graph = model.graph
    narrowed = {node.output[0]: node.input[0] for node in graph.node if node.name.endswith("_cast_to_fp16_node")}
    wide = {
        node.output[0]: narrowed[node.input[0]]
        for node in graph.node
        if node.op_type == "Cast" and node.attribute[0].i == TensorProto.FLOAT and node.input[0] in narrowed
    }
    result = graph.output[0].name
    renamed = {**wide, **({wide[result]: result} if result in wide else {})}  # what gives the result takes its name
    kept = [node for node in graph.node if node.output[0] not in wide]
    for node in kept:
        node.input[:] = [renamed.get(name, name) for name in node.input]
        node.output[:] = [renamed.get(name, name) if name == wide.get(result) else name for name in node.output]
    read = {name for node in kept for name in node.input} | {result}
    del graph.node[:]
    graph.node.extend(node for node in kept if read & set(node.output))
    OnnxModel(model).topological_sort(is_deterministic=True)  # the converter puts its casts last


def shrink_embeddings(source: Path, output: Path, *, precision: TablePrecision = TablePrecision.INT8) -> None:
    """Keep the embedding tables in int8 with a scale a row, or in float16; a text's own rows are widened after they are read.

    source: any encoder of this project. Raises InvalidInput for a graph without a table that only Gather reads.
    """
    model = onnx.load(str(source))
    tables = dict(_tables(model))
    if not tables:
        raise InvalidInput(f"{source} has no embedding table that only Gather reads; give an encoder, not fused by other means")
    nodes: list[NodeProto] = []
    for node in model.graph.node:
        narrow = node.op_type == "Gather" and node.input[0] in tables
        nodes.extend(_narrowed(model, node, tables[node.input[0]], precision) if narrow else [node])
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    save(model, output)


def _tables(model: ModelProto) -> Iterator[tuple[str, TensorProto]]:
    """The float tables (rows, width) whose rows are picked by Gather and by nothing else."""
    for tensor in model.graph.initializer:
        readers = [node for node in model.graph.node if tensor.name in node.input]
        picked = readers and all(node.op_type == "Gather" and node.input[0] == tensor.name for node in readers)
        if picked and tensor.data_type == TensorProto.FLOAT and len(tensor.dims) == 2 and tensor.dims[0] >= LEAST_ROWS:
            yield tensor.name, tensor


def _narrowed(model: ModelProto, gather: NodeProto, table: TensorProto, precision: TablePrecision) -> list[NodeProto]:
    """Gather of narrow rows, and the operators that make float32 of them: (batch, tokens) ids → (batch, tokens, width)."""
    rows, ids, found = numpy_helper.to_array(table), gather.input[1], gather.output[0]
    narrow, picked = f"{table.name}_{precision.value}", f"{found}_{precision.value}"
    if precision is TablePrecision.FP16:
        _add(model, narrow, rows.astype(np.float16))
        return [
            helper.make_node("Gather", [narrow, ids], [picked], gather.name, axis=0),
            helper.make_node("Cast", [picked], [found], f"{gather.name}_cast", to=TensorProto.FLOAT),
        ]
    values, scales = quantise_columns(rows.T)
    _add(model, narrow, np.ascontiguousarray(values.T))
    _add(model, f"{table.name}_scales", scales[:, None])  # (rows, 1)
    return [
        helper.make_node("Gather", [narrow, ids], [picked], gather.name, axis=0),
        helper.make_node("Cast", [picked], [f"{picked}_cast"], f"{gather.name}_cast", to=TensorProto.FLOAT),
        helper.make_node("Gather", [f"{table.name}_scales", ids], [f"{found}_scale"], f"{gather.name}_scale", axis=0),
        helper.make_node("Mul", [f"{picked}_cast", f"{found}_scale"], [found], f"{gather.name}_mul"),
    ]


def _add(model: ModelProto, name: str, values: NDArray[np.generic]) -> None:
    if all(tensor.name != name for tensor in model.graph.initializer):
        model.graph.initializer.append(numpy_helper.from_array(values, name))
