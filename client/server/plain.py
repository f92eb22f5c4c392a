"""POST /recommend, /match, /classify, /embed: plain JSON, and answers with the keys of ``bertrec recommend --json``."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any

from bertrec.answers import Options
from bertrec.errors import InvalidInput
from bertrec.questions import Classifying, Embedding, Pairing, Question
from bertrec.tensors import CLASSIFY, EMBED, MATCH, MAX_BATCH_SIZE, RECOMMEND, ModelSpec

from .batcher import Answered
from .kserve import read_object
from .refusal import BAD_REQUEST, Refusal

KEYS: Mapping[str, tuple[str, ...]] = {
    RECOMMEND.name: tuple(field.name for field in fields(Options)),
    MATCH.name: ("items",),
    CLASSIFY.name: (),
    EMBED.name: (),
}
"""Model → what a body may hold beside the text."""

QUESTIONS: Mapping[str, Callable[..., Question]] = {
    RECOMMEND.name: Options,
    MATCH.name: Pairing,
    CLASSIFY.name: Classifying,
    EMBED.name: Embedding,
}


def read_request(model: ModelSpec, body: bytes) -> tuple[tuple[str, ...], Question, bool]:
    """The texts, what is asked of them, and whether one text was sent and not a list. Raises Refusal (400)."""
    given = read_object(body)
    text = given.pop("text", "")
    keys = KEYS[model.name]
    if unknown := sorted(set(given) - set(keys)):
        raise Refusal(BAD_REQUEST, f"the key {unknown[0]!r} is unknown; accepted are {', '.join(('text', *keys))}")
    texts = text if isinstance(text, list) else [text]
    if not 1 <= len(texts) <= MAX_BATCH_SIZE or not all(isinstance(one, str) for one in texts):
        raise Refusal(BAD_REQUEST, f"text is neither a string nor a list of 1 to {MAX_BATCH_SIZE} strings")
    if model is MATCH and "items" not in given:
        raise Refusal(BAD_REQUEST, "items is missing; accepted is a list of item ids")
    try:
        return tuple(texts), QUESTIONS[model.name](**given), isinstance(text, str)
    except InvalidInput as error:
        raise Refusal(BAD_REQUEST, str(error)) from None


def write_response(texts: tuple[str, ...], answered: Answered, *, latency_ms: float, single: bool) -> bytes:
    """One record for one text, ``{"answers": [record, …]}`` for a list."""
    records: list[dict[str, Any]] = [
        {
            "text": text,
            **(vars(found) if hasattr(found, "bundle") else {"vector": found.tolist()}),
            "served_by": "edge",
            "latency_ms": round(latency_ms, 3),
            "queue_ms": round(answered.queue_ms, 3),
            "compute_ms": round(answered.compute_ms, 3),
        }
        for text, found in zip(texts, answered.found, strict=True)
    ]
    content = records[0] if single else {"answers": records}
    return json.dumps(content, default=vars, separators=(",", ":"), ensure_ascii=False).encode()
