"""Asks a running server a question whose answer is known: the bundle answers it too, on this machine."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from bertrec.bundle import Bundle
from bertrec.errors import InvalidAnswer
from client.recommender import Recommender

GOLDEN_TEXT = "a warm coat that is not bulky"
K = 10
TOLERANCE = 0.05
"""In nats. Engines in half precision, or compiled by another compiler, differ by less; another bundle by more."""


@dataclass(frozen=True)
class Probed:
    """What the server answered, and how long it took."""

    items: int
    bundle: str
    latency_ms: float


def probe(url: str, bundle: Path, *, text: str = GOLDEN_TEXT, timeout_s: float = 5.0) -> Probed:
    """Ask the server at ``url`` one text and hold its answer against the bundle's own, score by score.

    The engines are asked and not the cache: the time is excluded as if it were an item id, so each request is a new one.
    Raises InvalidAnswer where the answer is another one, Unavailable where there is none in time, InvalidBundle.
    """
    fingerprint = Bundle.open(bundle).fingerprint
    fresh = [f"probe-{time.time_ns()}"]
    started = time.monotonic()
    with Recommender(url, timeout_s=timeout_s) as server:
        here = server.recommend(text, k=K, exclude=fresh)
    latency_ms = (time.monotonic() - started) * 1e3
    if here.bundle != fingerprint:
        raise InvalidAnswer(f"{url} answers from bundle {here.bundle}; expected is {fingerprint} ({bundle})")
    with Recommender(bundle=bundle, engine=here.engine) as edge:
        there = edge.recommend(text, k=K, exclude=fresh)
    if len(here.items) != len(there.items):
        raise InvalidAnswer(f"{url} answers with {len(here.items)} items; expected are {len(there.items)}")
    for rank, (one, other) in enumerate(zip(here.items, there.items, strict=True), start=1):
        if abs(one.score - other.score) > TOLERANCE:
            raise InvalidAnswer(
                f"{url}: rank {rank} is item {one.item_id} with {one.score:.3f}; "
                f"expected is {other.item_id} with {other.score:.3f}"
            )
    return Probed(len(here.items), here.bundle, latency_ms)
