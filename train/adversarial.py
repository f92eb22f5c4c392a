"""Adversarial training: texts are moved a little to where the loss grows, and learned there as well.

What is moved are the hidden states that the trained layers receive. Where all layers are trained these are the embeddings, as in
the papers; where lower layers are frozen, their states are computed once and are all that training can move. A text is
moved by a share of its own length, so that epsilon means the same for a long text and a short one, and below any layer.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

import torch
from torch import Tensor

from bertrec.errors import InvalidInput
from train.randomness import random_states, set_random_states

LossAt = Callable[[Tensor], Tensor]
"""(batch, tokens, hidden) states → the loss of the batch."""


EPSILON = 0.02
"""On 32 clothing reviews the worst place so near had a loss of 5.4 to 5.5 instead of 4.7, and a random one 4.7; at 0.05, 6.1 to
6.6."""


class Adversary(str, Enum):
    """How the worst place near a text is looked for."""

    FGM = "fgm"
    FREELB = "freelb"


@dataclass(frozen=True)
class AdversarialSettings:
    """epsilon: how far a text is moved, as a share of the Euclidean length of all its states. Raises InvalidInput.

    steps, step_size: FreeLB's ascents, and how far each goes, in the unit of epsilon; FGM goes all the way at once.
    """

    method: Adversary
    epsilon: float = EPSILON
    steps: int = 3
    step_size: float = EPSILON / 2  # so that three ascents reach the edge

    def __post_init__(self) -> None:
        for name in ("epsilon", "step_size"):
            if not 0.0 < getattr(self, name) <= 1.0:
                raise InvalidInput(f"adversarial {name} is {getattr(self, name):g}; accepted is a number above 0 and up to 1")
        if self.steps < 1:
            raise InvalidInput(f"adversarial steps is {self.steps}; accepted is 1 or more")


def adversarial_backward(loss_at: LossAt, hidden: Tensor, mask: Tensor, settings: AdversarialSettings) -> float:
    """Add the gradients of the adversarial loss to the parameters; returns that of the first place looked at.

    hidden: (batch, tokens, hidden) states, which are constants. mask: (batch, tokens), 0 for padding, which is never moved. All
    evaluations of the loss see the same dropout, as FreeLB's authors advise. Gradients must have been set to zero before.
    """
    moved = _fgm if settings.method is Adversary.FGM else _freelb
    return moved(_SameDropout(loss_at), hidden.detach(), mask.unsqueeze(-1).to(hidden.dtype), settings)


def _fgm(loss_at: LossAt, hidden: Tensor, mask: Tensor, settings: AdversarialSettings) -> float:
    """L(h) + L(h + ε ‖h‖ g / ‖g‖), g = ∇ₕ L(h) (Miyato et al., 2017, https://arxiv.org/abs/1605.07725)."""
    start = hidden.clone().requires_grad_()
    loss = loss_at(start)
    loss.backward()  # type: ignore[no-untyped-call]  # torch's own
    radius = settings.epsilon * _length(hidden * mask)
    loss_at(hidden + radius * _direction(start, mask)).backward()  # type: ignore[no-untyped-call]
    return float(loss.detach())


def _freelb(loss_at: LossAt, hidden: Tensor, mask: Tensor, settings: AdversarialSettings) -> float:
    """The mean gradient on the way of K ascents, each projected into the ball (Zhu et al., 2020, arXiv:1909.11764, algorithm 1).

    It begins at a place of U(−ε ‖h‖, ε ‖h‖) / √(tokens · hidden), drawn from torch's random numbers.
    """
    size = _length(hidden * mask)  # (batch, 1, 1)
    radius, stride = settings.epsilon * size, settings.step_size * size
    numbers = mask.sum((1, 2), keepdim=True) * hidden.shape[2]
    delta = (2.0 * torch.rand_like(hidden) - 1.0) * mask * radius / numbers.sqrt()
    first = 0.0
    for step in range(settings.steps):
        delta.requires_grad_()
        loss = loss_at(hidden + delta) / settings.steps
        loss.backward()  # type: ignore[no-untyped-call]
        first = first if step else settings.steps * float(loss.detach())
        with torch.no_grad():
            further = delta + stride * _direction(delta, mask)
            delta = (further * (radius / _length(further).clamp_min(1e-12)).clamp_max(1.0)).detach()
    return first


class _SameDropout:
    """The loss with torch's random numbers as they were at the first call; they go on from there."""

    def __init__(self, loss_at: LossAt) -> None:
        self._loss_at = loss_at
        self._states: tuple[Tensor, ...] = ()

    def __call__(self, hidden: Tensor) -> Tensor:
        if self._states:
            set_random_states(self._states, hidden.device)
        else:
            self._states = random_states(hidden.device)
        return self._loss_at(hidden)


def _direction(moved: Tensor, mask: Tensor) -> Tensor:
    """(batch, tokens, hidden): each text's gradient, of length 1; zeros where it has none."""
    assert moved.grad is not None
    gradient = moved.grad * mask
    return gradient / _length(gradient).clamp_min(1e-30)


def _length(states: Tensor) -> Tensor:
    """(batch, tokens, hidden) → (batch, 1, 1), the Euclidean length of all states of a text together."""
    length: Tensor = torch.linalg.vector_norm(states, dim=(1, 2), keepdim=True)
    return length
