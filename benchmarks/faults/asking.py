"""Asks, from many threads, what the right answer to is known, and counts what comes back."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from benchmarks.faults.outcome import Count
from bertrec.bundle import Bundle
from bertrec.errors import BertrecError
from client import Answer, Recommender, ServedBy

K = 5
KNOWN_RANKS = 50
"""How many ranks of the right answer are kept: of nearly equal scores, another batch may put the other first."""

TOLERANCE = 0.02
"""Between the scores of one item computed in batches of different sizes; scores are of the order of 10."""

MOST_TEXTS = 64
MOST_WORDS = 24


class Known:
    """Texts, and what the undisturbed bundle answers to each."""

    def __init__(self, bundle: Path) -> None:
        """Descriptions of the bundle's own items are the texts."""
        items = Bundle.open(bundle).catalogue().items
        described = [" ".join((item.text or item.title).split()[:MOST_WORDS]) for item in items]
        self.texts = list(dict.fromkeys(filter(None, described)))[:MOST_TEXTS]
        with Recommender(bundle=bundle, threads=1) as recommender:
            self._right = {text: recommender.recommend(text, k=KNOWN_RANKS) for text in self.texts}

    def is_right(self, text: str, answer: Answer) -> bool:
        """Whether each rank has the right score, and the right item or one that scores the same."""
        right = self._right[text]
        scores = {item.item_id: item.score for item in right.items}
        if len(answer.items) != min(K, len(right.items)) or answer.bundle != right.bundle:
            return False
        return all(
            abs(item.score - at_rank.score) <= TOLERANCE and abs(item.score - scores.get(item.item_id, float("inf"))) <= TOLERANCE
            for item, at_rank in zip(answer.items, right.items, strict=False)
        )


class Asker:
    """Asks one recommender what ``known`` knows."""

    def __init__(self, recommender: Recommender, known: Known, *, timeout_s: float) -> None:
        self._recommender = recommender
        self._known = known
        self._timeout_s = timeout_s
        self._numbers = itertools.count()
        self.count = Count()

    def ask(self) -> ServedBy | None:
        """One call; who answered it, None where nobody did."""
        text = self._known.texts[next(self._numbers) % len(self._known.texts)]
        ends_s = time.monotonic() + self._timeout_s
        try:
            answer = self._recommender.recommend(text, k=K, timeout_s=self._timeout_s)
        except BertrecError as error:
            self.count.add(beyond_s=time.monotonic() - ends_s, refused=type(error).__name__)
            return None
        except Exception:  # it is this that the scenarios look for
            self.count.add(beyond_s=time.monotonic() - ends_s, untyped=True)
            return None
        beyond_s = time.monotonic() - ends_s
        right = self._known.is_right(text, answer)
        self.count.add(beyond_s=beyond_s, wrong=not right, by_edge=answer.served_by is ServedBy.EDGE)
        return answer.served_by

    @contextmanager
    def load(self, clients: int) -> Iterator[None]:
        """While the block runs, ``clients`` threads ask without a pause; their last calls have ended when it is left."""
        stop = threading.Event()

        def work() -> None:
            while not stop.is_set():
                self.ask()

        with _threads([work] * clients):
            try:
                yield
            finally:
                stop.set()

    @contextmanager
    def arriving(self, per_s: float, *, most: int) -> Iterator[None]:
        """While the block runs, ``per_s`` calls a second begin, whether those before have ended or not; ``most`` at a time."""
        stop, numbers, began_s = threading.Event(), itertools.count(), time.monotonic()

        def work() -> None:
            while not stop.wait(max(0.0, began_s + next(numbers) / per_s - time.monotonic())):
                self.ask()

        with _threads([work] * most):
            try:
                yield
            finally:
                stop.set()

    def burst(self, calls: int) -> AbstractContextManager[None]:
        """Begin ``calls`` calls at once, each in a thread of its own; they have ended when the block is left."""
        return _threads([self.ask] * calls)

    def not_met(self) -> tuple[str, ...]:
        """What is broken where no call was retried or answered by the edge: then none met the fault."""
        counters = self._recommender.counters()
        return () if counters.retries or counters.fallbacks else ("no call met the fault, so this shows nothing",)

    def wait_for_calls(self, calls: int, *, within_s: float) -> None:
        """Wait until so many calls in all have ended, or ``within_s`` have passed."""
        ends_s = time.monotonic() + within_s
        while self.count.calls < calls and time.monotonic() < ends_s:
            time.sleep(0.005)

    def wait_for(self, who: ServedBy, *, within_s: float) -> float | None:
        """Ask until ``who`` answers; the seconds that took, None where it did not within ``within_s``."""
        began_s = time.monotonic()
        while time.monotonic() - began_s < within_s:
            if self.ask() is who:
                return time.monotonic() - began_s
            time.sleep(0.05)
        return None


@contextmanager
def _threads(jobs: Sequence[Callable[[], object]]) -> Iterator[None]:
    threads = [threading.Thread(target=job, daemon=True) for job in jobs]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        for thread in threads:
            thread.join()
