"""Rising rates of requests: up to which the objective is kept.

The 99th percentile of a few requests is their slowest, and a single hiccup breaks it. So a rate that breaks the objective is
measured once more, with requests at the same times, and the second measurement counts.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Row = Mapping[str, Any]
ATTEMPTS = (1, 2)


@dataclass(frozen=True)
class Kept:
    """Where the objective breaks. rate: the greatest that kept it. broke: the least that did not. None: there is none."""

    rate: float | None
    broke: float | None


async def climb(rates: Sequence[float], measure: Callable[[float, int], Awaitable[bool]]) -> int:
    """How many of the rising rates kept the objective; after the first that broke it in each attempt no other is tried.

    measure: whether a rate keeps it, at an attempt.
    """
    for done, rate in enumerate(rates):
        for attempt in ATTEMPTS:
            if await measure(rate, attempt):
                break
        else:
            return done
    return len(rates)


def counted(rows: Sequence[Row]) -> list[Row]:
    """Of the open loops, the last measurement of each server, protocol and rate."""
    return list({(row["server"], row["protocol"], row["rate"]): row for row in rows if row["loop"] == "open"}.values())


def kept_rates(rows: Sequence[Row]) -> dict[tuple[str, str], Kept]:
    """(server, protocol) → what its open loops found."""
    routes: dict[tuple[str, str], list[Row]] = {}
    for row in counted(rows):
        routes.setdefault((row["server"], row["protocol"]), []).append(row)
    return {
        route: Kept(
            max((row["rate"] for row in mine if row["objective_met"]), default=None),
            min((row["rate"] for row in mine if not row["objective_met"]), default=None),
        )
        for route, mine in routes.items()
    }


def told(kept: Kept) -> str:
    """In words, after *kept up to*: no bound where no rate that was tried broke the objective."""
    if kept.rate is None:
        return f"not even {kept.broke:g} requests/s"
    rate = f"{kept.rate:g} requests/s"
    return rate if kept.broke is not None else f"at least {rate}, the greatest rate tried"
