"""The encoder as ONNX: exported from torch, fused for ONNX Runtime, quantised to int8."""

from __future__ import annotations

import logging
import warnings
from collections import Counter
from pathlib import Path

import onnx
import torch
from onnxruntime.quantization import QuantType, quantize_dynamic
from onnxruntime.transformers import optimizer

from bertrec.tensors import ENCODER
from export.ranker import IR_VERSION, OPSET
from train.encoder import Encoder

log = logging.getLogger(__name__)


def export_plain(encoder: Encoder, path: Path) -> None:
    """Write the encoder, loaded with eager attention, with standard ONNX operators only; batch and tokens are dynamic."""
    encoder.eval()  # the exporter puts a module back in the mode that it found
    input_ids = torch.ones((2, 16), dtype=torch.int64)
    mask = torch.ones((2, 16), dtype=torch.int64)
    mask[1, 8:] = 0
    path.parent.mkdir(parents=True, exist_ok=True)
    inputs = [tensor.name for tensor in ENCODER.inputs]
    (output,) = [tensor.name for tensor in ENCODER.outputs]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the tracer, about shapes that are constant for a given bundle
        torch.onnx.export(
            encoder,
            (input_ids, mask),
            str(path),
            input_names=inputs,
            output_names=[output],
            dynamic_axes={**{name: {0: "batch", 1: "tokens"} for name in inputs}, output: {0: "batch"}},
            opset_version=OPSET,
            # The TorchScript exporter: its graphs are the ones whose attention ONNX Runtime's BERT fusions recognise.
            dynamo=False,
        )
    model = onnx.load(str(path))
    model.ir_version = min(model.ir_version, IR_VERSION)
    onnx.save_model(model, str(path))


def fuse(plain: Path, fused: Path, *, heads: int, hidden: int, layers: int) -> dict[str, int]:
    """Replace attention, layer norm and GELU by ONNX Runtime's fused operators; returns how many of each.

    Logs a warning, and names the numbers, when a BERT of so many layers should have more: a lost fusion costs speed silently.
    """
    model = optimizer.optimize_model(str(plain), model_type="bert", num_heads=heads, hidden_size=hidden, opt_level=0)
    model.save_model_to_file(str(fused))
    found = Counter(node.op_type for node in model.model.graph.node)
    wanted = {"Attention": layers, "SkipLayerNormalization": 2 * layers, "BiasGelu": layers}
    if lost := {name: f"{found[name]} of {number}" for name, number in wanted.items() if found[name] < number}:
        log.warning("fusions are missing in %s: %s", fused.name, lost)
    return {name: found[name] for name in wanted}


def quantise_dynamic(fused: Path, quantised: Path, *, layers: int) -> None:
    """int8 weights per channel, activations quantised at run time over the whole batch.

    ``reduce_range`` (7-bit weights) keeps the 16-bit sums of AVX2's u8×s8 products from saturating on CPUs without VNNI. The
    second feed-forward product of the lower half of the layers stays in float32: what GELU gives it has outliers that cost all
    other values their precision (on MiniLM the mean cosine to float32 rose from .987 to .992, see docs/decisions/int8.md).
    """
    model = onnx.load(str(fused))
    lower = {f"layer.{layer}/output/dense" for layer in range(layers // 2)}
    kept = [node.name for node in model.graph.node if node.op_type == "MatMul" and any(part in node.name for part in lower)]
    quantize_dynamic(
        model,
        str(quantised),
        per_channel=True,
        reduce_range=True,
        weight_type=QuantType.QInt8,
        nodes_to_exclude=kept,
        extra_options={"DefaultTensorType": onnx.TensorProto.FLOAT},
    )
