"""The static student: one vector for each token and each frequent pair of tokens, summed and scaled to length 1. No attention.

In the manner of model2vec (Tulkens and van Dongen, 2024): a token's vector begins as what the teacher makes of the token alone.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from bertrec.errors import InvalidRun
from train.records import writing

SLOTS_PER_PAIR = 8
"""Slots of the hash table for each pair: of two pairs that fall into one slot the rarer is dropped, one in sixteen or so."""
MULTIPLIER = 1_000_003


class StaticEncoder(nn.Module):
    """ids, mask → interest vector, by two look-ups and a sum; in operators that export to ONNX as they are.

    tokens: (vocabulary, width). pairs: (kept pairs + 1, width); row 0 is zero, for a pair that is not kept. slots: (slots,)
    int64 row of ``pairs`` by hash; keys: (slots,) int64 code of the pair that owns a slot. projection: (width, hidden), where the
    tables are narrower than the interest vector.
    """

    slots: Tensor
    keys: Tensor

    def __init__(self, tokens: Tensor, pairs: Tensor, *, slots: Tensor, keys: Tensor, projection: Tensor | None = None) -> None:
        super().__init__()
        self.tokens = nn.Parameter(tokens)
        self.pairs = nn.Parameter(pairs)
        self.projection = None if projection is None else nn.Parameter(projection)
        self.register_buffer("slots", slots)
        self.register_buffer("keys", keys)

    @classmethod
    def begin(cls, tokens: NDArray[np.float32], kept: Sequence[tuple[int, int]]) -> StaticEncoder:
        """tokens: (vocabulary, hidden) first vectors. kept: the pairs, most frequent first."""
        vocabulary = len(tokens)
        slots, keys, rows = hash_table(kept, vocabulary)
        pairs = torch.zeros(rows + 1, tokens.shape[1])
        return cls(torch.from_numpy(tokens), pairs, slots=torch.from_numpy(slots), keys=torch.from_numpy(keys))

    @property
    def hidden(self) -> int:
        """Length of the interest vector."""
        return int((self.tokens if self.projection is None else self.projection).shape[1])

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """(batch, tokens) int64 ids and mask → (batch, hidden) float32."""
        mask = attention_mask.to(self.tokens.dtype)
        summed = weighted_sum(self.tokens[input_ids], mask)  # (batch, width)
        codes = input_ids[:, :-1] * self.tokens.shape[0] + input_ids[:, 1:]  # (batch, tokens - 1)
        slot = (codes * MULTIPLIER) % self.slots.shape[0]
        row = torch.where(self.keys[slot] == codes, self.slots[slot], torch.zeros_like(slot))
        # Row 0 is not learned: what has no pair of its own adds nothing.
        summed = summed + weighted_sum(self.pairs[row], mask[:, 1:] * (row > 0))
        if self.projection is not None:
            summed = summed @ self.projection
        return nn.functional.normalize(summed, dim=-1)

    def narrowed(self, width: int) -> StaticEncoder:
        """The same with tables of ``width`` columns and a projection: the best of that rank (Eckart and Young, 1936)."""
        both = torch.cat([self.tokens, self.pairs]).detach()
        _, basis = torch.linalg.eigh(both.T @ both)  # ascending
        projection = basis[:, -width:].T.contiguous()  # (width, hidden)
        narrow = both @ projection.T
        tokens, pairs = narrow[: len(self.tokens)], narrow[len(self.tokens) :]
        return StaticEncoder(tokens.clone(), pairs.clone(), slots=self.slots, keys=self.keys, projection=projection)

    def save(self, path: Path) -> None:
        """Write what :meth:`load` reads."""
        tensors = {name: value.detach().contiguous() for name, value in self.state_dict().items()}
        with writing(path):
            save_file(tensors, path, metadata={"multiplier": json.dumps(MULTIPLIER)})

    @classmethod
    def load(cls, path: Path) -> StaticEncoder:
        """Raises InvalidRun for a file that is not a static student's."""
        try:
            with safe_open(path, framework="pt") as file:
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # it is no dictionary
            return cls(
                tensors["tokens"],
                tensors["pairs"],
                slots=tensors["slots"],
                keys=tensors["keys"],
                projection=tensors.get("projection"),
            )
        except (SafetensorError, OSError, KeyError) as error:
            raise InvalidRun(f"{path} is not a static student ({type(error).__name__}: {error})") from None


def weighted_sum(vectors: Tensor, weights: Tensor) -> Tensor:
    """(batch, tokens, width) vectors and (batch, tokens) weights → (batch, width); as a product, which reads the vectors once."""
    return (weights[:, None, :] @ vectors)[:, 0]


def frequent_pairs(texts: Sequence[Sequence[int]], most: int) -> list[tuple[int, int]]:
    """The ``most`` frequent pairs of neighbours among token ids, those that occur twice at least; ties by the lower ids."""
    counts = Counter(pair for ids in texts for pair in zip(ids, ids[1:], strict=False))
    often = [(pair, count) for pair, count in counts.items() if count > 1]
    return [pair for pair, _ in sorted(often, key=lambda one: (-one[1], one[0]))[:most]]


def hash_table(kept: Sequence[tuple[int, int]], vocabulary: int) -> tuple[NDArray[np.int64], NDArray[np.int64], int]:
    """(slots,) row of each slot's pair, from 1, or 0; (slots,) the pair's code, or −1; and how many pairs found a slot."""
    size, rows = max(SLOTS_PER_PAIR * len(kept), 1), 0
    slots, keys = np.zeros(size, np.int64), np.full(size, -1, np.int64)
    for first, second in kept:
        code = first * vocabulary + second
        slot = code * MULTIPLIER % size
        if not slots[slot]:
            rows += 1
            slots[slot], keys[slot] = rows, code
    return slots, keys, rows
