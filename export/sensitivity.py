"""Which products lose most in int8, measured one by one, and which of them to leave in float32."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto

from bertrec import checks
from bertrec.errors import InvalidInput
from bertrec.tensors import ATTENTION_MASK, INPUT_IDS, INTEREST_VECTOR
from export.calibration import Tensors, quiet_session
from export.graphs import Product, chosen_products
from export.quantise import Recipe
from train.progress import progress

TOKENS = 16
"""Texts are cut here: what a product loses hangs on its matrix, and two dozen encoders have to read all texts."""
LOSS_BUDGET = 0.006
"""The accepted 1 − mean cosine to float32, as the sum over the products that are quantised."""


@dataclass(frozen=True)
class Sensitivity:
    """What one product loses. cosine: the mean over the texts, to float32, when it alone is quantised."""

    product: Product
    cosine: float

    @property
    def loss(self) -> float:
        """1 − cosine, never below 0."""
        return max(1.0 - self.cosine, 0.0)


def layer_sensitivity(source: Path, batches: Iterable[Tensors], *, recipe: Recipe) -> tuple[Sensitivity, ...]:
    """Quantise every product alone, by layer and place, and compare the interest vectors with float32's.

    source: the encoder that is to be quantised. batches: its inputs, of some 256 texts, 32 a batch; cut at TOKENS tokens.
    recipe: how it is to be quantised. Raises InvalidInput without batches, and for a graph without products.
    """
    texts = [{name: batch[name][:, :TOKENS] for name in (INPUT_IDS.name, ATTENTION_MASK.name)} for batch in batches]
    if not texts:
        raise InvalidInput("there are no texts to measure sensitivity on; give the token ids of some 256 training texts")
    model = onnx.load(str(source))
    found = chosen_products(model)
    reference = _vectors(model, texts)
    measured = []
    with progress("quantising one product after another", len(found)) as advance:
        for product in found:
            alone = ModelProto()
            alone.CopyFrom(model)
            vectors = _vectors(recipe.quantise(alone, product.nodes), texts)  # (texts, hidden), of length 1
            measured.append(Sensitivity(product, float(np.einsum("td,td->t", vectors, reference).mean())))
            advance(1)
    return tuple(measured)


def choose_skipped(measured: Sequence[Sensitivity], *, budget: float = LOSS_BUDGET) -> tuple[str, ...]:
    """The products to leave in float32, so that the losses of the others add up to no more than ``budget``.

    Taken first is what loses most for its size, since what stays in float32 costs file size and time. The names come in the
    order of the layers, as ``exclude`` takes them. Raises InvalidInput for a budget that is not from 0 to 1.
    """
    checks.number("the loss budget", budget, 0, 1)
    by_cost = sorted(measured, key=lambda one: (-one.loss / one.product.weights, one.product.name))
    left = sum(one.loss for one in measured)
    skipped = set()
    for one in by_cost:
        if left <= budget:
            break
        skipped.add(one.product.name)
        left -= one.loss
    return tuple(one.product.name for one in measured if one.product.name in skipped)


def _vectors(model: ModelProto, batches: Sequence[Tensors]) -> NDArray[np.float32]:
    """(texts, hidden) interest vectors."""
    session = quiet_session(model)
    return np.concatenate([session.run([INTEREST_VECTOR.name], dict(batch))[0] for batch in batches])
