"""What an encoder's graph is made of: its operators, counted, and the matrix products that can be quantised."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

import onnx
from onnx import ModelProto, NodeProto

from bertrec.errors import InvalidInput

MICROSOFT = "com.microsoft"
"""The domain of ONNX Runtime's own operators, which TensorRT does not read."""

_LAYER = re.compile(r"layer\.(\d+)/")


class ProductKind(str, Enum):
    """The places of a BERT layer where activations meet a weight matrix."""

    QKV = "qkv"  # query, key and value: one Attention where it is fused, three MatMul where it is not
    ATTENTION_OUTPUT = "attention_output"
    INTERMEDIATE = "intermediate"
    OUTPUT = "output"


_PLACES = {
    "attention/self": ProductKind.QKV,
    "attention/output/dense": ProductKind.ATTENTION_OUTPUT,
    "intermediate/dense": ProductKind.INTERMEDIATE,
    "output/dense": ProductKind.OUTPUT,
    # DistilBERT's names for the same
    "attention/q_lin": ProductKind.QKV,
    "attention/k_lin": ProductKind.QKV,
    "attention/v_lin": ProductKind.QKV,
    "attention/out_lin": ProductKind.ATTENTION_OUTPUT,
    "ffn/lin1": ProductKind.INTERMEDIATE,
    "ffn/lin2": ProductKind.OUTPUT,
}


@dataclass(frozen=True)
class Product:
    """One quantisable product of a layer. nodes: the names of its nodes. weights: numbers in its matrices."""

    layer: int
    kind: ProductKind
    nodes: tuple[str, ...]
    weights: int

    @property
    def name(self) -> str:
        """Such as ``3.output``."""
        return f"{self.layer}.{self.kind.value}"


def count_operators(path: Path) -> dict[str, int]:
    """How often each operator stands in the graph, as ``MatMul`` → 18, most frequent first; the weights are not read."""
    model = onnx.load(str(path), load_external_data=False)
    return dict(sorted(Counter(node.op_type for node in model.graph.node).items(), key=lambda pair: (-pair[1], pair[0])))


def products(model: ModelProto) -> tuple[Product, ...]:
    """The products with constant matrices, of a plain or a fused BERT, by layer and then by place."""
    constants = {tensor.name: math.prod(tensor.dims) for tensor in model.graph.initializer}
    found: dict[tuple[int, ProductKind], list[NodeProto]] = {}
    for node in model.graph.node:
        if node.op_type in ("MatMul", "Attention") and node.input[1] in constants and (place := _place(node)) is not None:
            found.setdefault(place, []).append(node)
    order = list(ProductKind)
    return tuple(
        Product(layer, kind, tuple(node.name for node in nodes), sum(constants[node.input[1]] for node in nodes))
        for (layer, kind), nodes in sorted(found.items(), key=lambda pair: (pair[0][0], order.index(pair[0][1])))
    )


def chosen_products(model: ModelProto, exclude: Collection[str] = ()) -> tuple[Product, ...]:
    """The products of a graph but those named in ``exclude``. Raises InvalidInput for unknown names, or where there are none."""
    found = products(model)
    names = [product.name for product in found]
    if not found:
        raise InvalidInput("the graph has no matrix product of a BERT layer; give an encoder written by export_plain or fuse")
    if unknown := sorted(set(exclude) - set(names)):
        raise InvalidInput(f"there is no product {unknown[0]!r} to leave out; the encoder has {', '.join(names)}")
    return tuple(product for product in found if product.name not in exclude)


def nodes_of(chosen: Iterable[Product]) -> frozenset[str]:
    """The names of all nodes of some products."""
    return frozenset(name for product in chosen for name in product.nodes)


def save(model: ModelProto, path: Path) -> None:
    """Write a model without what nothing in it uses. The same model gives the same bytes."""
    used = {name for node in model.graph.node for name in node.input}
    kept = [tensor for tensor in model.graph.initializer if tensor.name in used]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(model.SerializeToString(deterministic=True))


def _place(node: NodeProto) -> tuple[int, ProductKind] | None:
    """Layer and place by the module path that torch's exporter writes into names; a fused node has it in its output's only."""
    path = f"{node.name} {node.output[0]}"
    layer = _LAYER.search(path)
    if layer is None:
        return None
    return next(((int(layer[1]), kind) for place, kind in _PLACES.items() if place in path), None)
