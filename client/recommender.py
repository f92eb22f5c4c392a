"""The recommender: asks servers under a deadline, and the edge where they cannot answer."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, overload

from bertrec.answers import Recommendation

from .answer import Answer
from .backends import Backend, connect
from .core import DEFAULT_TIMEOUT_S, Core, Wanted
from .drivers import run
from .settings import Tls
from .steps import Ask, Call
from .tracing import Trace

if TYPE_CHECKING:
    from typing_extensions import Unpack  # in typing from Python 3.11 on

__all__ = ["DEFAULT_TIMEOUT_S", "Recommender", "Wanted"]


class Recommender(Core):
    """Answers texts with ranked items. Thread-safe; one serves a whole process, made after any fork. A context manager.

        Recommender("grpc://127.0.0.1:8001")                              a Triton server
        Recommender(["grpc://a:8001", "grpc://b:8001"])                   two of them, in turn
        Recommender("http://127.0.0.1:8000", fallback="bundles/NAME")     … and this process while the server cannot answer
        Recommender(bundle="bundles/NAME")                                this process alone

    What a moment may mend (no connection, overload, an attempt's own timeout) is asked again, under the call's one deadline and
    within a budget. Where the servers stay unavailable, late, or answer with something broken, the fallback answers, and the
    answer says so; without a fallback the call raises Unavailable. What is wrong with the input raises InvalidInput, the same
    whoever is asked, and reaches the network only where the server alone can tell.
    """

    _edge: Backend | None
    _sleep: Callable[[float], None] = staticmethod(time.sleep)

    def _connect(self, url: str, tls: Tls | None) -> Backend:
        return connect(url, tls)

    @overload
    def recommend(
        self,
        text: str,
        *,
        timeout_s: float | None = ...,
        request_id: str | None = ...,
        traceparent: str | None = ...,
        **options: Unpack[Wanted],
    ) -> Answer: ...

    @overload
    def recommend(
        self,
        text: list[str] | tuple[str, ...],
        *,
        timeout_s: float | None = ...,
        request_id: str | None = ...,
        traceparent: str | None = ...,
        **options: Unpack[Wanted],
    ) -> list[Answer]: ...

    def recommend(
        self,
        text: str | list[str] | tuple[str, ...],
        *,
        timeout_s: float | None = None,
        request_id: str | None = None,
        traceparent: str | None = None,
        **options: Unpack[Wanted],
    ) -> Answer | list[Answer]:
        """The items that suit a text, best first; for a list of texts, the list of answers in its order.

        options: ``k``, the number of items; ``exclude`` and ``filters``, what must not and what may come back; ``history``, what
        the user chose before; ``popularity`` and ``diversity``, how much they count; ``rules``; ``spelling``. See
        :class:`bertrec.answers.Options`. With a history, a blank text asks for what suits the history.
        timeout_s: how long to wait for servers, instead of the recommender's own ``timeout_s``.
        request_id: sent as ``x-request-id`` and as the inference request's id; by default a random one, which the answer names.
        traceparent: the trace that the call is part of, in W3C's form; by default OpenTelemetry's current span, or a new trace.
        A list is answered as a whole: by servers, or by the fallback; an empty list by an empty list.

        Raises InvalidInput, naming the position of a text in the list, and Unavailable where nobody could answer.
        """
        call = self._call(text, timeout_s, options)
        with self._tracer.call(request_id, traceparent, len(call.texts)) as trace:
            if not call.texts:
                return []
            answered = run(self._planner.plan(call), lambda ask: self._asked(ask, call, trace), self._sleep)
        answers = self._answers(call, answered, trace)
        return answers[0] if isinstance(text, str) else answers

    def _asked(self, ask: Ask, call: Call, trace: Trace) -> list[Recommendation]:
        if ask.endpoint is None:
            assert self._edge is not None  # a plan asks the edge only where there is one
            return self._edge.recommend(ask.texts, call.options, timeout_s=ask.timeout_s)
        with self._attempt(ask, trace) as headers:
            found: list[Recommendation] = ask.endpoint.backend.recommend(
                ask.texts, call.options, timeout_s=ask.timeout_s, headers=headers
            )
            return found

    def close(self) -> None:
        """Close the backends. A call in flight ends by the edge or as Unavailable; later ones raise InvalidInput."""
        self._closed = True
        for endpoint in self._servers:
            endpoint.backend.close()
        if self._edge is not None:
            self._edge.close()

    def __enter__(self) -> Recommender:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()
