"""A bottleneck adapter as further units of a feed-forward network, so that it is merged by making the network wider."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D


class Widening(nn.Module):
    """A product and further units beside its own: (…, hidden) → (…, units + bottleneck)."""

    def __init__(self, base: nn.Module, bottleneck: int) -> None:
        super().__init__()
        self.base = base
        self.extra = nn.Linear(weight_of(base).shape[1], bottleneck)
        nn.init.normal_(self.extra.weight, std=0.02)
        nn.init.zeros_(self.extra.bias)

    def forward(self, hidden: Tensor) -> Tensor:
        """(…, hidden) → (…, units + bottleneck)."""
        return torch.cat([self.base(hidden), self.extra(hidden)], dim=-1)

    def merged(self) -> nn.Module:
        """One product of the kind of the base."""
        weight = torch.cat([weight_of(self.base), self.extra.weight])  # (units + bottleneck, hidden)
        return _like(self.base, weight, torch.cat([_bias_of(self.base), self.extra.bias]))


class Narrowing(nn.Module):
    """A product and one for the further units: (…, units + bottleneck) → (…, hidden). It begins as the product alone."""

    def __init__(self, base: nn.Module, bottleneck: int) -> None:
        super().__init__()
        self.base = base
        self.units = weight_of(base).shape[1]
        self.extra = nn.Linear(bottleneck, weight_of(base).shape[0])
        nn.init.zeros_(self.extra.weight)
        nn.init.zeros_(self.extra.bias)

    def forward(self, units: Tensor) -> Tensor:
        """(…, units + bottleneck) → (…, hidden)."""
        summed: Tensor = self.base(units[..., : self.units]) + self.extra(units[..., self.units :])
        return summed

    def merged(self) -> nn.Module:
        """One product of the kind of the base."""
        weight = torch.cat([weight_of(self.base), self.extra.weight], dim=1)  # (hidden, units + bottleneck)
        return _like(self.base, weight, _bias_of(self.base) + self.extra.bias)


def weight_of(product: nn.Module) -> Tensor:
    """(out, in), also of GPT-2's products, which keep theirs transposed."""
    weight: Tensor = product.weight  # type: ignore[assignment]  # a parameter
    return weight.T if isinstance(product, Conv1D) else weight


def _bias_of(product: nn.Module) -> Tensor:
    bias: Tensor = product.bias  # type: ignore[assignment]  # a parameter
    return bias


def _like(base: nn.Module, weight: Tensor, bias: Tensor) -> nn.Module:
    out, width = weight.shape
    made = Conv1D(out, width) if isinstance(base, Conv1D) else nn.Linear(width, out)
    made.weight = nn.Parameter((weight.T if isinstance(base, Conv1D) else weight).detach().clone().contiguous())
    made.bias = nn.Parameter(bias.detach().clone())
    return made
