"""How the command line shows answers: a table for people, one JSON object for programs."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from bertrec.answers import RankedItem

from .answer import Answer

HEADINGS = ("rank", "item", "title", "score", "reasons")
MOST_REASONS, LEAST_SCORE = 3, 0.005
"""Reasons that a row names: the weightiest, and none that shows as 0.00; ``--json`` has them all."""
RIGHT_ALIGNED = {"rank", "score"}


def as_table(answer: Answer) -> str:
    """The items as aligned columns, and a last line that says who answered."""
    rows = [HEADINGS, *(_row(rank, item) for rank, item in enumerate(answer.items, start=1))]
    lines = _aligned(rows) if answer.items else ["no item passes the filters, exclusions and rules"]
    if answer.items and answer.confident is False:
        lines.append("perhaps no good answer: even the first item is below the bundle's threshold of sureness")
    if answer.corrections:
        lines.append("read " + ", ".join(f"“{one.given}” as “{one.meant}”" for one in answer.corrections))
    if answer.rules:
        lines.append(f"rules that fired: {', '.join(answer.rules)}")
    if answer.truncated:
        lines.append("the text is longer than the encoder reads; it did not see the end")
    lines.append(
        f"served by {answer.served_by}, engine {answer.engine}, bundle {answer.bundle}, {answer.latency_ms:.1f} ms"
        + (f"; the server was unavailable ({answer.fallback_reason}); answered by the edge" if answer.degraded else "")
    )
    return "\n".join(printable(line) for line in lines)


def as_record(text: str, answer: Answer) -> Mapping[str, Any]:
    """What ``--json`` writes for one text; keys are only ever added."""
    return {
        "text": text,
        "items": [asdict(item) for item in answer.items],
        "rules": list(answer.rules),
        "corrections": [asdict(one) for one in answer.corrections],
        "confident": answer.confident,
        "truncated": answer.truncated,
        "engine": answer.engine,
        "bundle": answer.bundle,
        "served_by": answer.served_by.value,
        "degraded": answer.degraded,
        "fallback_reason": answer.fallback_reason,
        "latency_ms": round(answer.latency_ms, 3),
        "stages_ms": {name: round(took_ms, 3) for name, took_ms in answer.stages_ms.items()},
        "attempts": answer.attempts,
        "request_id": answer.request_id,
    }


def printable(line: str) -> str:
    """The line without control characters, with which an item's title could steer the terminal."""
    return "".join(" " if unicodedata.category(character) == "Cc" else character for character in line)


def _row(rank: int, item: RankedItem) -> tuple[str, ...]:
    shown = [reason for reason in item.reasons if abs(reason.score) >= LEAST_SCORE]
    weightiest = sorted(shown, key=lambda reason: -abs(reason.score))[:MOST_REASONS]
    reasons = "; ".join(f"{reason.sentence} {reason.score:+.2f}" for reason in weightiest)
    return str(rank), item.item_id, item.title, f"{item.score:.2f}", reasons


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(_width, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(map(_padded, row, widths, HEADINGS)).rstrip() for row in rows]


def _padded(cell: str, width: int, heading: str) -> str:
    space = " " * (width - _width(cell))
    return space + cell if heading in RIGHT_ALIGNED else cell + space


def _width(cell: str) -> int:
    """Columns that a terminal gives to the cell: two for each Chinese character, none for a combining accent."""
    return sum(0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in cell)
