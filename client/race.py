"""Several asked for one answer: a hedge beside a server that is slow, the edge beside one that is late."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from bertrec.errors import Transient, Unavailable

from .steps import Ask, Call, Stages, Start, Step, Wait, Won, Work


@dataclass(frozen=True)
class Later:
    """Whom to ask besides, if nobody has answered by ``at``; ``ask`` may think better of it and give None."""

    at: float
    ask: Callable[[], Ask | None]


def race(call: Call, first: Ask, later: Sequence[Later], *, clock: Callable[[], float]) -> Work:
    """The first good answer. Ends as soon as one came or all that were begun have failed, with the first failure.

    Where a server wins, the others are cancelled. Where the edge wins, a server that is late goes on until its timeout, so that
    its breaker learns how it ends.
    """
    waiting = sorted(later, key=lambda one: one.at)
    stages = Stages(call, "server", clock)
    running: dict[Any, Ask] = {}
    failure: Unavailable | None = None
    try:
        running[(yield from _begun(first))] = first
        while running:
            if waiting and clock() >= waiting[0].at:
                if (ask := waiting.pop(0).ask()) is not None:
                    with suppress(Transient):  # no thread is to be had for it; those that run go on
                        running[(yield from _begun(ask))] = ask
                        if ask.endpoint is None:
                            stages.next("edge")
                continue
            for future in (yield Wait(tuple(running), max(0.0, waiting[0].at - clock()) if waiting else None)):
                ask = running.pop(future)
                if future.cancelled():  # by closing the recommender; where the call is cancelled, it ends at the Wait
                    failure = failure or Unavailable("the recommender was closed")
                    continue
                try:
                    won = Won(ask, future.result())
                except Unavailable as error:
                    failure = failure or error
                    continue
                if ask.endpoint is None:
                    running.clear()
                return won
        assert failure is not None  # one was begun, and every one that ended without an answer left its failure
        raise failure
    finally:
        stages.end()
        for future in running:
            future.cancel()


def _begun(ask: Ask) -> Generator[Step, Any, Any]:
    """The future of ``ask``. One that ends before it ran is judged by nobody, so the breaker that let it pass is told here."""

    def given_up() -> None:
        """Tells the breaker that nobody will judge the request that it let pass."""
        if ask.endpoint is not None:
            ask.endpoint.breaker.given_up()

    try:
        future = yield Start(ask)
    except BaseException:
        given_up()
        raise
    future.add_done_callback(lambda done: given_up() if done.cancelled() else None)
    return future
