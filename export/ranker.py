"""The ranker as an ONNX graph: every signal's inner product, the boosts, and TopK."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper

from bertrec.tensors import BOOST, ITEM_INDEX, MAX_K, QUERY_VECTOR, RANKER, RULES, SCORE, TERMS, TensorSpec

OPSET = 17
IR_VERSION = 8  # read by onnxruntime 1.14 and newer, TensorRT 8.6 and newer

_ONNX_TYPES = {"INT64": TensorProto.INT64, "FP32": TensorProto.FLOAT, "BOOL": TensorProto.BOOL}


def export_ranker(items: Mapping[str, NDArray[np.float32]], path: Path) -> None:
    """Write the ranker to ``path``. It gives MAX_K candidates, or all items of a smaller catalogue.

    items: signal → (items, width) the item side, in the order of the query vector's parts. score = Σ_s ⟨part_s, item_s⟩ + boost.
    ONNX's TopK puts the lower index first among equal scores. ``terms`` are the summands of each candidate's score, picked out
    by its index; the last is the boost.
    """
    widths = {signal: vectors.shape[1] for signal, vectors in items.items()}
    candidates = min(MAX_K, len(next(iter(items.values()))))
    nodes = [
        helper.make_node("Split", [QUERY_VECTOR.name, "widths"], [f"user_{signal}" for signal in items], axis=1),
        *(
            helper.make_node("Gemm", [f"user_{signal}", f"item_{signal}"], [f"term_{signal}"], transB=1)  # (batch, items)
            for signal in items
        ),
        helper.make_node("Sum", [*(f"term_{signal}" for signal in items), BOOST.name], ["total"]),  # (batch, items)
        helper.make_node("TopK", ["total", "candidates"], [SCORE.name, ITEM_INDEX.name], axis=-1, largest=1, sorted=1),
        *(node for signal in items for node in _chosen(f"term_{signal}", signal)),
        *_chosen(BOOST.name, RULES),
        helper.make_node("Concat", [f"column_{term}" for term in (*items, RULES)], [TERMS.name], axis=2),
    ]
    constants = {
        **{f"item_{signal}": np.ascontiguousarray(vectors, np.float32) for signal, vectors in items.items()},
        "widths": np.asarray(list(widths.values()), np.int64),
        "candidates": np.asarray([candidates], np.int64),
        "last_axis": np.asarray([-1], np.int64),
    }
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


def read_items(path: Path) -> dict[str, NDArray[np.float32]]:
    """The item side of every signal that a ranker was written from, in order."""
    graph = onnx.load(str(path)).graph
    arrays = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    (split,) = [node for node in graph.node if node.op_type == "Split"]
    signals = [output.removeprefix("user_") for output in split.output]
    return {signal: arrays[f"item_{signal}"] for signal in signals}


def _chosen(scores: str, term: str) -> tuple[NodeProto, NodeProto]:
    """The candidates' share of one term, as a column: (batch, items) → (batch, candidates, 1)."""
    return (
        helper.make_node("GatherElements", [scores, ITEM_INDEX.name], [f"chosen_{term}"], axis=1),
        helper.make_node("Unsqueeze", [f"chosen_{term}", "last_axis"], [f"column_{term}"]),
    )


def _value_info(tensor: TensorSpec) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(tensor.name, _ONNX_TYPES[tensor.dtype], list(tensor.shape))
