"""The ranker as an ONNX graph: every signal's inner product, the boosts, and TopK."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper

from bertrec.compact import Int8Matrix, quantise_rows
from bertrec.errors import InvalidInput
from bertrec.tensors import BOOST, ITEM_INDEX, MAX_K, QUERY_VECTOR, RANKER, RULES, SCORE, TERMS, TensorSpec

OPSET = 17
IR_VERSION = 8  # read by onnxruntime 1.14 and newer, TensorRT 8.6 and newer

_ONNX_TYPES = {"INT64": TensorProto.INT64, "FP32": TensorProto.FLOAT, "BOOL": TensorProto.BOOL}


class RankerPrecision(str, Enum):
    """How the file keeps the items' vectors. Scores are computed in float32 whichever it is."""

    FP32 = "fp32"
    FP16 = "fp16"
    INT8 = "int8"  # one scale for each row


def export_ranker(
    items: Mapping[str, NDArray[np.float32]],
    path: Path,
    *,
    precision: RankerPrecision = RankerPrecision.FP32,
    bases: Mapping[str, NDArray[np.float32]] | None = None,
) -> None:
    """Write the ranker to ``path``. It gives MAX_K candidates, or all items of a smaller catalogue.

    items: signal → (items, width) the item side, in the order of the query vector's parts. score = Σ_s ⟨part_s, item_s⟩ + boost.
    ONNX's TopK puts the lower index first among equal scores. ``terms`` are the summands of each candidate's score, picked out
    by its index; the last is the boost.
    bases: signal → (rank, width), where its items are given as (items, rank): their vectors are items @ basis, kept apart.
    Raises InvalidInput where a basis does not fit its items.
    """
    bases = bases or {}
    _check(items, bases)
    widths = [bases.get(signal, vectors).shape[1] for signal, vectors in items.items()]
    candidates = min(MAX_K, len(next(iter(items.values()))))
    matrices = {f"item_{signal}": vectors for signal, vectors in items.items()}
    matrices |= {f"basis_{signal}": basis for signal, basis in bases.items()}
    stored = {name: _Stored.of(matrix, name, precision) for name, matrix in matrices.items()}
    nodes = [
        *(node for matrix in stored.values() for node in matrix.nodes),
        helper.make_node("Split", [QUERY_VECTOR.name, "widths"], [f"user_{signal}" for signal in items], axis=1),
        *(node for signal in items for node in _products(signal, stored)),
        helper.make_node("Sum", [*(f"term_{signal}" for signal in items), BOOST.name], ["total"]),  # (batch, items)
        helper.make_node("TopK", ["total", "candidates"], [SCORE.name, ITEM_INDEX.name], axis=-1, largest=1, sorted=1),
        *(node for signal in items for node in _chosen(f"term_{signal}", signal)),
        *_chosen(BOOST.name, RULES),
        helper.make_node("Concat", [f"column_{term}" for term in (*items, RULES)], [TERMS.name], axis=2),
    ]
    constants = {
        **{name: array for matrix in stored.values() for name, array in matrix.arrays.items()},
        "widths": np.asarray(widths, np.int64),
        "candidates": np.asarray([candidates], np.int64),
        "last_axis": np.asarray([-1], np.int64),
    }
    _save(nodes, constants, path)


def read_items(path: Path) -> dict[str, NDArray[np.float32]]:
    """The item side of every signal that a ranker was written from, in order: (items, width) float32, as the ranker sees it."""
    graph = onnx.load(str(path)).graph
    arrays = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    (split,) = [node for node in graph.node if node.op_type == "Split"]
    signals = [output.removeprefix("user_") for output in split.output]
    return {signal: _read(arrays, signal) for signal in signals}


def _check(items: Mapping[str, NDArray[np.float32]], bases: Mapping[str, NDArray[np.float32]]) -> None:
    for signal, basis in bases.items():
        if signal not in items or items[signal].shape[1] != basis.shape[0]:
            given = f"items of shape {items[signal].shape}" if signal in items else "no items"
            raise InvalidInput(
                f"the basis of the signal {signal!r} has the shape {basis.shape}, and there are {given}; "
                "accepted are (items, rank) with (rank, width)"
            )


