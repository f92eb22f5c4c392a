"""What a recommender returns: the recommendation, and who made it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

import numpy as np
from numpy.typing import NDArray

from bertrec.answers import RankedItem
from bertrec.questions import Classification, Matches
from bertrec.spelling import Correction


class ServedBy(str, Enum):
    """Who computed an answer."""

    TRITON = "triton"
    EDGE = "edge"

    def __str__(self) -> str:
        return self.value


@dataclass(frozen=True, kw_only=True)
class Served:
    """Who computed an answer, and how long it took.

    served_by: the Triton server, or the edge: this process.
    latency_ms: duration of the whole call; all answers to one list carry the list's.
    stages_ms: where that time went: ``server`` (waiting for servers: network, their queue and computing), ``pause`` (before
    retries), ``edge`` (this process computing). What the client itself does is the rest.
    attempts: requests to servers, retries and hedges among them. request_id: what the requests carried.
    fallback_reason: why the fallback answered instead of the server; None where it did not have to.
    """

    served_by: ServedBy
    latency_ms: float
    fallback_reason: str | None = None
    stages_ms: Mapping[str, float] = field(default_factory=dict)
    attempts: int = 0
    request_id: str = ""

    @property
    def degraded(self) -> bool:
        """Whether the fallback answered instead of the server."""
        return self.fallback_reason is not None


@dataclass(frozen=True)
class Answer(Served):
    """The items for one text, best first, and who ranked them.

    truncated: the text was longer than the encoder reads; the rest was not seen by it.
    engine: the encoder engine that read the text, such as ``fp32``.
    bundle: fingerprint of the bundle that answered.
    rules: names of the rules that fired. corrections: the words of the text that were read as others.
    confident: whether the first item can be relied on, see :class:`bertrec.answers.Recommendation`; None where nobody knows.
    """

    items: tuple[RankedItem, ...]
    truncated: bool
    engine: str
    bundle: str
    rules: tuple[str, ...] = ()
    corrections: tuple[Correction, ...] = ()
    confident: bool | None = None


@dataclass(frozen=True)
class Matched(Served, Matches):
    """How well each item that was asked about fits one text, in the order asked, and who said so."""


@dataclass(frozen=True)
class Classified(Served, Classification):
    """What one text is, and who said so."""


@dataclass(frozen=True, eq=False)  # arrays have no one truth value to compare by
class Embedded(Served):
    """One text's interest vector, (hidden,) float32 of length 1, and who computed it."""

    vector: NDArray[np.float32]
