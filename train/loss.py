"""The loss of every stage: a softmax over the catalogue, or over a sample of it where the whole does not fit."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from train.items import ItemSide
from train.settings import FitSettings

MATRYOSHKA_WEIGHT = 0.2
"""Of each shorter vector beside the whole one, which is what is served; Kusupati et al. weigh all alike."""


class CatalogueLoss:
    """Cross-entropy of the right item; of a large catalogue, InfoNCE over negatives (van den Oord et al., 2018).

    The negatives of a step are shared by its batch: half are drawn at random, half are hard ones, those that scored highest
    beside the right items of earlier steps. An item is never its own negative, whatever its label's other texts in the batch.
    With Matryoshka sizes (Kusupati et al., 2022) the first so many dimensions must rank on their own as well.
    """

    def __init__(self, side: ItemSide, settings: FitSettings) -> None:
        self._side = side
        self._sizes = tuple(size for size in settings.matryoshka if size < side.vectors.shape[1])
        self._sampled = len(side.vectors) > settings.full_softmax_items
        self._negatives = settings.negatives
        self._random = torch.Generator().manual_seed(settings.seed)
        self._hard = torch.zeros(0, dtype=torch.int64)

    def __call__(self, user: Tensor, items: Tensor, *, weights: Tensor | None = None) -> Tensor:
        """(batch, width) user sides and (batch,) right items → the mean loss, in which rows count by (batch,) ``weights``."""
        vectors, prior, labels = self._candidates(user, items)
        losses = [_cross_entropy(user @ vectors.T + prior, labels, weights)]
        for size in self._sizes:
            prefix = nn.functional.normalize(user[:, :size], dim=-1)
            losses.append(_cross_entropy(prefix @ vectors[:, :size].T + prior, labels, weights))
        return losses[0] + MATRYOSHKA_WEIGHT * torch.stack(losses[1:]).sum() if self._sizes else losses[0]

    def _candidates(self, user: Tensor, items: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Candidate vectors, what is added to their scores, (candidates,) or (batch, candidates), and the right ones' places."""
        side = self._side
        prior = side.prior_weight * side.log_prior
        if not self._sampled:
            return side.vectors, prior, items
        device = side.vectors.device
        drawn = torch.randint(len(side.vectors), (self._negatives // 2,), generator=self._random).to(device)
        right, labels = torch.unique(items, return_inverse=True)
        pool = torch.unique(torch.cat([drawn, self._hard.to(device)]))
        pool = pool[~torch.isin(pool, right)]
        candidates = torch.cat([right, pool])
        vectors = side.vectors[candidates]
        self._remember(candidates, len(right), user @ vectors.T)
        # The other rows' right items come as often as they are popular; without them the negatives are a fair sample.
        others = torch.zeros(len(items), len(candidates), device=device)
        others[:, : len(right)] = -torch.inf
        others[torch.arange(len(items), device=device), labels] = 0.0
        return vectors, prior[candidates] + others, labels

    @torch.no_grad()
    def _remember(self, candidates: Tensor, right: int, scores: Tensor) -> None:
        """Keep the negatives that scored highest; the newest push out the oldest."""
        if scores.shape[1] > right:
            best = candidates[right + scores[:, right:].argmax(dim=1)]
            self._hard = torch.cat([self._hard.to(best.device), best])[-(self._negatives // 2) :]


def _cross_entropy(logits: Tensor, labels: Tensor, weights: Tensor | None) -> Tensor:
    if weights is None:
        return nn.functional.cross_entropy(logits, labels)
    losses = nn.functional.cross_entropy(logits, labels, reduction="none")  # (batch,)
    return (weights * losses).sum() / weights.sum()
