"""The recommender: asks servers under a deadline, and the edge where they cannot answer."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, overload

from bertrec.answers import Options
from bertrec.questions import Classifying, Embedding, Pairing, Question

from .answer import Answer, Classified, Embedded, Matched
from .backends import Backend, connect
from .core import DEFAULT_TIMEOUT_S, Core, How, Made, Wanted
from .drivers import run
from .settings import Tls
from .steps import Ask, Call
from .tracing import Trace

if TYPE_CHECKING:
    from typing_extensions import Unpack  # in typing from Python 3.11 on

__all__ = ["DEFAULT_TIMEOUT_S", "How", "Recommender", "Wanted"]


class Recommender(Core):
    """Answers texts: with ranked items, matches, classes and vectors.

    Thread-safe; one serves a whole process, made after any fork. A context manager.

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
        the user chose before; ``popularity`` and ``diversity``, how much they count; ``rules``; ``spelling``; ``rerank``;
        ``explain``. See :class:`bertrec.answers.Options`. With a history, a blank text asks for what suits the history.
        timeout_s, request_id, traceparent: see :class:`client.core.How`.
        A list is answered as a whole: by servers, or by the fallback; an empty list by an empty list.

        Raises InvalidInput, naming the position of a text in the list, and Unavailable where nobody could answer.
        """
        how = How(timeout_s=timeout_s, request_id=request_id, traceparent=traceparent)
        answers = self._all(text, Options(**options), how, lambda found, served: Answer(**vars(found), **served))
        return answers[0] if isinstance(text, str) else answers

    @overload
    def match(self, text: str, items: Sequence[str], **how: Unpack[How]) -> Matched: ...

    @overload
    def match(self, text: list[str] | tuple[str, ...], items: Sequence[str], **how: Unpack[How]) -> list[Matched]: ...

    def match(self, text: str | list[str] | tuple[str, ...], items: Sequence[str], **how: Unpack[How]) -> Matched | list[Matched]:
        """How well each of the items fits a text: a probability for each, in the order asked; for a list of texts, a list.

        items: at most 64 item ids of the catalogue, all different. The bundle that is asked needs a matcher.
        Raises as :meth:`recommend`, and InvalidInput, naming them, for items that the catalogue does not have.
        """
        answers = self._all(text, Pairing(items), how, lambda found, served: Matched(**vars(found), **served))
        return answers[0] if isinstance(text, str) else answers

    @overload
    def classify(self, text: str, **how: Unpack[How]) -> Classified: ...

    @overload
    def classify(self, text: list[str] | tuple[str, ...], **how: Unpack[How]) -> list[Classified]: ...

    def classify(self, text: str | list[str] | tuple[str, ...], **how: Unpack[How]) -> Classified | list[Classified]:
        """What a text is: the probabilities of each head's labels, and that its writer recommends what it is about.

        The bundle that is asked needs heads. Raises as :meth:`recommend`.
        """
        answers = self._all(text, Classifying(), how, lambda found, served: Classified(**vars(found), **served))
        return answers[0] if isinstance(text, str) else answers

    @overload
    def embed(self, text: str, **how: Unpack[How]) -> Embedded: ...

    @overload
    def embed(self, text: list[str] | tuple[str, ...], **how: Unpack[How]) -> list[Embedded]: ...

    def embed(self, text: str | list[str] | tuple[str, ...], **how: Unpack[How]) -> Embedded | list[Embedded]:
        """A text's interest vector, (hidden,) float32 of length 1: what the items' vectors are held against.

        Raises as :meth:`recommend`.
        """
        answers = self._all(text, Embedding(), how, lambda found, served: Embedded(vector=found, **served))
        return answers[0] if isinstance(text, str) else answers

    def _all(self, text: object, question: Question, how: How, make: Callable[[Any, dict[str, Any]], Made]) -> list[Made]:
        """One answer for each text; ``make`` joins what was found with who found it."""
        call = self._call(text, how.get("timeout_s"), question)
        with self._traced(call, how) as trace:
            if not call.texts:
                return []
            answered = run(self._planner.plan(call), lambda ask: self._asked(ask, call, trace), self._sleep)
        served = self._served(call, answered, trace)
        return [make(found, served) for found in answered.found]

    def _asked(self, ask: Ask, call: Call, trace: Trace) -> list[Any]:
        if ask.endpoint is None:
            assert self._edge is not None  # a plan asks the edge only where there is one
            return self._edge.answer(ask.texts, call.question, timeout_s=ask.timeout_s)
        with self._attempt(ask, trace) as headers:
            found: list[Any] = ask.endpoint.backend.answer(ask.texts, call.question, timeout_s=ask.timeout_s, headers=headers)
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
