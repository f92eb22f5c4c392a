"""Asks a running server questions whose answers are known: the bundle answers them too, on this machine."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from bertrec.bundle import Bundle
from bertrec.errors import InvalidAnswer, InvalidInput
from bertrec.services import can_answer
from bertrec.tensors import CLASSIFY, EMBED, MATCH, RECOMMEND
from client.answer import Answer
from client.recommender import Recommender

Given = TypeVar("Given")
GOLDEN_TEXT = "a warm coat that is not bulky"
K = 10
TOLERANCE = 0.05
"""In nats. Engines in half precision, or compiled by another compiler, differ by less; another bundle by more."""
LEAST_COSINE = 0.99
"""Between the server's interest vector and the bundle's own."""
EDGE_OF_PROBABILITY = 1e-6
"""Probabilities are held no nearer to 0 and 1, where their log-odds have no end."""


@dataclass(frozen=True)
class Probed:
    """What the server answered rightly, and how long the recommendation took."""

    asked: tuple[str, ...]
    items: int
    bundle: str
    latency_ms: float


def probe(url: str, bundle: Path, *, ask: Sequence[str] | None = None, text: str = GOLDEN_TEXT, timeout_s: float = 5.0) -> Probed:
    """Ask the server at ``url`` one text in every way the bundle can be asked, and hold each answer against the bundle's own.

    ask: which of recommend, match, classify and embed (default: all that the bundle has). ``recommend`` is always asked: its
    answer names bundle and engine, and its best items are those that ``match`` is asked about. timeout_s: for each question.
    The engines are asked and not the cache (:func:`fresh`).
    Raises InvalidAnswer where an answer is another one, Unavailable where there is none in time, InvalidBundle, and InvalidInput
    for a question that the bundle does not answer.
    """
    opened = Bundle.open(bundle)
    questions = _questions(opened, ask)
    with Recommender(url, timeout_s=timeout_s) as server:
        never = [fresh()]
        started = time.monotonic()
        here = server.recommend(text, k=K, exclude=never)
        latency_ms = (time.monotonic() - started) * 1e3
        if here.bundle != opened.fingerprint:
            raise InvalidAnswer(f"{url} answers from bundle {here.bundle}; expected is {opened.fingerprint} ({bundle})")
        with Recommender(bundle=bundle, engine=here.engine) as edge:
            there = edge.recommend(text, k=K, exclude=never)
            _hold_ranking(url, here, there)
            if MATCH.name in questions:
                items = [item.item_id for item in there.items]
                _hold_chances(url, MATCH.name, _asked(url, lambda: _matched(server, text, items)), _matched(edge, text, items))
            if CLASSIFY.name in questions:
                _hold_chances(url, CLASSIFY.name, _asked(url, lambda: _classified(server, text)), _classified(edge, text))
            if EMBED.name in questions:
                cosine = float(_asked(url, lambda: server.embed(text)).vector @ edge.embed(text).vector)
                if not cosine >= LEAST_COSINE:
                    raise InvalidAnswer(f"{url}: embed: the cosine to the expected vector is {cosine:.4f}, below {LEAST_COSINE}")
    return Probed(questions, len(here.items), here.bundle, latency_ms)


def fresh() -> str:
    """An item id that there is not, of the time: a request that excludes it is a new one, which no cache has an answer to."""
    return f"probe-{time.time_ns()}"


def _questions(bundle: Bundle, ask: Sequence[str] | None) -> tuple[str, ...]:
    """Raises InvalidInput for what the bundle cannot be asked."""
    there = [spec.name for spec in can_answer(bundle)]
    if unknown := [name for name in ask or () if name not in there]:
        raise InvalidInput(
            f"the bundle {bundle.folder} cannot be asked to {', '.join(unknown)}; it can be asked to {', '.join(there)}"
        )
    return tuple(name for name in there if ask is None or name in ask or name == RECOMMEND.name)


def _asked(url: str, ask: Callable[[], Given]) -> Given:
    """What the server answers. What the bundle answers and the server refuses is a wrong answer of the server's."""
    try:
        return ask()
    except InvalidInput as error:
        raise InvalidAnswer(f"{url} refuses what its bundle answers: {error}") from error


def _hold_ranking(url: str, here: Answer, there: Answer) -> None:
    """Raises InvalidAnswer at the first rank whose score is another one."""
    if len(here.items) != len(there.items):
        raise InvalidAnswer(f"{url} answers with {len(here.items)} items; expected are {len(there.items)}")
    for rank, (one, other) in enumerate(zip(here.items, there.items, strict=True), start=1):
        if abs(one.score - other.score) > TOLERANCE:
            raise InvalidAnswer(
                f"{url}: rank {rank} is item {one.item_id} with {one.score:.3f}; "
                f"expected is {other.item_id} with {other.score:.3f}"
            )


def _hold_chances(url: str, question: str, here: Mapping[str, float | None], there: Mapping[str, float | None]) -> None:
    """Raises InvalidAnswer where a probability is missing, is one too many, or differs by more than the tolerance in log-odds."""
    if here.keys() != there.keys():
        raise InvalidAnswer(f"{url}: {question}: answered is {', '.join(here)}; expected is {', '.join(there)}")
    for name, expected in there.items():
        found = here[name]
        if (found is None) != (expected is None) or abs(_nats(found) - _nats(expected)) > TOLERANCE:
            raise InvalidAnswer(f"{url}: {question}: {name} has probability {found}; expected is {expected}")


def _nats(probability: float | None) -> float:
    """Log-odds; those of no probability are 0, like another's."""
    bounded = 0.5 if probability is None else min(max(probability, EDGE_OF_PROBABILITY), 1 - EDGE_OF_PROBABILITY)
    return math.log(bounded / (1 - bounded))


def _matched(who: Recommender, text: str, items: Sequence[str]) -> dict[str, float | None]:
    return {f"item {match.item_id}": match.probability for match in who.match(text, items).matches}


def _classified(who: Recommender, text: str) -> dict[str, float | None]:
    found = who.classify(text)
    labels = {f"{head} {label}": chance for head, chances in found.labels.items() for label, chance in chances.items()}
    return {**labels, "recommends": found.recommends}
