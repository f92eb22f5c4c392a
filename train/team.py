"""Several processes that train one recommender: each learns from its share of a batch, and all take the same step.

``torchrun`` starts them and says by environment variables who is who; they talk by torch.distributed, over gloo on CPUs and NCCL
between GPUs. Process 0 leads: it alone writes files, shows progress, ranks validation texts and decides what depends on the
clock. The others hear from it.

Gradients are summed, each share weighted by its part of the batch, so that a step is the step of one process with the whole batch
(data-parallel SGD; Goyal et al., 2017, https://arxiv.org/abs/1706.02677). Why not torch's DistributedDataParallel or accelerate:
docs/processes.md.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor

PATIENCE = timedelta(hours=24)
"""How long the others wait for the leader, which fits the other signals meanwhile; a process that died is noticed at once."""
_CHUNK = 2**24
"""Numbers that are joined at once, so that joining takes little memory besides."""


@dataclass(frozen=True)
class Team:
    """One process of several. rank: its number, the leader's being 0; size: how many there are."""

    rank: int = 0
    size: int = 1

    @property
    def leads(self) -> bool:
        """Whether this process writes, shows and decides."""
        return self.rank == 0

    def share_of(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """The rows of this process: every ``size``-th, so that texts sorted by length are alike in every share."""
        return rows[self.rank :: self.size]

    def wait(self) -> None:
        """Until all processes are here."""
        if self.size > 1:
            self.total(0.0)

    def agree(self, value: float) -> float:
        """The leader's value, in all processes."""
        if self.size == 1:
            return value
        told = torch.tensor([value], dtype=torch.float64)
        dist.broadcast(told, 0)
        return float(told)

    def total(self, value: float) -> float:
        """The sum of all processes' values."""
        if self.size == 1:
            return value
        summed = torch.tensor([value], dtype=torch.float64)
        dist.all_reduce(summed)
        return float(summed)

    @torch.no_grad()
    def tell(self, tensors: Iterable[Tensor]) -> None:
        """Give all processes the leader's values of tensors that they have in the same shapes and order."""
        for tensor in tensors if self.size > 1 else ():
            values = tensor.detach().contiguous()
            dist.broadcast(values, 0)
            tensor.copy_(values)

    def gather(self, tensor: Tensor) -> list[Tensor]:
        """Every process's tensor of the same shape, in their order."""
        if self.size == 1:
            return [tensor]
        found = [torch.empty_like(tensor) for _ in range(self.size)]
        dist.all_gather(found, tensor)
        return found

    def join(self, array: NDArray[Any]) -> None:
        """Fill an array in all processes, in place: each has filled its share, and left the rest zero."""
        if self.size == 1:
            return
        flat = torch.from_numpy(array.reshape(-1))
        for start in range(0, len(flat), _CHUNK):
            dist.all_reduce(flat[start : start + _CHUNK])

    @torch.no_grad()
    def sum_gradients(self, parameters: Sequence[Tensor]) -> None:
        """Replace every parameter's gradient by the sum of all processes'; one that has none counts as zero."""
        if self.size == 1:
            return
        gradients = [torch.zeros_like(one) if one.grad is None else one.grad for one in parameters]
        summed = torch.cat([gradient.reshape(-1) for gradient in gradients])
        dist.all_reduce(summed)
        parts = torch.split(summed, [gradient.numel() for gradient in gradients])
        for parameter, part in zip(parameters, parts, strict=True):
            parameter.grad = part.view_as(parameter)


ALONE = Team()


@contextmanager
def team_of_torchrun() -> Iterator[Team]:
    """The processes that torchrun started, or this one alone; they part when the block ends."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield ALONE
        return
    dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo", timeout=PATIENCE)
    try:
        yield Team(dist.get_rank(), dist.get_world_size())
    finally:
        dist.destroy_process_group()


def training_device() -> torch.device:
    """The GPU of this process's number on its machine, if it has one; else the CPU."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())