class _Stored:
    """One matrix of the graph: what its file holds, and the nodes that make it float32 under its name.

    Cast and Mul of constants are folded by ONNX Runtime when it loads the file, so int8 costs no time at a request;
    DequantizeLinear is not folded, and was 1.7 times as slow at 10,000 items.
    """

    def __init__(self, arrays: Mapping[str, NDArray[Any]], nodes: list[NodeProto]) -> None:
        self.arrays, self.nodes = arrays, nodes

    @classmethod
    def of(cls, matrix: NDArray[np.float32], name: str, precision: RankerPrecision) -> _Stored:
        """(rows, columns) float32. A single column stays as it is: scales would take more than int8 saves."""
        exact = np.ascontiguousarray(matrix, np.float32)
        if precision is RankerPrecision.FP32 or exact.shape[1] == 1:
            return cls({name: exact}, [])
        if precision is RankerPrecision.FP16:
            return cls({f"{name}_fp16": exact.astype(np.float16)}, [_cast(f"{name}_fp16", name)])
        small = quantise_rows(exact)
        scaled = helper.make_node("Mul", [f"{name}_whole", f"{name}_scales"], [name])
        return cls(
            {f"{name}_int8": small.values, f"{name}_scales": small.scales[:, None]},  # (rows, columns), (rows, 1)
            [_cast(f"{name}_int8", f"{name}_whole"), scaled],
        )


def _cast(given: str, made: str) -> NodeProto:
    return helper.make_node("Cast", [given], [made], to=TensorProto.FLOAT)


def _products(signal: str, stored: Mapping[str, _Stored]) -> list[NodeProto]:
    """The signal's term of every score: (batch, width) → (batch, items), by way of (batch, rank) where it has a basis."""
    user = f"user_{signal}"
    if f"basis_{signal}" not in stored:
        return [helper.make_node("Gemm", [user, f"item_{signal}"], [f"term_{signal}"], transB=1)]
    return [
        helper.make_node("Gemm", [user, f"basis_{signal}"], [f"turned_{signal}"], transB=1),  # (batch, rank)
        helper.make_node("Gemm", [f"turned_{signal}", f"item_{signal}"], [f"term_{signal}"], transB=1),
    ]


def _read(arrays: Mapping[str, NDArray[Any]], signal: str) -> NDArray[np.float32]:
    items = _floats(arrays, f"item_{signal}")
    has_basis = {f"basis_{signal}{end}" for end in ("", "_fp16", "_int8")} & set(arrays)
    return items @ _floats(arrays, f"basis_{signal}") if has_basis else items


def _floats(arrays: Mapping[str, NDArray[Any]], name: str) -> NDArray[np.float32]:
    """What :class:`_Stored` keeps of a matrix, as float32."""
    if name in arrays:
        return np.asarray(arrays[name], np.float32)
    if f"{name}_fp16" in arrays:
        return arrays[f"{name}_fp16"].astype(np.float32)
    return Int8Matrix(arrays[f"{name}_int8"], arrays[f"{name}_scales"][:, 0]).dequantised()


def _save(nodes: list[NodeProto], constants: Mapping[str, NDArray[Any]], path: Path) -> None:
    graph = helper.make_graph(
        nodes,
        RANKER.name,
        [_value_info(tensor) for tensor in RANKER.inputs],
        [_value_info(tensor) for tensor in RANKER.outputs],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
    model.producer_name = "bertrec"
    onnx.checker.check_model(model)
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save_model(model, str(path))


def _chosen(scores: str, term: str) -> tuple[NodeProto, NodeProto]:
    """The candidates' share of one term, as a column: (batch, items) → (batch, candidates, 1)."""
    return (
        helper.make_node("GatherElements", [scores, ITEM_INDEX.name], [f"chosen_{term}"], axis=1),
        helper.make_node("Unsqueeze", [f"chosen_{term}", "last_axis"], [f"column_{term}"]),
    )


def _value_info(tensor: TensorSpec) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(tensor.name, _ONNX_TYPES[tensor.dtype], list(tensor.shape))
