"""What a recommender returns: the recommendation, and who made it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from bertrec.answers import RankedItem
from bertrec.spelling import Correction


class ServedBy(str, Enum):
    """Who computed an answer."""

    TRITON = "triton"
    EDGE = "edge"

    def __str__(self) -> str:
        return self.value


@dataclass(frozen=True)
class Answer:
    """The items for one text, best first, and who ranked them.

    truncated: the text was longer than the encoder reads; the rest was not seen by it.
    engine: the encoder engine that read the text, such as ``fp32``.
    bundle: fingerprint of the bundle that answered.
    rules: names of the rules that fired. corrections: the words of the text that were read as others.
    served_by: the Triton server, or the edge: this process.
    latency_ms: duration of the whole call; all answers to one list carry the list's.
    stages_ms: where that time went: ``server`` (waiting for servers: network, their queue and computing), ``pause`` (before
    retries), ``edge`` (this process computing). What the client itself does is the rest.
    attempts: requests to servers, retries and hedges among them. request_id: what the requests carried.
    fallback_reason: why the fallback answered instead of the server; None where it did not have to.
    """

    items: tuple[RankedItem, ...]
    truncated: bool
    engine: str
    bundle: str
    served_by: ServedBy
    latency_ms: float
    fallback_reason: str | None = None
    rules: tuple[str, ...] = ()
    corrections: tuple[Correction, ...] = ()
    stages_ms: Mapping[str, float] = field(default_factory=dict)
    attempts: int = 0
    request_id: str = ""

    @property
    def degraded(self) -> bool:
        """Whether the fallback answered instead of the server."""
        return self.fallback_reason is not None
