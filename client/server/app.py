"""The server's routes: KServe v2, plain JSON, the page, and what describes them."""

from __future__ import annotations

import asyncio
import time
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from bertrec.answers import Options
from bertrec.errors import InvalidInput
from bertrec.questions import Pairing, Question
from bertrec.tensors import EMBED, MATCH, QUESTIONS, RECOMMEND, ModelSpec

from . import kserve, plain
from .batcher import Answered, Batcher
from .limits import Limits
from .model import Asked, EdgeModel
from .openapi import as_page, description
from .refusal import BAD_REQUEST, BODY_TIMEOUT, BODY_TOO_LARGE, FAILED, LATE, NOT_FOUND, NOT_JSON, Refusal

HERE = Path(__file__).parent
PAGE_FILES = {"page.html": "text/html", "page.css": "text/css", "page.js": "text/javascript"}
SECURITY = {
    # The page loads nothing from elsewhere, and no other page may frame it or guess types of what it gets.
    "Content-Security-Policy": "default-src 'self'; img-src data:; style-src 'self' 'unsafe-inline'; "
    "frame-ancestors 'none'; base-uri 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}
Endpoint = Callable[[Request], Awaitable[Response]]


def create_app(model: EdgeModel, limits: Limits | None = None) -> Starlette:
    """The ASGI application that answers from ``model``. Nothing outside ``limits`` is accepted."""
    server = _Server(model, limits or Limits())
    by_version = f"/versions/{kserve.VERSION}"
    routes = [
        Route("/", _file("page.html")),
        *(Route(f"/{name}", _file(name)) for name in PAGE_FILES if name != "page.html"),
        Route("/docs", _constant(HTMLResponse(as_page(model.models), headers=SECURITY))),
        Route("/openapi.json", _constant(JSONResponse(description(model.models)))),
        Route("/attributes", _constant(JSONResponse({"attributes": model.attributes}))),
        Route("/metrics", server.metrics),
        *(Route(f"/{spec.name}", server.plain(spec), methods=["POST"]) for spec in QUESTIONS),
        Route("/v2", _constant(JSONResponse(kserve.server_metadata()))),
        Route("/v2/health/live", _constant(Response())),
        Route("/v2/health/ready", server.ready),
    ]
    for spec in QUESTIONS:
        if spec.name not in model.models:
            continue
        for prefix in (f"/v2/models/{spec.name}", f"/v2/models/{spec.name}{by_version}"):
            routes += [
                Route(prefix, _constant(JSONResponse(kserve.model_metadata(spec)))),
                Route(prefix + "/config", _constant(JSONResponse(kserve.model_config(spec)))),
                Route(prefix + "/ready", server.ready),
                Route(prefix + "/infer", server.infer(spec), methods=["POST"]),
            ]
    for prefix in ("/v2/models/{model}", "/v2/models/{model}" + by_version):
        unknown = _unknown(model.models)
        routes += [Route(prefix + path, unknown) for path in ("", "/config", "/ready")]
        routes.append(Route(prefix + "/infer", unknown, methods=["POST"]))
    handlers: Any = {Refusal: _refused, HTTPException: _not_found, Exception: _failed}
    return Starlette(routes=routes, lifespan=server.lifespan, exception_handlers=handlers)


class _Server:
    """One model behind one batcher."""

    def __init__(self, model: EdgeModel, limits: Limits) -> None:
        self._limits = limits
        self._model = model
        self._batcher: Batcher | None = None

    @asynccontextmanager
    async def lifespan(self, app: Starlette) -> AsyncIterator[None]:
        """Runs the batcher from the server's start to its end."""
        self._batcher = Batcher(self._model.answer, self._limits, joins=self._model.joins)
        self._batcher.start()
        yield
        await self._batcher.stop()

    async def ready(self, request: Request) -> Response:
        """200 where the model answers, else the status of a late one."""
        return Response(status_code=200 if self._batcher is not None and self._batcher.ready else LATE)

    def infer(self, spec: ModelSpec) -> Endpoint:
        """The endpoint of KServe's v2 protocol for one model."""

        async def endpoint(request: Request) -> Response:
            """Tensors in, tensors out."""
            asked = kserve.read_request(spec, await self._body(request), request.headers.get(kserve.HEADER_LENGTH))
            answered = await self._ask(asked.texts, [_question(spec, text) for text in asked.options])
            rows = answered.found if spec is EMBED else [one.to_json() for one in answered.found]
            body, headers = kserve.write_response(spec, rows, asked)
            return Response(body, headers={**headers, "Server-Timing": _timing(answered)})

        return endpoint

    def plain(self, spec: ModelSpec) -> Endpoint:
        """The endpoint of plain JSON for one model."""

        async def endpoint(request: Request) -> Response:
            """JSON in, JSON out."""
            if spec.name not in self._model.models:
                raise Refusal(NOT_FOUND, f"this bundle has no {spec.name}; it has {', '.join(self._model.models)}")
            # Only this type makes a browser ask first whether a page from elsewhere may send it.
            if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
                raise Refusal(NOT_JSON, "send the body as Content-Type: application/json")
            started = time.monotonic()
            texts, question, single = plain.read_request(spec, await self._body(request))
            answered = await self._ask(texts, [question] * len(texts))
            content = plain.write_response(texts, answered, latency_ms=1e3 * (time.monotonic() - started), single=single)
            return Response(content, media_type="application/json", headers={"Server-Timing": _timing(answered)})

        return endpoint

    async def metrics(self, request: Request) -> Response:
        """The batcher's counts in Prometheus' text format."""
        assert self._batcher is not None
        values = {f"bertrec_edge_{name}_total": value for name, value in vars(self._batcher.counts).items()}
        values["bertrec_edge_waiting_texts"] = self._batcher.waiting
        kinds = {name: "counter" if name.endswith("_total") else "gauge" for name in values}
        return PlainTextResponse("".join(f"# TYPE {name} {kinds[name]}\n{name} {value}\n" for name, value in values.items()))

    async def _ask(self, texts: tuple[str, ...], questions: Sequence[Question]) -> Answered:
        assert self._batcher is not None
        return await self._batcher.ask(Asked(texts, tuple(questions)))

    async def _body(self, request: Request) -> bytes:
        """The body, decompressed. Raises Refusal where it is too large, too slow or cut off."""
        most = self._limits.body_bytes
        too_large = Refusal(BODY_TOO_LARGE, f"the body is too large; accepted are {most} bytes")
        declared = request.headers.get("content-length", "0")
        if not declared.isdigit() or int(declared) > most:
            raise too_large
        try:
            body = await asyncio.wait_for(_read(request, most), self._limits.body_timeout_s)
        except asyncio.TimeoutError:
            message = f"the body did not arrive within {self._limits.body_timeout_s:g} s"
            raise Refusal(BODY_TIMEOUT, message) from None
        except ClientDisconnect:
            raise Refusal(BAD_REQUEST, "the connection was closed before the body's end") from None
        body = _decompressed(body, request.headers.get("content-encoding", "identity"), most)
        if len(body) > most:
            raise too_large
        return body


async def _read(request: Request, most: int) -> bytes:
    """The body, cut where it exceeds ``most`` bytes by a chunk."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > most:
            break
    return bytes(body)


def _decompressed(body: bytes, encoding: str, most: int) -> bytes:
    """At most ``most`` + 1 bytes of the body, which may be packed as tritonclient packs it."""
    if encoding == "identity":
        return body
    if encoding not in ("gzip", "deflate"):
        raise Refusal(NOT_JSON, f"Content-Encoding is {encoding!r}; accepted are gzip and deflate")
    unpacker = zlib.decompressobj(zlib.MAX_WBITS | 32)  # tells gzip from zlib by the header
    try:
        unpacked = unpacker.decompress(body, most + 1)
    except zlib.error as error:
        raise Refusal(BAD_REQUEST, f"the body is not {encoding} ({error})") from None
    if len(unpacked) <= most and not unpacker.eof:
        raise Refusal(BAD_REQUEST, f"the {encoding} body is cut off")
    return unpacked


def _question(spec: ModelSpec, options: str) -> Question:
    try:
        if spec is RECOMMEND:
            return Options.from_json(options)
        return Pairing.from_json(options) if spec is MATCH else plain.QUESTIONS[spec.name]()
    except InvalidInput as error:
        raise Refusal(BAD_REQUEST, str(error)) from None


def _timing(answered: Answered) -> str:
    return f"queue;dur={answered.queue_ms:.2f}, compute;dur={answered.compute_ms:.2f}"


def _constant(response: Response) -> Endpoint:
    async def endpoint(request: Request) -> Response:
        """The same for every request."""
        return response

    return endpoint


def _file(name: str) -> Endpoint:
    content = (HERE / name).read_bytes()
    return _constant(Response(content, media_type=f"{PAGE_FILES[name]}; charset=utf-8", headers=SECURITY))


def _unknown(models: Sequence[str]) -> Endpoint:
    async def endpoint(request: Request) -> Response:
        """Says which models there are."""
        name = request.path_params["model"]
        there = ", ".join(map(repr, models))
        raise Refusal(NOT_FOUND, f"Request for unknown model: {name!r} is not found; there is {there}")

    return endpoint


async def _refused(request: Request, error: Refusal) -> Response:
    return error.response()


async def _not_found(request: Request, error: HTTPException) -> Response:
    refusal = Refusal(error.status_code, f"{request.method} {request.url.path}: {error.detail}; see /docs").response()
    refusal.headers.update(error.headers or {})
    return refusal


async def _failed(request: Request, error: Exception) -> Response:
    return Refusal(FAILED, f"{type(error).__name__}; the server's log says more").response()
