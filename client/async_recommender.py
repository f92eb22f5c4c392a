"""The recommender for asyncio: the same plan, awaited."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, overload

from bertrec.answers import Options
from bertrec.questions import Classifying, Embedding, Pairing, Question

from .answer import Answer, Classified, Embedded, Matched
from .backends import AsyncBackend, connect_async, in_threads
from .core import Core, How, Made, Wanted
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
        how = How(timeout_s=timeout_s, request_id=request_id, traceparent=traceparent)
        answers = await self._all(text, Options(**options), how, lambda found, served: Answer(**vars(found), **served))
        return answers[0] if isinstance(text, str) else answers

    @overload
    async def match(self, text: str, items: Sequence[str], **how: Unpack[How]) -> Matched: ...

    @overload
    async def match(self, text: list[str] | tuple[str, ...], items: Sequence[str], **how: Unpack[How]) -> list[Matched]: ...

    async def match(
        self, text: str | list[str] | tuple[str, ...], items: Sequence[str], **how: Unpack[How]
    ) -> Matched | list[Matched]:
        """See :meth:`Recommender.match`."""
        answers = await self._all(text, Pairing(items), how, lambda found, served: Matched(**vars(found), **served))
        return answers[0] if isinstance(text, str) else answers

    @overload
    async def classify(self, text: str, **how: Unpack[How]) -> Classified: ...

    @overload
    async def classify(self, text: list[str] | tuple[str, ...], **how: Unpack[How]) -> list[Classified]: ...

    async def classify(self, text: str | list[str] | tuple[str, ...], **how: Unpack[How]) -> Classified | list[Classified]:
        """See :meth:`Recommender.classify`."""
        answers = await self._all(text, Classifying(), how, lambda found, served: Classified(**vars(found), **served))
        return answers[0] if isinstance(text, str) else answers

    @overload
    async def embed(self, text: str, **how: Unpack[How]) -> Embedded: ...

    @overload
    async def embed(self, text: list[str] | tuple[str, ...], **how: Unpack[How]) -> list[Embedded]: ...

    async def embed(self, text: str | list[str] | tuple[str, ...], **how: Unpack[How]) -> Embedded | list[Embedded]:
        """See :meth:`Recommender.embed`."""
        answers = await self._all(text, Embedding(), how, lambda found, served: Embedded(vector=found, **served))
        return answers[0] if isinstance(text, str) else answers

    async def _all(self, text: object, question: Question, how: How, make: Callable[[Any, dict[str, Any]], Made]) -> list[Made]:
        """One answer for each text; ``make`` joins what was found with who found it."""
        call = self._call(text, how.get("timeout_s"), question)
        with self._traced(call, how) as trace:
            if not call.texts:
                return []
            answered = await self._driver.run(self._planner.plan(call), lambda ask: self._asked(ask, call, trace))
        served = self._served(call, answered, trace)
        return [make(found, served) for found in answered.found]

    async def _asked(self, ask: Ask, call: Call, trace: Trace) -> list[Any]:
        if ask.endpoint is None:
            assert self._edge_in_threads is not None  # a plan asks the edge only where there is one
            return await self._edge_in_threads.answer(ask.texts, call.question, timeout_s=ask.timeout_s)
        with self._attempt(ask, trace) as headers:
            found: list[Any] = await ask.endpoint.backend.answer(
                ask.texts, call.question, timeout_s=ask.timeout_s, headers=headers
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
