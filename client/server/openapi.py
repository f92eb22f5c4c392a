"""The OpenAPI description of the server, and the page at /docs, which needs no network."""

from __future__ import annotations

import html
import json
from collections.abc import Sequence
from typing import Any

from bertrec import __version__
from bertrec.answers import DEFAULT_K, MAX_POPULARITY
from bertrec.questions import MOST_ITEMS
from bertrec.rules import MOST_RULES
from bertrec.tensors import MAX_BATCH_SIZE, MAX_K, QUESTIONS, ModelSpec

from . import kserve

STRINGS: dict[str, Any] = {"type": "array", "items": {"type": "string"}}
WISH: dict[str, Any] = {
    "type": "object",
    "additionalProperties": False,
    "properties": {
        "text": {
            "description": "What is wanted, or a list of wishes. May be blank where history tells.",
            "oneOf": [
                {"type": "string"},
                {"type": "array", "items": {"type": "string"}, "minItems": 1, "maxItems": MAX_BATCH_SIZE},
            ],
        },
        "k": {"type": "integer", "minimum": 1, "maximum": MAX_K, "default": DEFAULT_K},
        "exclude": {**STRINGS, "description": "Item ids that must not come back."},
        "filters": {"type": "object", "additionalProperties": STRINGS, "description": "Attribute → accepted values."},
        "history": {**STRINGS, "description": "Item ids chosen before, the oldest first."},
        "popularity": {"type": "number", "minimum": 0, "maximum": MAX_POPULARITY, "default": 1},
        "diversity": {"type": "number", "minimum": 0, "maximum": 1, "default": 0},
        "rules": {"type": "array", "items": {"type": "object"}, "maxItems": MOST_RULES},
        "spelling": {"type": "boolean", "default": True},
        "rerank": {"type": "boolean", "default": False, "description": "Whether the bundle's matcher reorders the best."},
        "explain": {"type": "boolean", "default": True, "description": "Whether items come with their reasons."},
    },
}
TEXT_ALONE: dict[str, Any] = {
    "type": "object",
    "additionalProperties": False,
    "required": ["text"],
    "properties": {"text": {**WISH["properties"]["text"], "description": "One text, or a list of them."}},
}
PAIRS = {
    **TEXT_ALONE,
    "required": ["text", "items"],
    "properties": {
        **TEXT_ALONE["properties"],
        "items": {**STRINGS, "minItems": 1, "maxItems": MOST_ITEMS, "uniqueItems": True, "description": "Item ids."},
    },
}
EXAMPLE = {"text": "a warm coat that is not bulky", "k": 3}
OPTIONS_EXAMPLE = {"recommend": '{"k":3}', "match": '{"items":["3","7"]}'}
HEAD = (
    "<!doctype html><meta charset=utf-8><title>bertrec: API</title><link rel=stylesheet href=/page.css>"
    "<main><h1>The API (<a href=/openapi.json>OpenAPI</a>)</h1>"
)
REFUSALS = {
    "400": "what is wrong with the request",
    "404": "no such model",
    "408": "the body came too slowly",
    "413": "the body is too large",
    "415": "the body is of another type or packing",
    "429": "too many texts wait; Retry-After says when to come back",
    "500": "the server failed; its log says more",
    "503": "no answer in time; Retry-After says when to come back",
}


def description(models: Sequence[str]) -> dict[str, Any]:
    """OpenAPI 3.1. models: names of those that the bundle can be asked."""
    asked = "a warm coat"
    paths = {
        "/recommend": {"post": _operation("Rank items for a wish", body=WISH, example=EXAMPLE)},
        "/match": {"post": _operation("How well items fit a text", body=PAIRS, example={"text": asked, "items": ["3", "7"]})},
        "/classify": {"post": _operation("What a text is", body=TEXT_ALONE, example={"text": "It fell apart"})},
        "/embed": {"post": _operation("A text's interest vector", body=TEXT_ALONE, example={"text": asked})},
        "/attributes": {"get": _operation("Attributes to filter by, their values, and how many items have each")},
        "/v2": {"get": _operation("The server")},
        "/v2/health/live": {"get": _operation("Whether the process lives", content=None)},
        "/v2/health/ready": {"get": _operation("Whether it answers", content=None)},
        "/metrics": {"get": _operation("Counters for Prometheus", content="text/plain")},
    }
    for spec in QUESTIONS:
        if spec.name in models:
            paths |= _of_model(spec)
        else:
            del paths[f"/{spec.name}"]
    return {
        "openapi": "3.1.0",
        "info": {"title": "bertrec edge server", "version": __version__, "summary": "Ranked items for a wish, with reasons"},
        "paths": paths,
    }


