"""One step against the gradient: of one process or of several, with a scaled loss where half precision needs it."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from train.precision import Precision, loss_scaler
from train.team import ALONE, Team

CLIP_NORM = 1.0


@dataclass(frozen=True)
class Descent:
    """How gradients become a step. team: whose gradients are summed. scaler: of the loss, for fp16; it does nothing otherwise."""

    team: Team = ALONE
    scaler: torch.amp.GradScaler = field(default_factory=lambda: loss_scaler(Precision.FP32))


PLAIN = Descent()


def step_down(optimiser: torch.optim.Optimizer, loss: Tensor, descent: Descent = PLAIN) -> float:
    """One step against the gradient, whose norm is bounded; returns the loss."""
    optimiser.zero_grad()
    if loss.requires_grad:  # not that of a share without texts
        descent.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]  # torch's own
    move(optimiser, descent)
    return float(loss.detach())


def move(optimiser: torch.optim.Optimizer, descent: Descent = PLAIN) -> None:
    """Move the parameters against the gradients that they have, summed over the team, whose norm is bounded."""
    parameters = [parameter for group in optimiser.param_groups for parameter in group["params"]]
    descent.team.sum_gradients(parameters)
    descent.scaler.unscale_(optimiser)
    nn.utils.clip_grad_norm_(parameters, CLIP_NORM)
    descent.scaler.step(optimiser)
    descent.scaler.update()
