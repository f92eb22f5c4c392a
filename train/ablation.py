"""What each signal is worth, and what popularity costs: a run's recommender with parts of it switched off or turned up.

The weights of the signals that stay are those that validation chose for all of them together; they are not chosen anew.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from train.rankers import RunRanker

POPULARITY = (0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0)
"""How strongly popularity counts, as a share of the weight that validation chose."""


def ablations(fused: RunRanker) -> list[RunRanker]:
    """``fused without X`` for every signal X of the run, then ``X alone``."""
    return [*(fused.without(signal) for signal in fused.items), *(fused.alone(signal) for signal in fused.items)]


def operating_points(fused: RunRanker, popularity: Sequence[float] = POPULARITY) -> list[RunRanker]:
    """The recommender at several weights of popularity, each named ``popularity × its share``."""
    return [dataclasses.replace(fused, name=point_name(share), popularity=share) for share in popularity]


def point_name(popularity: float) -> str:
    """What reports call an operating point."""
    return f"popularity × {popularity:g}"
