"""Join two finished students into a hybrid one: with which weight, the validation texts decide."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from train.encoder import Encoder
from train.rankers import fused_ranker
from train.run import Run
from train.states import encode_tokens
from train.students.hybrid import HybridEncoder
from train.students.judge import Judge
from train.students.static import StaticEncoder

WEIGHTS = (0.15, 0.3, 0.5, 0.75, 1.0)
"""Of the static student's vector beside the other's; which one is decided by the validation texts."""


@dataclass(frozen=True)
class Joined:
    """Two students as one. ndcg: weight → NDCG@10 of the fused ranking on validation, 0 being the BERT alone."""

    network: HybridEncoder
    ndcg: dict[float, float]


def join(run: Run, judge: Judge, small: Encoder, static: StaticEncoder) -> Joined:
    """Add the static student's vectors with the weight that ranks the validation texts best; ties by the smaller one."""
    read, looked_up = (encode_tokens(network, judge.tokens, "reading validation texts") for network in (small, static))

    def ndcg(weight: float) -> float:
        summed = read + weight * looked_up
        vectors = summed / np.maximum(np.linalg.norm(summed, axis=1, keepdims=True), 1e-12)
        ranker = fused_ranker(run, lambda _: np.asarray(vectors, np.float32))
        return judge.ndcg(torch.from_numpy(ranker.scores(judge.asked)))

    found = {weight: ndcg(weight) for weight in (0.0, *WEIGHTS)}
    best = max(WEIGHTS, key=lambda weight: (found[weight], -weight))
    return Joined(HybridEncoder(small.bert, static, best), found)
