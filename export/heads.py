"""The heads as an engine."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from bertrec.tensors import HEADS
from export.encoder import trace


def export_heads(heads: nn.Module, path: Path, *, hidden: int) -> None:
    """Write heads that read interest vectors of ``hidden`` numbers in standard operators; the batch is dynamic."""
    trace(heads, (torch.eye(2, hidden),), path, spec=HEADS)
