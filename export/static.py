"""The static student as it is exported: the same sums, from tables of 8 bits a number and a hash table of 32."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from train.students.static import MULTIPLIER, StaticEncoder, weighted_sum

LEVELS = 127


class SmallStatic(nn.Module):
    """A static student with its tables in 8 bits, a scale for each row; what is looked up is scaled before it is summed."""

    tokens: Tensor
    tokens_scale: Tensor
    pairs: Tensor
    pairs_scale: Tensor
    slots: Tensor
    keys: Tensor
    projection: Tensor | None

    def __init__(self, student: StaticEncoder) -> None:
        super().__init__()
        self.vocabulary, self.hidden = len(student.tokens), student.hidden
        for name, table in (("tokens", student.tokens), ("pairs", student.pairs)):
            rows, scales = quantised_rows(table.detach())
            self.register_buffer(name, rows)
            self.register_buffer(f"{name}_scale", scales)
        # A pair's code is below the square of the vocabulary; only a large one needs 64 bits for it.
        small = self.vocabulary**2 < 2**31
        self.register_buffer("keys", student.keys.to(torch.int32) if small else student.keys)
        self.register_buffer("slots", student.slots.to(torch.int32))
        self.register_buffer("projection", None if student.projection is None else student.projection.detach())

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """(batch, tokens) int64 ids and mask → (batch, hidden) float32."""
        mask = attention_mask.to(torch.float32)
        tokens = weighted_sum(self.tokens[input_ids].to(torch.float32), self.tokens_scale[input_ids] * mask)
        codes = input_ids[:, :-1] * self.vocabulary + input_ids[:, 1:]  # (batch, tokens - 1)
        slot = (codes * MULTIPLIER) % self.slots.shape[0]
        row = self.slots[slot].to(torch.int64) * (self.keys[slot].to(torch.int64) == codes)
        weight = self.pairs_scale[row] * mask[:, 1:] * (row > 0)
        summed = tokens + weighted_sum(self.pairs[row].to(torch.float32), weight)  # (batch, width)
        if self.projection is not None:
            summed = summed @ self.projection
        return nn.functional.normalize(summed, dim=-1)


def quantised_rows(table: Tensor) -> tuple[Tensor, Tensor]:
    """(rows, width) float → the same in int8, and (rows,) float32 what one step of each row is worth."""
    scales = table.abs().amax(dim=1) / LEVELS  # (rows,)
    steps = torch.where(scales > 0, scales, torch.ones_like(scales))
    return (table / steps[:, None]).round().to(torch.int8), steps
