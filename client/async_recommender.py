"""The recommender for asyncio: the same plan, awaited."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, overload

from bertrec.answers import Recommendation

from .answer import Answer
from .backends import AsyncBackend, connect_async, in_threads
from .core import Core, Wanted
from .drivers import AsyncDriver
from .settings import Tls
from .steps import Ask, Call
from .tracing import Trace

if TYPE_CHECKING:
    from typing_extensions import Unpack  # in typing from Python 3.11 on


class AsyncRecommender(Core):
    """:class:`Recommender` for asyncio, with the same arguments, answers and errors. Used by one event loop.

        async with AsyncRecommender("grpc://127.0.0.1:8001", fallback="bundles/NAME") as recommender:
            answer = await recommender.recommend("a warm coat")

    gRPC goes through grpc.aio; HTTP and the edge run in threads. Making one with a bundle reads it, and blocks for as long.
    A call that is cancelled cancels its requests.
    """

    def _prepare(self) -> None:
        self._driver = AsyncDriver()
        self._edge_in_threads = None if self._edge is None else in_threads(self._edge)

    def _connect(self, url: str, tls: Tls | None) -> AsyncBackend:
        return connect_async(url, tls)

    @overload
    async def recommend(
        self,
        text: str,
        *,
        timeout_s: float | None = ...,
        request_id: str | None = ...,
        traceparent: str | None = ...,
        **options: Unpack[Wanted],
    ) -> Answer: ...

    @overload
    async def recommend(
        self,
        text: list[str] | tuple[str, ...],
        *,
        timeout_s: float | None = ...,
        request_id: str | None = ...,
        traceparent: str | None = ...,
        **options: Unpack[Wanted],
    ) -> list[Answer]: ...

    async def recommend(
        self,
        text: str | list[str] | tuple[str, ...],
        *,
        timeout_s: float | None = None,
        request_id: str | None = None,
        traceparent: str | None = None,
        **options: Unpack[Wanted],
    ) -> Answer | list[Answer]:
        """See :meth:`Recommender.recommend`."""
        call = self._call(text, timeout_s, options)
        with self._tracer.call(request_id, traceparent, len(call.texts)) as trace:
            if not call.texts:
                return []
            answered = await self._driver.run(self._planner.plan(call), lambda ask: self._asked(ask, call, trace))
        answers = self._answers(call, answered, trace)
        return answers[0] if isinstance(text, str) else answers

    async def _asked(self, ask: Ask, call: Call, trace: Trace) -> list[Recommendation]:
        if ask.endpoint is None:
            assert self._edge_in_threads is not None  # a plan asks the edge only where there is one
            return await self._edge_in_threads.recommend(ask.texts, call.options, timeout_s=ask.timeout_s)
        with self._attempt(ask, trace) as headers:
            found: list[Recommendation] = await ask.endpoint.backend.recommend(
                ask.texts, call.options, timeout_s=ask.timeout_s, headers=headers
            )
            return found

    async def close(self) -> None:
        """Close the backends. A call in flight ends by the edge or as Unavailable; later ones raise InvalidInput."""
        self._closed = True
        await self._driver.close()
        for endpoint in self._servers:
            await endpoint.backend.close()
        if self._edge_in_threads is not None:
            await self._edge_in_threads.close()

    async def __aenter__(self) -> AsyncRecommender:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.close()
