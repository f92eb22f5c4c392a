"""What lets a request be found again: its id, W3C's traceparent header, and OpenTelemetry's spans where that is installed."""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from types import ModuleType

from bertrec.errors import InvalidInput

from .backends import REQUEST_ID

TRACEPARENT = "traceparent"
_TRACEPARENT = re.compile(r"00-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})")
_REQUEST_ID = re.compile(r"[\x21-\x7e]{1,128}")


@dataclass(frozen=True)
class Trace:
    """One call, to those who follow it.

    traceparent: what attempts send where no span of ours is recorded: the caller's own, so that the server's spans hang on one
    that exists.
    """

    request_id: str
    traceparent: str
    span: object = None


class Tracer:
    """Makes traces. Uses the global OpenTelemetry tracer where its API is installed, and otherwise only sends the headers."""

    def __init__(self) -> None:
        try:
            self._api: ModuleType | None = import_module("opentelemetry.trace")
        except ImportError:
            self._api = None

    @contextmanager
    def call(self, model: str, texts: int, *, request_id: str | None, traceparent: str | None) -> Iterator[Trace]:
        """A call of so many texts to one model: part of ``traceparent``, or of OpenTelemetry's current span, or of a new trace.

        Raises InvalidInput for a request id or a traceparent that is none.
        """
        request_id = secrets.token_hex(16) if request_id is None else _checked_id(request_id)
        if traceparent is not None:
            _checked_traceparent(traceparent)
        about = {"bertrec.request_id": request_id, "bertrec.texts": texts}
        with self._span(f"bertrec.{model}", self._remote(traceparent), about) as span:
            ours = f"00-{secrets.token_hex(16)}-{secrets.token_hex(8)}-00"  # 00: nobody here records it
            yield Trace(request_id, _written(span) or traceparent or ours, span)

    @contextmanager
    def attempt(self, trace: Trace, server: str, headers: Mapping[str, str]) -> Iterator[dict[str, str]]:
        """The headers of one attempt of a call, in a span of its own."""
        with self._span("bertrec.attempt", trace.span, {"server.address": server}) as span:
            yield {**headers, REQUEST_ID: trace.request_id, TRACEPARENT: _written(span) or trace.traceparent}

    @contextmanager
    def _span(self, name: str, parent: object, about: Mapping[str, object]) -> Iterator[object]:
        """An OpenTelemetry span, None without it. Never made the current one: steps of several calls alternate in a thread."""
        if self._api is None:
            yield None
            return
        api = self._api
        context = None if parent is None else api.set_span_in_context(parent)
        span = api.get_tracer("bertrec.client").start_span(name, context, kind=api.SpanKind.CLIENT, attributes=about)
        try:
            yield span
        except BaseException as error:
            span.record_exception(error)
            span.set_status(api.Status(api.StatusCode.ERROR, type(error).__name__))
            raise
        finally:
            span.end()

    def _remote(self, traceparent: str | None) -> object:
        """The caller's span, as OpenTelemetry sees one of another process."""
        if self._api is None or traceparent is None:
            return None
        _, trace_id, span_id, flags = (int(part, 16) for part in traceparent.split("-"))
        context = self._api.SpanContext(trace_id, span_id, is_remote=True, trace_flags=self._api.TraceFlags(flags))
        return self._api.NonRecordingSpan(context)


def _written(span: object) -> str | None:
    """The span's traceparent; None where there is none, as with an API without its SDK."""
    get_context = getattr(span, "get_span_context", None)
    if get_context is None or not (context := get_context()).is_valid:
        return None
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"


def _checked_id(request_id: object) -> str:
    if not isinstance(request_id, str) or not _REQUEST_ID.fullmatch(request_id):
        raise InvalidInput(f"request_id is {request_id!r}; accepted are 1 to 128 printable ASCII characters without spaces")
    return request_id


def _checked_traceparent(traceparent: object) -> None:
    if not isinstance(traceparent, str) or not _TRACEPARENT.fullmatch(traceparent):
        raise InvalidInput(f"traceparent is {traceparent!r}; accepted is W3C's form: 00-32 hex digits-16 hex digits-2 hex digits")
