"""What Recommender and AsyncRecommender share: everything but who waits."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypedDict, TypeVar

from bertrec.answers import Options
from bertrec.errors import InvalidInput
from bertrec.questions import Question
from bertrec.session_options import SessionOptions
from bertrec.text import clean

from .availability import Breaker
from .backends import AsyncBackend, Backend, open_edge
from .counters import Counters, Tally
from .endpoints import Endpoint, Endpoints
from .plan import Planner
from .settings import Fallback, Retries, Tls, checked_seconds, request_headers
from .steps import Answered, Ask, Call
from .tracing import Trace, Tracer

DEFAULT_TIMEOUT_S = 5.0
"""Some hundred times what one text takes on a CPU: what exceeds it is not slow but stuck."""

DEFAULT_REST_S = 1.0
"""Short, so that a server that is back is used at once; long, beside the milliseconds in which the edge answers."""

DEFAULT_LATE_AFTER_S = 0.2
"""Some ten times what a server needs for a text, and what a person still takes for immediate."""


Kind = TypeVar("Kind")
Made = TypeVar("Made")
Connect = Callable[[str, Tls | None], Backend | AsyncBackend]


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
    rerank: bool
    explain: bool


class How(TypedDict, total=False):
    """How one call is made, as keywords.

    timeout_s: the call's deadline, instead of the recommender's own ``timeout_s``.
    request_id: sent as ``x-request-id`` and as the inference request's id; by default a random one, which the answer names.
    traceparent: the trace that the call is part of, in W3C's form; by default OpenTelemetry's current span, or a new trace.
    """

    timeout_s: float | None
    request_id: str | None
    traceparent: str | None


class Core:
    """Settings, servers, edge and counters of one recommender."""

    def __init__(
        self,
        url: str | Sequence[str] | None = None,
        *,
        bundle: str | Path | None = None,
        fallback: str | Path | Backend | None = None,
        server: Backend | AsyncBackend | None = None,
        fallback_policy: Fallback | str | None = None,
        late_after_s: float = DEFAULT_LATE_AFTER_S,
        engine: str | None = None,
        threads: int = 0,
        device: str = "cpu",
        memory_arena: bool = True,
        affinity: Sequence[int] = (),
        allow_spinning: bool = False,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        rest_s: float = DEFAULT_REST_S,
        retries: Retries | None = None,
        hedge_after_s: float | None = None,
        tls: Tls | None = None,
        headers: Mapping[str, str] | None = None,
        token: str | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Open the bundle, if one is given; servers are connected by the first call.

        url: ``grpc://HOST[:PORT]``, ``http://…``, with TLS ``grpcs://…`` and ``https://…``; or a list of them, asked in turn.
        fallback: the bundle that answers while the servers cannot; verified, loaded and asked once now, not when it is needed.
        bundle: answer from it, with no server. server: a backend instead of an address; :meth:`close` closes it too.
        fallback_policy: one of :class:`Fallback`; by default ``edge`` where a fallback is given.
        late_after_s: how long ``edge-if-late`` waits for a server before the edge begins; less where the deadline is near.
        engine: of the bundle, by default the export's choice. threads, device, memory_arena, affinity, allow_spinning: how this
        process runs it; see :class:`bertrec.session_options.SessionOptions`.
        timeout_s: the deadline of a call, all attempts together; before a fallback, the servers leave the edge its part of it.
        rest_s: how long a server that failed is left alone before one call tries it again.
        retries: see :class:`Retries`. hedge_after_s: send a second request where the first took so long; by default never.
        tls, headers, token: see :class:`Tls`; what every request carries; ``token`` is sent as ``authorization: Bearer``.

        Raises InvalidInput for arguments that do not fit together, InvalidBundle, and MissingDependency without onnxruntime.
        """
        self._timeout_s = checked_seconds("timeout_s", timeout_s)
        self._headers = request_headers(headers, token)
        self._retries = _of_type("retries", retries, Retries) or Retries()
        policy = _policy(fallback_policy, fallback, url=url, bundle=bundle, server=server)
        self._clock, self._closed, self._process = clock, False, os.getpid()
        self._tally, self._tracer = Tally(), Tracer()
        self._edge = _edge(bundle, fallback, engine, SessionOptions(threads, device, memory_arena, affinity, allow_spinning))
        named = {"server": server} if url is None else _named(url, _of_type("tls", tls, Tls), self._connect)
        self._servers = self._endpoints(named, checked_seconds("rest_s", rest_s))
        self._planner = Planner(
            Endpoints(self._servers, insist=policy is Fallback.NONE) if self._servers else None,
            fallback=policy,
            late_after_s=checked_seconds("late_after_s", late_after_s),
            hedge_after_s=None if hedge_after_s is None else checked_seconds("hedge_after_s", hedge_after_s),
            retries=self._retries,
            tally=self._tally,
            clock=clock,
        )
        self._prepare()

    def _prepare(self) -> None:
        """What else the one or the other needs."""

    def _connect(self, url: str, tls: Tls | None) -> Backend | AsyncBackend:
        raise NotImplementedError  # Recommender and AsyncRecommender each have their own

    def _endpoints(self, named: Mapping[str, Backend | AsyncBackend | None], rest_s: float) -> list[Endpoint]:
        breaker = partial(Breaker, opens_after=self._retries.attempts, rest_s=rest_s, clock=self._clock)
        return [Endpoint(name, backend, breaker(name)) for name, backend in named.items() if backend is not None]

    def counters(self) -> Counters:
        """What this recommender has done so far; ``.to_prometheus()`` writes it as text."""
        return self._tally.read({one.name: one.breaker.state for one in self._servers})

    def _call(self, text: object, timeout_s: float | None, question: Question) -> Call:
        """The call, checked. Raises InvalidInput for whatever the server need not be asked about."""
        if self._closed:
            raise InvalidInput("this recommender is closed; make a new one")
        if self._process != os.getpid():  # neither gRPC's threads nor ONNX Runtime's live on in a fork: it would hang
            raise InvalidInput(f"this recommender was made before the fork, in process {self._process}; make one in each process")
        wait_s = self._timeout_s if timeout_s is None else checked_seconds("timeout_s", timeout_s)
        blank = isinstance(question, Options) and bool(question.history)
        return Call(_cleaned(text, blank=blank), question, wait_s, self._clock())

    @contextmanager
    def _attempt(self, ask: Ask, trace: Trace) -> Iterator[dict[str, str]]:
        """Around a request to a server: its headers, its span, and the breaker's verdict."""
        assert ask.endpoint is not None
        with ask.endpoint.judged(self._clock), self._tracer.attempt(trace, ask.endpoint.name, self._headers) as headers:
            yield headers

    def _traced(self, call: Call, how: How) -> AbstractContextManager[Trace]:
        ids = {"request_id": how.get("request_id"), "traceparent": how.get("traceparent")}
        return self._tracer.call(call.question.model.name, len(call.texts), **ids)

    def _served(self, call: Call, answered: Answered, trace: Trace) -> dict[str, Any]:
        """The fields of :class:`Served`, the same for each answer of the call."""
        return {
            "served_by": answered.served_by,
            "latency_ms": 1e3 * (self._clock() - call.started),
            "fallback_reason": answered.fallback_reason,
            "stages_ms": call.stages_ms,
            "attempts": call.attempts,
            "request_id": trace.request_id,
        }


