"""How the command line shows answers: a table for people, one JSON object for programs."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from bertrec.answers import RankedItem

from .answer import Answer

HEADINGS = ("rank", "item", "title", "score", "reasons")
RIGHT_ALIGNED = {"rank", "score"}


def as_table(answer: Answer) -> str:
    """The items as aligned columns, and a last line that says who answered."""
    rows = [HEADINGS, *(_row(rank, item) for rank, item in enumerate(answer.items, start=1))]
    lines = _aligned(rows) if answer.items else ["no item passes the filters and exclusions"]
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
        "items": [_item_record(item) for item in answer.items],
        "truncated": answer.truncated,
        "engine": answer.engine,
        "bundle": answer.bundle,
        "served_by": answer.served_by.value,
        "degraded": answer.degraded,
        "fallback_reason": answer.fallback_reason,
        "latency_ms": round(answer.latency_ms, 3),
    }


def printable(line: str) -> str:
    """The line without control characters, with which an item's title could steer the terminal."""
    return "".join(" " if unicodedata.category(character) == "Cc" else character for character in line)


def _item_record(item: RankedItem) -> Mapping[str, Any]:
    reasons = [{**asdict(reason), "sentence": reason.sentence} for reason in item.reasons]
    return {**asdict(item), "reasons": reasons}


def _row(rank: int, item: RankedItem) -> tuple[str, ...]:
    reasons = "; ".join(f"{reason.sentence} {reason.score:+.2f}" for reason in item.reasons)
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
