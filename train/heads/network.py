"""The heads as one network: interest vector → the probabilities of all heads, one after another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn


class Heads(nn.Module):
    """(batch, hidden) float32 → (batch, labels) float32: each head's softmax over its own columns."""

    def __init__(self, heads: Sequence[nn.Sequential]) -> None:
        super().__init__()
        self.heads = nn.ModuleList(heads)

    def forward(self, interest_vector: Tensor) -> Tensor:
        """(batch, hidden) → (batch, labels), the heads' columns in the order of labels.json."""
        return torch.cat([torch.softmax(head(interest_vector), dim=-1) for head in self.heads], dim=-1)

    @classmethod
    def of_weights(cls, weights: Mapping[str, Tensor]) -> Heads:
        """The network whose state_dict this is. Raises KeyError or RuntimeError where it is another's."""
        count = len({name.split(".")[1] for name in weights})
        heads = []
        for head in range(count):
            first = weights[f"heads.{head}.0.weight"]
            last = weights.get(f"heads.{head}.3.weight")
            if last is None:
                heads.append(layers(first.shape[1], len(first)))
            else:
                heads.append(layers(first.shape[1], len(last), units=len(first)))
        network = cls(heads)
        network.load_state_dict(dict(weights))
        return network.eval()


def layers(hidden: int, labels: int, *, units: int = 0, dropout: float = 0.0) -> nn.Sequential:
    """(batch, hidden) → (batch, labels) logits: one layer, or two with ``units`` between them."""
    if not units:
        return nn.Sequential(nn.Linear(hidden, labels))
    return nn.Sequential(nn.Linear(hidden, units), nn.GELU(), nn.Dropout(dropout), nn.Linear(units, labels))