def _edge(bundle: object, fallback: object, engine: str | None, session: SessionOptions) -> Backend | None:
    name, edge = ("fallback", fallback) if bundle is None else ("bundle", bundle)
    if not isinstance(edge, str | Path):
        if not isinstance(edge, Backend | None):
            raise InvalidInput(f"{name} is of type {type(edge).__name__}; accepted is the folder of a bundle")
        return edge
    opened = open_edge(edge, engine=engine, session=session)
    if name == "fallback":  # the first answer takes ten times as long as those after it, and its call has no time left
        opened.answer(["first words"], Options(k=1), timeout_s=DEFAULT_TIMEOUT_S)
    return opened


def _policy(given: Fallback | str | None, fallback: object, *, url: object, bundle: object, server: object) -> Fallback:
    """When the edge answers. Raises InvalidInput where those who shall answer do not go together."""
    if sum(one is not None for one in (url, bundle, server)) != 1:
        raise InvalidInput("give either url, the address of a server such as grpc://127.0.0.1:8001, or bundle, a folder")
    if bundle is not None and (fallback is not None or given is not None):
        raise InvalidInput("fallback goes with url: a bundle that answers in this process needs no fallback")
    if given is None:
        return Fallback.NONE if fallback is None else Fallback.EDGE
    try:
        policy = Fallback(given)
    except ValueError:
        raise InvalidInput(f"fallback_policy is {given!r}; accepted are {', '.join(Fallback)}") from None
    if (policy is Fallback.NONE) != (fallback is None):
        beside = "with no fallback" if fallback is None else "with a fallback"
        raise InvalidInput(
            f"fallback_policy is {str(policy)!r} {beside}; give a bundle as fallback and edge or edge-if-late, or neither"
        )
    return policy


def _named(url: object, tls: Tls | None, connect: Connect) -> dict[str, Backend | AsyncBackend]:
    urls: list[Any] = list(url) if isinstance(url, list | tuple) else [url]
    if not urls or len(set(map(str, urls))) < len(urls):
        raise InvalidInput(f"url is {url!r}; accepted is an address, or a list of one or more that differ")
    return {one: connect(one, tls) for one in urls}


def _of_type(name: str, given: Kind | None, wanted: type[Kind]) -> Kind | None:
    if given is not None and not isinstance(given, wanted):
        raise InvalidInput(f"{name} is of type {type(given).__name__}; accepted is a bertrec.client.{wanted.__name__}")
    return given


def _cleaned(text: object, *, blank: bool) -> list[str]:
    """The texts, cleaned. blank: a text may be blank, and becomes an empty one."""
    if not isinstance(text, str | list | tuple):
        raise InvalidInput(f"text is of type {type(text).__name__}; accepted is a str, or a list of them")
    texts = [text] if isinstance(text, str) else text
    return [
        "" if blank and isinstance(one, str) and not one.strip() else clean(one, position) for position, one in enumerate(texts)
    ]
