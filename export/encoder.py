"""The encoder, and other networks, as ONNX: exported from torch, and fused for ONNX Runtime."""

from __future__ import annotations

import logging
import os
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import onnx
import torch
from optimum.onnxruntime import OptimizationConfig, ORTOptimizer
from transformers import BertConfig

from bertrec.errors import InvalidBundle
from bertrec.tensors import BATCH, ENCODER, TOKENS, ModelSpec
from export.graphs import count_operators
from export.ranker import IR_VERSION, OPSET


def export_plain(encoder: torch.nn.Module, path: Path) -> None:
    """Write an encoder, loaded with eager attention, or a student, in standard operators; batch and tokens are dynamic."""
    trace(encoder, example_tokens(), path, spec=ENCODER)


def example_tokens() -> tuple[torch.Tensor, torch.Tensor]:
    """(2, 16) int64 token ids and mask, the second text padded, to trace a network with."""
    mask = torch.ones((2, 16), dtype=torch.int64)
    mask[1, 8:] = 0
    return torch.ones_like(mask), mask


def trace(network: torch.nn.Module, example: tuple[torch.Tensor, ...], path: Path, *, spec: ModelSpec) -> None:
    """Write a network in standard operators, with the tensors of ``spec``; batch and tokens are dynamic, other sizes are not.

    example: its inputs, in the order of ``spec``.
    """
    network.eval()  # the exporter puts a module back in the mode that it found
    path.parent.mkdir(parents=True, exist_ok=True)
    tensors = (*spec.inputs, *spec.outputs)
    dynamic = {one.name: {axis: size for axis, size in enumerate(one.shape) if size in (BATCH, TOKENS)} for one in tensors}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the tracer, about shapes that are constant for a given bundle
        torch.onnx.export(
            network,
            example,
            str(path),
            input_names=[one.name for one in spec.inputs],
            output_names=[one.name for one in spec.outputs],
            dynamic_axes=dynamic,
            opset_version=OPSET,
            # The TorchScript exporter: its graphs are the ones whose attention ONNX Runtime's BERT fusions recognise.
            dynamo=False,
        )
    model = onnx.load(str(path))
    model.ir_version = min(model.ir_version, IR_VERSION)
    onnx.save_model(model, str(path))


def fuse(plain: Path, fused: Path, *, heads: int, hidden: int, layers: int) -> dict[str, int]:
    """Replace attention, layer norm and GELU by ONNX Runtime's fused operators; returns how many of each.

    The embeddings are not fused: that gains no time, and their tables could not be kept in int8 (export/precision.py).
    heads: of the BERT before any were pruned; the graph says how many a layer has. Raises InvalidBundle, and leaves no file,
    where a fusion is missing for a BERT of so many layers: lost fusions cost speed silently.
    """
    config = BertConfig(num_attention_heads=heads, hidden_size=hidden, num_hidden_layers=layers)
    fused.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=fused.parent) as folder, _only_errors("fusion_attention", "optimum"):
        # Level 0: the fusions alone. What a session optimises for the machine it runs on does not belong into the file.
        ORTOptimizer([plain], config=config).optimize(OptimizationConfig(optimization_level=0), folder, file_suffix="")
        written = Path(folder) / plain.name
        found = _checked(count_operators(written), layers=layers)
        os.replace(written, fused)
    return found


def _checked(operators: dict[str, int], *, layers: int) -> dict[str, int]:
    """The number of each fused operator. Raises InvalidBundle where there are not as many as the layers need."""
    wanted = {"Attention": layers, "SkipLayerNormalization": 2 * layers, "BiasGelu": layers}
    found = {name: operators.get(name, 0) for name in wanted}
    if lost := [f"{name} {found[name]} of {number}" for name, number in wanted.items() if found[name] != number]:
        raise InvalidBundle(
            f"the encoder has {layers} layers and was not fused whole: {', '.join(lost)}. ONNX Runtime knows the graphs of the "
            "versions in constraints.txt; install these, or take the engine plain, which needs no fusion"
        )
    return found


@contextmanager
def _only_errors(*loggers: str) -> Iterator[None]:
    """Without the optimiser's warnings, such as that a layer with pruned heads is narrower than the others: the counts tell."""
    before = {name: logging.getLogger(name).level for name in loggers}
    try:
        for name in loggers:
            logging.getLogger(name).setLevel(logging.ERROR)
        yield
    finally:
        for name, level in before.items():
            logging.getLogger(name).setLevel(level)
