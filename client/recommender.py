"""The recommender: asks the server under a deadline, and the edge where the server cannot answer."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypedDict, overload

from bertrec.answers import Options, Recommendation
from bertrec.errors import InvalidInput, Unavailable
from bertrec.text import clean

from .answer import Answer, ServedBy
from .availability import Availability
from .backends import Backend, connect, open_edge

if TYPE_CHECKING:
    from typing_extensions import Unpack  # in typing from Python 3.11 on

DEFAULT_TIMEOUT_S = 5.0
"""Some hundred times what one text takes on a CPU: what exceeds it is not slow but stuck."""

DEFAULT_REST_S = 1.0
"""Short, so that a server that is back is used at once; long, beside the milliseconds in which the edge answers."""

MAX_SECONDS = 3600.0


class Wanted(TypedDict, total=False):
    """The fields of :class:`bertrec.answers.Options`, which says what each means, as keywords."""

    k: int
    exclude: Sequence[str]
    filters: Mapping[str, Sequence[str]]
    history: Sequence[str]
    popularity: float
    diversity: float
    rules: Sequence[Mapping[str, Any]]
    spelling: bool


class Recommender:
    """Answers texts with ranked items. Thread-safe; one serves a whole process, made after any fork. A context manager.

        Recommender("grpc://127.0.0.1:8001")                              a Triton server
        Recommender("http://127.0.0.1:8000", fallback="bundles/NAME")     … and this process while the server cannot answer
        Recommender(bundle="bundles/NAME")                                this process alone

    A call is never retried. Where the server is unavailable, overloaded, late, or answers with something broken, the fallback
    answers, and the answer says so; without a fallback the call raises Unavailable. What is wrong with the input raises
    InvalidInput, the same whoever is asked, and reaches the network only where the server alone can tell.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        bundle: str | Path | None = None,
        fallback: str | Path | Backend | None = None,
        server: Backend | None = None,
        engine: str | None = None,
        threads: int = 0,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        rest_s: float = DEFAULT_REST_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Open the bundle, if one is given; the server is connected by the first call.

        url: ``grpc://HOST[:PORT]`` or ``http://HOST[:PORT]``. bundle: answer from it, with no server.
        fallback: the bundle that answers while the server cannot; it is verified and loaded now, not when it is needed.
        server: a backend instead of an address; :meth:`close` closes it, and a backend given as fallback too.
        engine, threads: encoder engine (by default the export's choice) and threads per engine (0: one per core) of the bundle.
        timeout_s: how long a call may wait for the server; the fallback's own computing comes on top.
        rest_s: how long a server that failed is left alone before one call tries it again.

        Raises InvalidInput for arguments that do not fit together, InvalidBundle, and MissingDependency without onnxruntime.
        """
        self._timeout_s = _checked_seconds("timeout_s", timeout_s)
        if sum(given is not None for given in (url, bundle, server)) != 1:
            raise InvalidInput("give either url, the address of a server such as grpc://127.0.0.1:8001, or bundle, a folder")
        if bundle is not None and fallback is not None:
            raise InvalidInput("fallback goes with url: a bundle that answers in this process needs no fallback")
        self._clock = clock
        self._availability = Availability(rest_s=_checked_seconds("rest_s", rest_s), clock=clock)
        self._closed = False
        name, edge = ("fallback", fallback) if bundle is None else ("bundle", bundle)
        if not isinstance(edge, str | Path | Backend | None):
            raise InvalidInput(f"{name} is of type {type(edge).__name__}; accepted is the folder of a bundle")
        self._edge = open_edge(edge, engine=engine, threads=threads) if isinstance(edge, str | Path) else edge
        self._server = connect(url) if url is not None else server

    @overload
    def recommend(self, text: str, *, timeout_s: float | None = ..., **options: Unpack[Wanted]) -> Answer: ...

    @overload
    def recommend(
        self, text: list[str] | tuple[str, ...], *, timeout_s: float | None = ..., **options: Unpack[Wanted]
    ) -> list[Answer]: ...

    def recommend(
        self, text: str | list[str] | tuple[str, ...], *, timeout_s: float | None = None, **options: Unpack[Wanted]
    ) -> Answer | list[Answer]:
        """The items that suit a text, best first; for a list of texts, the list of answers in its order.

        options: ``k``, the number of items; ``exclude`` and ``filters``, what must not and what may come back; ``history``, what
        the user chose before; ``popularity`` and ``diversity``, how much they count; ``rules``; ``spelling``. See
        :class:`bertrec.answers.Options`. With a history, a blank text asks for what suits the history.
        timeout_s: how long to wait for the server, instead of the recommender's own ``timeout_s``.
        A list is answered as a whole: by the server, or by the fallback; an empty list by an empty list.

        Raises InvalidInput, naming the position of a text in the list, and Unavailable where nobody could answer.
        """
        started = self._clock()
        if self._closed:
            raise InvalidInput("this recommender is closed; make a new one")
        wanted = Options(**options)
        wait_s = self._timeout_s if timeout_s is None else _checked_seconds("timeout_s", timeout_s)
        texts = _cleaned(text, blank=bool(wanted.history))
        if not texts:
            return []
        answered = self._ask(texts, wanted, wait_s)
        latency_ms = 1e3 * (self._clock() - started)
        answers = [answered.answer(recommendation, latency_ms) for recommendation in answered.recommendations]
        return answers[0] if isinstance(text, str) else answers

    def _ask(self, texts: list[str], options: Options, timeout_s: float) -> _Answered:
        server, edge = self._server, self._edge
        if server is None:
            assert edge is not None  # the constructor wants one of the two
            return _Answered(edge.recommend(texts, options, timeout_s=timeout_s), ServedBy.EDGE)
        if edge is None:
            return _Answered(server.recommend(texts, options, timeout_s=timeout_s), ServedBy.TRITON)
        try:
            found = self._availability.ask(lambda: server.recommend(texts, options, timeout_s=timeout_s))
        except Unavailable as error:
            return _Answered(edge.recommend(texts, options, timeout_s=timeout_s), ServedBy.EDGE, str(error))
        return _Answered(found, ServedBy.TRITON)

    def close(self) -> None:
        """Close the backends. A call in flight ends by the edge or as Unavailable; later ones raise InvalidInput."""
        self._closed = True
        for backend in (self._server, self._edge):
            if backend is not None:
                backend.close()

    def __enter__(self) -> Recommender:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


@dataclass(frozen=True)
class _Answered:
    """What one backend gave to a list of texts, and why it was asked."""

    recommendations: list[Recommendation]
    served_by: ServedBy
    fallback_reason: str | None = None

    def answer(self, found: Recommendation, latency_ms: float) -> Answer:
        return Answer(
            items=found.items,
            truncated=found.truncated,
            engine=found.engine,
            bundle=found.bundle,
            rules=found.rules,
            corrections=found.corrections,
            served_by=self.served_by,
            latency_ms=latency_ms,
            fallback_reason=self.fallback_reason,
        )


def _cleaned(text: object, *, blank: bool) -> list[str]:
    """The texts, cleaned. blank: a text may be blank, and becomes an empty one."""
    if not isinstance(text, str | list | tuple):
        raise InvalidInput(f"text is of type {type(text).__name__}; accepted is a str, or a list of them")
    texts = [text] if isinstance(text, str) else text
    return [
        "" if blank and isinstance(one, str) and not one.strip() else clean(one, position) for position, one in enumerate(texts)
    ]


def _checked_seconds(name: str, seconds: float) -> float:
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 < seconds <= MAX_SECONDS:
        raise InvalidInput(f"{name} is {seconds!r}; accepted is a number of seconds above 0, at most {MAX_SECONDS:g}")
    return float(seconds)
