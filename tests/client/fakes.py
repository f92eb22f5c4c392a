"""Backends without a network and a clock without waiting, for the tests of the recommender's policy."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from bertrec.answers import RankedItem, Recommendation
from bertrec.questions import Question
from client.backends import NO_HEADERS


class FakeBackend:
    """Answers item 7 to everything, or raises ``failure``; remembers what it was asked."""

    def __init__(self, engine: str = "fake", failure: Exception | None = None) -> None:
        self.engine = engine
        self.failure = failure
        self.meanwhile: Callable[[], None] = lambda: None  # what happens while a call is under way
        self.asked: list[list[str]] = []
        self.timeouts_s: list[float] = []
        self.closed = 0

    def answer(
        self, texts: Sequence[str], question: Question, *, timeout_s: float, headers: Mapping[str, str] = NO_HEADERS
    ) -> list[Any]:
        self.asked.append(list(texts))
        self.timeouts_s.append(timeout_s)
        self.meanwhile()
        if self.failure is not None:
            raise self.failure
        return [recommendation(self.engine) for _ in texts]

    def close(self) -> None:
        self.closed += 1


class ManualClock:
    """Time that passes when it is told to."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s

    def advance(self, seconds: float) -> None:
        self.now_s += seconds


def recommendation(engine: str = "fake", items: int = 1) -> Recommendation:
    return Recommendation(tuple(RankedItem("7", 1.0, "Item 7", ()) for _ in range(items)), False, engine, "0" * 12)
