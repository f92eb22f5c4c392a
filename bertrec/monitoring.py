"""Watch a stream of classified texts, and raise an alert for a topic that is suddenly spoken of badly.

For each topic the last ``window`` texts are held against those before them. If nothing has changed, which of all these texts
are negative is a matter of chance, so the number of negative ones in the window is hypergeometric (Fisher's exact test,
one-sided; with a long past it is the binomial tail). The past may be short: the test counts how little it tells.

The stream is looked at again and again, so each look is held to a stricter level. A topic has period / look_every looks in a
period of ``period`` texts, each at alpha · look_every / period: in any period a topic whose share has not changed raises alpha
false alerts at most on average (the union bound, which holds although windows overlap, and does not wear off as the stream goes
on). Windows that overlap see much the same, so the true rate is lower; tests/bertrec/test_monitoring.py measures it.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np

from bertrec.errors import InvalidInput

LOOKS_PER_WINDOW = 10
"""How often a window is tested while it slides over its own length: seldom enough to stay sensitive, often enough to be quick."""


@dataclass(frozen=True)
class Count:
    """How many texts there were, and how many of them were negative."""

    negative: int = 0
    texts: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.negative <= self.texts:
            raise InvalidInput(f"{self.negative} of {self.texts} texts are negative; accepted are 0 to all of them")

    @property
    def share(self) -> float:
        """Of the texts, the share that is negative; 0 of none."""
        return self.negative / self.texts if self.texts else 0.0


@dataclass(frozen=True)
class Alert:
    """A topic whose negative share has jumped.

    position: texts of the topic seen so far. window, before: what was compared. probability: of so many negative texts in the
    window by chance. level: what it had to fall to.
    """

    topic: str
    position: int
    window: Count
    before: Count
    probability: float
    level: float

    @property
    def sentence(self) -> str:
        """The alert in words."""
        rarity = 1 / max(self.probability, 1e-300)
        return (
            f"{self.topic}: {self.window.negative} of the last {self.window.texts} texts are negative ({self.window.share:.0%}; "
            f"before: {self.before.share:.0%} of {self.before.texts:,}); by chance once in {rarity:,.0f}"
        )


@dataclass
class Monitor:
    """Reads (topic, negative or not) and raises alerts.

    window: texts of a topic that are compared with those before. alpha: false alerts that a topic may raise on average in
    ``period`` of its texts. baseline: what is known of each topic beforehand, such as the counts in the training texts; a topic
    that is not named begins with nothing, and cannot raise an alert until texts have left its window.
    After an alert the topic's window begins anew, and what was in it is not held against later texts: a jump that lasts raises an
    alert again, every ``window`` texts at the soonest.
    """

    window: int = 50
    alpha: float = 0.05
    period: int = 1_000
    baseline: Mapping[str, Count] = field(default_factory=dict)
    _topics: dict[str, _Topic] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        if self.window < 2:
            raise InvalidInput(f"window is {self.window}; accepted are 2 texts or more")
        if self.period < self.window:
            raise InvalidInput(f"period is {self.period} texts; accepted is the window ({self.window}) or more")
        if not 0 < self.alpha < 1:
            raise InvalidInput(f"alpha is {self.alpha}; accepted is a number above 0 and below 1")

    @property
    def look_every(self) -> int:
        """Texts of a topic between two tests of its window."""
        return max(self.window // LOOKS_PER_WINDOW, 1)

    @property
    def level(self) -> float:
        """The probability that one look may be wrong with."""
        return self.alpha * self.look_every / self.period

    def watch(self, stream: Iterable[tuple[str, bool]]) -> Iterator[Alert]:
        """The alerts of a stream of (topic, whether the text is negative), each as soon as it is known."""
        for topic, negative in stream:
            if alert := self.observe(topic, negative=negative):
                yield alert

    def observe(self, topic: str, *, negative: bool) -> Alert | None:
        """Count one text; the alert that it raises, if it does."""
        known = self._topics.get(topic)
        if known is None:
            known = self._topics[topic] = _Topic(self.baseline.get(topic, Count()))
        known.add(negative, self.window)
        if len(known.recent) < self.window or known.seen % self.look_every:
            return None
        recent = Count(sum(known.recent), self.window)
        if recent.share <= known.before.share:
            return None
        probability = tail(recent, known.before)
        if probability > self.level:
            return None
        known.recent.clear()
        return Alert(topic, known.seen, recent, known.before, probability, self.level)


@dataclass
class _Topic:
    before: Count
    recent: deque[bool] = field(default_factory=deque)
    seen: int = 0

    def add(self, negative: bool, window: int) -> None:
        """Take one more text; what is pushed out of the window counts as before it."""
        self.seen += 1
        self.recent.append(bool(negative))
        if len(self.recent) > window:
            self.before = Count(self.before.negative + self.recent.popleft(), self.before.texts + 1)


def tail(window: Count, before: Count) -> float:
    """The probability of so many negative texts in the window, or more, if it is a sample of all texts without replacement.

    Fisher, The Design of Experiments (1935), chapter 2: P(X ≥ x) of the hypergeometric distribution, exact but for rounding.
    """
    negative, texts = window.negative + before.negative, window.texts + before.texts
    most = min(window.texts, negative)
    possible = _log_binomial(texts, window.texts)
    logs = [
        _log_binomial(negative, count) + _log_binomial(texts - negative, window.texts - count) - possible
        for count in range(window.negative, most + 1)
        if window.texts - count <= texts - negative
    ]
    return min(float(np.exp(logs).sum()), 1.0)


def _log_binomial(total: int, chosen: int) -> float:
    return math.lgamma(total + 1) - math.lgamma(chosen + 1) - math.lgamma(total - chosen + 1)
