"""The state of torch's random numbers where a training computes: those of the CPU, and those of its GPU."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def random_states(device: torch.device) -> tuple[Tensor, ...]:
    """The state of the CPU's generator, and of the GPU's where ``device`` is one; (bytes,) uint8 each, on the CPU."""
    states = (torch.get_rng_state(),)
    return (*states, torch.cuda.get_rng_state(device)) if device.type == "cuda" else states


def set_random_states(states: Sequence[Tensor], device: torch.device) -> None:
    """Go on from :func:`random_states`; of a state that was taken on another kind of device, with the CPU's alone."""
    torch.set_rng_state(states[0])
    if device.type == "cuda" and len(states) > 1:
        torch.cuda.set_rng_state(states[1], device)
