"""The matcher as engines: exported, fused, quantised."""

from __future__ import annotations

from pathlib import Path

import torch

from bertrec.tensors import MATCHER
from export.encoder import example_tokens, trace
from train.matcher import Matcher


def export_matcher(matcher: Matcher, path: Path) -> None:
    """Write a matcher, loaded with eager attention, in standard operators; batch and tokens are dynamic."""
    input_ids, mask = example_tokens()
    types = torch.zeros_like(mask)
    types[:, 4:] = mask[:, 4:]
    trace(matcher, (input_ids, mask, types), path, spec=MATCHER)
