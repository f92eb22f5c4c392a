"""Outlying channels moved from activations into weights, so that both fit 8 bits.

A few channels of BERT's layer norms and GELUs are far larger than the rest, and one scale for all leaves the others few levels.
Xiao et al., SmoothQuant, 2023, https://arxiv.org/abs/2211.10438. Only calibrated scales gain by it: those taken at run time have
to hold the padding's outliers too, which nothing was moved for.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, helper, numpy_helper

from bertrec import checks
from export.calibration import Tensors, observe, some_batches
from export.graphs import ProductKind, chosen_products, nodes_of, save
from train.progress import progress

STRENGTH = 0.85
"""How much of a channel's range is moved, 0 to 1. The mean cosine of MiniLM in static int8 was .9906 without, .9965 at .7, .9974
from .8 to .9 (docs/decisions/int8.md)."""
SMOOTHED = (ProductKind.QKV, ProductKind.INTERMEDIATE, ProductKind.OUTPUT)
"""What attention gives has no outliers: its product loses a hundredth of what the others lose."""
LEAST = 1e-5
"""A channel that is always zero counts as so large."""


def smooth(source: Path, output: Path, *, batches: Iterable[Tensors], strength: float = STRENGTH) -> None:
    """Write an encoder with the same answers in float32, and activations that lose less in int8.

    Activations x become x · f and weights W become W / f, by channel. source: plain or fused. batches: of training texts, as for
    calibration. Raises InvalidInput for no batches, a strength that is not from 0 to 1, or a graph without products.
    """
    checks.number("the smoothing strength", strength, 0, 1)
    model = onnx.load(str(source))
    names = nodes_of(product for product in chosen_products(model) if product.kind in SMOOTHED)
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    readers: dict[str, list[NodeProto]] = {}  # activation → the products that read it
    for node in model.graph.node:
        if node.name in names:
            readers.setdefault(node.input[0], []).append(node)
    largest = _channel_maxima(model, tuple(readers), some_batches(batches))
    multiplied: dict[str, NodeProto] = {}  # first reader → the node to stand before it
    for name, nodes in readers.items():
        factor = _factor(largest[name], [numpy_helper.to_array(weights[node.input[1]]) for node in nodes], strength)
        model.graph.initializer.append(numpy_helper.from_array(factor, f"{name}_factor"))
        multiplied[nodes[0].name] = helper.make_node("Mul", [name, f"{name}_factor"], [f"{name}_smooth"], f"{name}_smooth")
        for node in nodes:
            matrix = numpy_helper.to_array(weights[node.input[1]])  # (inputs, outputs)
            weights[node.input[1]].CopyFrom(numpy_helper.from_array(matrix / factor[:, None], node.input[1]))
            node.input[0] = f"{name}_smooth"
    ordered = [one for node in model.graph.node for one in (multiplied.get(node.name), node) if one is not None]
    del model.graph.node[:]
    model.graph.node.extend(ordered)
    save(model, output)


def _factor(largest: NDArray[np.float32], matrices: Sequence[NDArray[np.float32]], strength: float) -> NDArray[np.float32]:
    """(width,) what to multiply a tensor's channels by; 1 in geometric mean, so that the sizes stay what they are."""
    weights = np.maximum(np.max([np.abs(matrix).max(axis=1) for matrix in matrices], axis=0), LEAST)  # (width,)
    factor = weights ** (1 - strength) / np.maximum(largest, LEAST) ** strength
    scaled: NDArray[np.float32] = (factor / np.exp(np.log(factor).mean())).astype(np.float32)
    return scaled


def _channel_maxima(
    model: onnx.ModelProto, tensors: Sequence[str], batches: Sequence[Tensors]
) -> Mapping[str, NDArray[np.float32]]:
    """Tensor → (width,) the largest magnitude of each channel, over all tokens."""
    found: dict[str, NDArray[np.float32]] = {}
    with progress("looking for outlying channels", len(batches)) as advance:
        for seen in observe(model, tensors, batches):
            for name, values in seen.items():  # (tokens, width)
                largest = np.abs(values).max(axis=0)
                found[name] = np.maximum(found[name], largest) if name in found else largest
            advance(1)
    return found
