"""A percentile as it is shown: only of as many samples as it takes for one of them to lie beyond it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

NOT_SHOWN = "–"
"""Stands for a percentile that too few samples carry, and for one that was not measured."""
ROUNDING = 1e-6


def carries(samples: int, percent: float) -> bool:
    """Whether so many samples carry a percentile: a p95 20, a p99 100, a p99.9 1,000; a median any."""
    return samples > 0 and (percent <= 50 or samples * (100 - percent) >= 100 - ROUNDING)


def shown(value: float | None, percent: float, samples: int, form: str = ".2f") -> str:
    """A percentile of ``samples`` samples as a cell of a table, a dash where they do not carry it or there is no value."""
    return f"{value:{form}}" if value is not None and carries(samples, percent) else NOT_SHOWN


def cells_ms(seconds: Sequence[float], percents: Iterable[float], form: str = ".2f") -> list[str]:
    """The percentiles of latencies, in milliseconds, as cells."""
    return [shown(1e3 * float(np.percentile(seconds, one)), one, len(seconds), form) for one in percents]