def _of_model(spec: ModelSpec) -> dict[str, Any]:
    """The KServe paths of one model."""
    model = f"/v2/models/{spec.name}"
    infer = _operation("KServe v2 inference", body=_infer(spec), example=_infer_example(spec), infer=True)
    return {
        f"{model}/infer": {"post": infer},
        model: {"get": _operation("The model's tensors")},
        f"{model}/config": {"get": _operation("The model's configuration, as Triton names it")},
        f"{model}/ready": {"get": _operation("Whether the model answers", content=None)},
    }


def _infer(spec: ModelSpec) -> dict[str, Any]:
    tensor = {
        "type": "object",
        "required": ["name", "datatype", "shape", "data"],
        "properties": {
            "name": {"enum": [one.name for one in spec.inputs]},
            "datatype": {"const": "BYTES"},
            "shape": {
                "type": "array",
                "prefixItems": [{"type": "integer", "minimum": 1, "maximum": MAX_BATCH_SIZE}, {"const": 1}],
                "minItems": 2,
                "maxItems": 2,
            },
            "data": {**STRINGS, "minItems": 1, "maxItems": MAX_BATCH_SIZE, "description": "One string for each row."},
        },
    }
    return {
        "type": "object",
        "required": ["inputs"],
        "properties": {
            "id": {"type": "string"},
            "parameters": {"type": "object"},
            "inputs": {"type": "array", "items": tensor, "minItems": len(spec.inputs), "maxItems": len(spec.inputs)},
            "outputs": {"type": "array", "items": {"type": "object"}},
        },
    }


def _infer_example(spec: ModelSpec) -> dict[str, Any]:
    rows = {"TEXT": "a warm coat", "OPTIONS": OPTIONS_EXAMPLE.get(spec.name, "")}
    return {"inputs": [{"name": one.name, "datatype": "BYTES", "shape": [1, 1], "data": [rows[one.name]]} for one in spec.inputs]}


def as_page(models: Sequence[str]) -> str:
    """The description as HTML."""
    parts = [HEAD]
    for path, operations in description(models)["paths"].items():
        for method, operation in operations.items():
            parts.append(
                f"<section><h2><code>{method.upper()} {html.escape(path)}</code></h2><p>{html.escape(operation['summary'])}."
            )
            if "requestBody" in operation:
                content = operation["requestBody"]["content"]["application/json"]
                parts += [_json("Example", content["example"]), _json("Schema", content["schema"])]
            parts.append(f"<p>Answers: {', '.join(operation['responses'])}.</section>")
    return "".join([*parts, "</main>"])


def _json(title: str, content: object) -> str:
    return f"<h3>{title}</h3><pre>{html.escape(json.dumps(content, indent=2, ensure_ascii=False))}</pre>"


def _operation(
    summary: str,
    *,
    body: dict[str, Any] | None = None,
    example: object = None,
    content: str | None = "application/json",
    infer: bool = False,
) -> dict[str, Any]:
    good: dict[str, Any] = {"description": "as asked"}
    if content is not None:
        good["content"] = {content: {}}
    if body is None:
        return {"summary": summary, "responses": {"200": good, "503": {"description": REFUSALS["503"]}}}
    if infer:  # an answer may be binary tensors
        good["content"]["application/octet-stream"] = {}
        good["headers"] = {kserve.HEADER_LENGTH: {"schema": {"type": "integer"}}}
    return {
        "summary": summary,
        "requestBody": {"required": True, "content": {"application/json": {"schema": body, "example": example}}},
        "responses": {"200": good, **{status: {"description": text} for status, text in REFUSALS.items()}},
    }
