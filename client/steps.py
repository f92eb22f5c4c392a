"""The steps that a plan is made of, and what it knows of the call under way."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from typing import Any

from bertrec.questions import Question

from .answer import ServedBy
from .endpoints import Asked, Endpoint


@dataclass(frozen=True)
class Ask:
    """Step: ask, and give the answers. ``endpoint`` None is the edge."""

    endpoint: Endpoint | None
    texts: Sequence[str]
    timeout_s: float


@dataclass(frozen=True)
class Start:
    """Step: begin to ask, and give a future at once."""

    ask: Ask


@dataclass(frozen=True)
class Wait:
    """Step: wait until one of the futures is done, at most ``timeout_s``; give the set of those that are."""

    futures: tuple[Any, ...]
    timeout_s: float | None


@dataclass(frozen=True)
class Pause:
    """Step: let time pass."""

    seconds: float


Step = Ask | Start | Wait | Pause


@dataclass(frozen=True)
class Answered:
    """What came of a call, and why from whom."""

    found: list[Any]
    served_by: ServedBy
    fallback_reason: str | None = None


@dataclass
class Call:
    """One call under way.

    started: by the recommender's clock. left_to_edge_s: so long before the deadline the edge begins, if no server has answered;
    0 where there is no fallback. stages_ms: see :class:`client.Answer`.
    """

    texts: Sequence[str]
    question: Question
    timeout_s: float
    started: float
    left_to_edge_s: float = 0.0
    asked: Asked = field(default_factory=Asked)
    attempts: int = 0
    stages_ms: dict[str, float] = field(default_factory=dict)

    @property
    def deadline(self) -> float:
        """By the recommender's clock."""
        return self.started + self.timeout_s

    @property
    def edge_at(self) -> float:
        """When the edge begins at the latest, by the recommender's clock."""
        return self.deadline - self.left_to_edge_s


@dataclass(frozen=True)
class Won:
    """Who answered, and what."""

    ask: Ask
    found: list[Any]


Work = Generator[Step, Any, Won]
"""Steps that end with an answer, or raise."""


class Stages:
    """Where a call's time goes: adds what passes to one stage after the other. A context manager for one alone."""

    def __init__(self, call: Call, name: str, clock: Callable[[], float]) -> None:
        """From now on ``name`` is under way."""
        self._call, self._name, self._clock = call, name, clock
        self._since = clock()

    def next(self, name: str) -> None:
        """The stage under way ends, and ``name`` begins."""
        now = self._clock()
        stages = self._call.stages_ms
        stages[self._name] = stages.get(self._name, 0.0) + 1e3 * (now - self._since)
        self._name, self._since = name, now

    def end(self) -> None:
        """The last stage ends."""
        self.next(self._name)

    def __enter__(self) -> None:
        """Nothing to do: it is under way."""

    def __exit__(self, *_: object) -> None:
        self.end()
