"""Students that are BERTs: with fewer layers, or with fewer attention heads and feed-forward units in each."""

from __future__ import annotations

import copy
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from bertrec.errors import InvalidInput
from train.encoder import Encoder


def keep_layers(teacher: Encoder, layers: int) -> Encoder:
    """The teacher with so many of its layers, evenly spread and the first among them (DistilBERT, Sanh et al., 2019).

    Raises InvalidInput where the teacher has no more.
    """
    if layers >= teacher.layers:
        raise InvalidInput(f"layers-{layers} asks for {layers} layers and the run's encoder has {teacher.layers}; ask for fewer")
    kept = [round(layer) for layer in torch.linspace(0, teacher.layers - 1, layers).tolist()]
    bert = copy.deepcopy(teacher.bert)
    bert.encoder.layer = nn.ModuleList([bert.encoder.layer[layer] for layer in kept])
    bert.config.num_hidden_layers = layers
    return Encoder(bert)


def prune(teacher: Encoder, percent: int, losses: Iterable[Tensor]) -> Encoder:
    """The teacher without the least important ``percent`` of heads and feed-forward units, as many of every layer.

    losses: of some batches, each computed through ``teacher`` when it is drawn. Importance is |∂loss/∂mask| of a mask of ones on
    a head's or a unit's output (Michel et al., 2019; Molchanov et al., 2017): its output passes one weight matrix, so that is the
    sum of weight · gradient over its columns, summed in absolute value over the batches.
    """
    size = int(teacher.bert.config.hidden_size) // teacher.heads
    heads = torch.zeros(teacher.layers, teacher.heads)
    units = torch.zeros(teacher.layers, int(teacher.bert.config.intermediate_size))
    teacher.requires_grad_(True).eval()
    for loss in losses:
        teacher.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]  # torch's own
        for layer, block in enumerate(teacher.bert.encoder.layer):
            heads[layer] += _sensitivity(block.attention.output.dense).reshape(-1, size).sum(1).abs()
            units[layer] += _sensitivity(block.output.dense).abs()
    teacher.zero_grad(set_to_none=True)
    return _pruned(teacher, _kept(heads, percent), _kept(units, percent))


def _sensitivity(dense: nn.Linear) -> Tensor:
    """(inputs,) weight · gradient, summed over the outputs."""
    assert dense.weight.grad is not None
    return (dense.weight.detach() * dense.weight.grad).sum(0)


def _kept(importance: Tensor, percent: int) -> list[list[int]]:
    """The most important of each row, at least one, in their order."""
    count = max(1, round(importance.shape[1] * (100 - percent) / 100))
    return [sorted(row.topk(count).indices.tolist()) for row in importance]


def _pruned(teacher: Encoder, heads: list[list[int]], units: list[list[int]]) -> Encoder:
    bert = copy.deepcopy(teacher.bert)
    for layer, (kept_heads, kept_units) in enumerate(zip(heads, units, strict=True)):
        block = bert.encoder.layer[layer]
        gone = set(range(teacher.heads)) - set(kept_heads)
        block.attention.prune_heads(gone)
        bert.config.pruned_heads[layer] = sorted(gone)  # so that from_pretrained makes layers of this shape
        rows = torch.tensor(kept_units)
        block.intermediate.dense = _linear(block.intermediate.dense.weight[rows], block.intermediate.dense.bias[rows])
        block.output.dense = _linear(block.output.dense.weight[:, rows], block.output.dense.bias)
    bert.config.intermediate_size = len(units[0])
    return Encoder(bert)


def _linear(weight: Tensor, bias: Tensor) -> nn.Linear:
    layer = nn.Linear(weight.shape[1], weight.shape[0])
    layer.weight = nn.Parameter(weight.detach().clone())
    layer.bias = nn.Parameter(bias.detach().clone())
    return layer
