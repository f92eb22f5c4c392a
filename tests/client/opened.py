"""The two recommenders behind one face, so that one test proves both."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any, cast

from client import AsyncRecommender, Recommender

DRIVERS = ("blocking", "asyncio")


class InLoop:
    """An AsyncRecommender in a loop of its own, asked from any thread as a Recommender is."""

    def __init__(self, arguments: tuple[Any, ...], settings: dict[str, Any]) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._recommender = AsyncRecommender(*arguments, **settings)
        self.counters = self._recommender.counters

    def recommend(self, text: Any, **wanted: Any) -> Any:
        return self.begin(text, **wanted).result(60)

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401
        """match, classify and embed, as a Recommender has them."""
        asked = getattr(self._recommender, name)
        return lambda *given, **wanted: asyncio.run_coroutine_threadsafe(asked(*given, **wanted), self._loop).result(60)

    def begin(self, text: Any, **wanted: Any) -> Future[Any]:
        return asyncio.run_coroutine_threadsafe(self._recommender.recommend(text, **wanted), self._loop)

    def close(self) -> None:
        asyncio.run_coroutine_threadsafe(self._recommender.close(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()


@contextmanager
def opened(driver: str, *arguments: Any, **settings: Any) -> Iterator[Recommender]:
    """A recommender: the blocking one, or asyncio's behind the same methods."""
    if driver == "blocking":
        with Recommender(*arguments, **settings) as recommender:
            yield recommender
        return
    in_loop = InLoop(arguments, settings)
    try:
        yield cast("Recommender", in_loop)
    finally:
        in_loop.close()
