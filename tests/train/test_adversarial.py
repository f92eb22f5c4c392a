"""Adversarial gradients against those worked out by hand, on a loss whose gradient is known."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from bertrec.errors import InvalidInput
from train.adversarial import AdversarialSettings, Adversary, adversarial_backward

HIDDEN = torch.tensor([[[3.0, 0.0], [0.0, 4.0]], [[0.0, 6.0], [100.0, 100.0]]])  # (batch, tokens, hidden)
MASK = torch.tensor([[1, 1], [1, 0]])  # the second text has one token


class Product:
    """L(h) = Σ over texts and their tokens of ⟨w, h⟩² / 2, so ∇ₕ L = ⟨w, h⟩ w and ∇_w L = Σ ⟨w, h⟩ h."""

    def __init__(self) -> None:
        self.weight = nn.Parameter(torch.tensor([1.0, 2.0]))
        self.seen: list[Tensor] = []

    def __call__(self, hidden: Tensor) -> Tensor:
        self.seen.append(hidden.detach().clone())
        return (0.5 * (hidden @ self.weight) ** 2 * MASK).sum()

    def gradient_at(self, hidden: Tensor) -> Tensor:
        return ((hidden @ self.weight.detach() * MASK)[..., None] * hidden).sum((0, 1))


def test_fgm_learns_where_the_gradient_points() -> None:
    loss_at = Product()
    first = adversarial_backward(loss_at, HIDDEN, MASK, AdversarialSettings(Adversary.FGM, epsilon=0.1))
    # ⟨w, h⟩ of the three tokens is 3, 8 and 12, so the gradients are (3, 6), (8, 16) and (12, 24).
    assert first == pytest.approx((9 + 64 + 144) / 2)
    length = (3**2 + 6**2 + 8**2 + 16**2) ** 0.5
    # Text 0 has length 5 and moves by 0.5; text 1 has length 6 and moves by 0.6; its padding stays.
    moved = HIDDEN + torch.tensor(
        [
            [[0.5 * 3 / length, 0.5 * 6 / length], [0.5 * 8 / length, 0.5 * 16 / length]],
            [[0.6 / 5**0.5, 1.2 / 5**0.5], [0.0, 0.0]],
        ]
    )
    torch.testing.assert_close(loss_at.seen[1], moved)
    expected = loss_at.gradient_at(HIDDEN) + loss_at.gradient_at(moved)
    torch.testing.assert_close(loss_at.weight.grad, expected)


def test_freelb_is_the_mean_gradient_of_projected_ascents() -> None:
    loss_at, epsilon, step_size, steps = Product(), 0.1, 0.06, 4
    torch.manual_seed(0)
    settings = AdversarialSettings(Adversary.FREELB, epsilon, steps=steps, step_size=step_size)
    adversarial_backward(loss_at, HIDDEN, MASK, settings)
    assert len(loss_at.seen) == steps
    mean = torch.stack([loss_at.gradient_at(hidden) for hidden in loss_at.seen]).mean(0)
    torch.testing.assert_close(loss_at.weight.grad, mean)
    lengths = torch.tensor([5.0, 6.0])
    delta = torch.stack(loss_at.seen) - HIDDEN  # (steps, batch, tokens, hidden)
    assert (delta[:, 1, 1] == 0).all()
    # It begins inside U(−ε‖h‖, ε‖h‖) / √N, of 4 and of 2 numbers, and never leaves the ball.
    assert (delta[0, 0].abs() <= epsilon * 5 / 2).all() and (delta[0, 1, 0].abs() <= epsilon * 6 / 2**0.5).all()
    assert delta[0].abs().max() > 0
    radii = delta.flatten(2).norm(dim=2) / lengths
    assert (radii <= epsilon + 1e-6).all()
    torch.testing.assert_close(radii[-1], torch.full((2,), epsilon))
    # One ascent by hand: along the gradient by the step size, then back onto the ball.
    products = (loss_at.seen[0] @ loss_at.weight.detach() * MASK)[..., None]
    gradient = products * loss_at.weight.detach()
    further = delta[0] + step_size * lengths[:, None, None] * gradient / gradient.flatten(1).norm(dim=1)[:, None, None]
    further *= (epsilon * lengths / further.flatten(1).norm(dim=1)).clamp_max(1.0)[:, None, None]
    torch.testing.assert_close(delta[1], further)


@pytest.mark.parametrize("method", list(Adversary))
def test_all_places_near_a_text_see_the_same_dropout(method: Adversary) -> None:
    masks: list[Tensor] = []
    weight = nn.Parameter(torch.ones(2))

    def loss_at(hidden: Tensor) -> Tensor:
        masks.append(nn.functional.dropout(torch.ones(50), 0.5))
        return (hidden @ weight).square().sum()

    adversarial_backward(loss_at, HIDDEN, MASK, AdversarialSettings(method))
    adversarial_backward(loss_at, HIDDEN, MASK, AdversarialSettings(method))
    half = len(masks) // 2
    assert all(torch.equal(one, masks[0]) for one in masks[:half])
    assert not torch.equal(masks[0], masks[half])  # and the next batch another one


def test_a_loss_that_is_flat_moves_nothing() -> None:
    weight = nn.Parameter(torch.zeros(2))
    adversarial_backward(lambda hidden: (hidden @ weight).square().sum(), HIDDEN, MASK, AdversarialSettings(Adversary.FGM))
    assert weight.grad is not None and torch.equal(weight.grad, torch.zeros(2))


def test_settings_that_cannot_be_are_refused() -> None:
    with pytest.raises(InvalidInput, match="adversarial epsilon is 0; accepted is a number above 0"):
        AdversarialSettings(Adversary.FGM, epsilon=0.0)
    with pytest.raises(InvalidInput, match="adversarial step_size is 2"):
        AdversarialSettings(Adversary.FREELB, step_size=2.0)
    with pytest.raises(InvalidInput, match="adversarial steps is 0"):
        AdversarialSettings(Adversary.FREELB, steps=0)
