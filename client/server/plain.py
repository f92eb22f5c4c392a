"""POST /recommend: a wish in plain JSON, and its answer with the keys of ``bertrec recommend --json``."""

from __future__ import annotations

import json
from dataclasses import fields
from typing import Any

from bertrec.answers import Options
from bertrec.errors import InvalidInput
from bertrec.tensors import MAX_BATCH_SIZE

from .batcher import Answered
from .kserve import read_object
from .refusal import BAD_REQUEST, Refusal

OPTION_NAMES = tuple(field.name for field in fields(Options))


def read_request(body: bytes) -> tuple[tuple[str, ...], Options, bool]:
    """The texts, their options, and whether one text was sent and not a list. Raises Refusal (400)."""
    given = read_object(body)
    text = given.pop("text", "")
    if unknown := sorted(set(given) - set(OPTION_NAMES)):
        raise Refusal(BAD_REQUEST, f"the key {unknown[0]!r} is unknown; accepted are text, {', '.join(OPTION_NAMES)}")
    texts = text if isinstance(text, list) else [text]
    if not 1 <= len(texts) <= MAX_BATCH_SIZE or not all(isinstance(one, str) for one in texts):
        raise Refusal(BAD_REQUEST, f"text is neither a string nor a list of 1 to {MAX_BATCH_SIZE} strings")
    try:
        return tuple(texts), Options(**given), isinstance(text, str)
    except InvalidInput as error:
        raise Refusal(BAD_REQUEST, str(error)) from None


def write_response(texts: tuple[str, ...], answered: Answered, *, latency_ms: float, single: bool) -> bytes:
    """One record for one text, ``{"answers": [record, …]}`` for a list."""
    records: list[dict[str, Any]] = [
        {
            "text": text,
            **vars(recommendation),
            "served_by": "edge",
            "latency_ms": round(latency_ms, 3),
            "queue_ms": round(answered.queue_ms, 3),
            "compute_ms": round(answered.compute_ms, 3),
        }
        for text, recommendation in zip(texts, answered.recommendations, strict=True)
    ]
    content = records[0] if single else {"answers": records}
    return json.dumps(content, default=vars, separators=(",", ":"), ensure_ascii=False).encode()
