"""The ranker as an ONNX graph: every signal's inner product, the prior, the mask and TopK."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from bertrec.tensors import ALLOWED, INTEREST_VECTOR, ITEM_INDEX, LEXICAL_VECTOR, MAX_K, RANKER, SCORE, TERMS, TensorSpec

OPSET = 17
IR_VERSION = 8  # read by onnxruntime 1.14 and newer, TensorRT 8.6 and newer

_ONNX_TYPES = {"INT64": TensorProto.INT64, "FP32": TensorProto.FLOAT, "BOOL": TensorProto.BOOL}


@dataclass(frozen=True)
class ItemVectors:
    """The item side of every signal, in index order."""

    text: NDArray[np.float32]  # (items, hidden)
    lexical: NDArray[np.float32]  # (items, lexical)
    prior: NDArray[np.float32]  # (items,)


def export_ranker(vectors: ItemVectors, path: Path) -> None:
    """Write the ranker to ``path``. It gives MAX_K candidates, or all items of a smaller catalogue.

    score = text · interest + lexical · words + prior; masked items score −inf. ONNX's TopK puts the lower index first among
    equal scores. ``terms`` are the summands of each candidate's score, picked out by its index.
    """
    candidates = min(MAX_K, len(vectors.prior))
    prior_term, total, masked = "prior_term", "total", "masked"
    nodes = [
        helper.make_node("Gemm", [INTEREST_VECTOR.name, "item_text"], ["text_term"], transB=1),  # (batch, items)
        helper.make_node("Gemm", [LEXICAL_VECTOR.name, "item_lexical"], ["lexical_term"], transB=1),  # (batch, items)
        helper.make_node("Add", ["text_term", "lexical_term"], ["signals"]),
        helper.make_node("Add", ["signals", "item_prior"], [total]),  # (batch, items)
        helper.make_node("Where", [ALLOWED.name, total, "minus_infinity"], [masked]),
        helper.make_node("TopK", [masked, "candidates"], [SCORE.name, ITEM_INDEX.name], axis=-1, largest=1, sorted=1),
        helper.make_node("Gather", ["item_prior", ITEM_INDEX.name], [prior_term]),  # (batch, candidates)
        helper.make_node("GatherElements", ["text_term", ITEM_INDEX.name], ["text_chosen"], axis=1),
        helper.make_node("GatherElements", ["lexical_term", ITEM_INDEX.name], ["lexical_chosen"], axis=1),
        helper.make_node("Unsqueeze", ["text_chosen", "last_axis"], ["text_column"]),
        helper.make_node("Unsqueeze", ["lexical_chosen", "last_axis"], ["lexical_column"]),
        helper.make_node("Unsqueeze", [prior_term, "last_axis"], ["prior_column"]),
        helper.make_node("Concat", ["text_column", "lexical_column", "prior_column"], [TERMS.name], axis=2),
    ]
    constants = {
        "item_text": vectors.text.astype(np.float32),
        "item_lexical": vectors.lexical.astype(np.float32),
        "item_prior": vectors.prior.astype(np.float32),
        "minus_infinity": np.asarray(-np.inf, np.float32),
        "candidates": np.asarray([candidates], np.int64),
        "last_axis": np.asarray([-1], np.int64),
    }
    graph = helper.make_graph(
        nodes,
        RANKER.name,
        [_value_info(tensor) for tensor in RANKER.inputs],
        [_value_info(tensor) for tensor in RANKER.outputs],
        [numpy_helper.from_array(np.ascontiguousarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
    model.producer_name = "bertrec"
    onnx.checker.check_model(model)
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save_model(model, str(path))


def _value_info(tensor: TensorSpec) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(tensor.name, _ONNX_TYPES[tensor.dtype], list(tensor.shape))
