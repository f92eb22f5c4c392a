"""A user's own data: a folder with items, interactions and, if wanted, triples, each as .parquet, .csv or .jsonl.

    items           item_id, title?, text?; any further column is an attribute
    interactions    item_id, and any of text, user_id, timestamp, rating, label, split; may be absent if the items have texts
    triples         head, relation, tail; optional

Every complaint names file, row and column, what was found and what is accepted.
"""

from __future__ import annotations

import gc
import math
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import TypeVar

from bertrec.errors import InvalidData
from bertrec.text import MAX_CHARACTERS
from train.data import SPLITS, Dataset, Interaction, Item
from train.formats import SUFFIXES, Table, read_table, shown

ITEM_COLUMNS = ("item_id", "title", "text")
INTERACTION_COLUMNS = ("item_id", "text", "user_id", "timestamp", "rating", "label", "split")
TRIPLE_COLUMNS = ("head", "relation", "tail")

T = TypeVar("T")

_ACCEPTED_NAME = "text or a whole number, not empty"
_FIRST_SECOND = datetime(1, 1, 1, tzinfo=timezone.utc).timestamp()
_LAST_SECOND = datetime(9999, 12, 31, tzinfo=timezone.utc).timestamp()
_ACCEPTED_TIME = "seconds since 1970 (a number, not milliseconds) or an ISO 8601 date or time"


def read_folder(folder: Path) -> Dataset:
    """The data set in a folder, checked throughout; it is called what the folder is called.

    Raises InvalidData, naming file, row and column, for anything that breaks the contract at the top of this module.
    """
    items_path, interactions_path, triples_path = (_find(folder, kind) for kind in ("items", "interactions", "triples"))
    if items_path is None:
        raise InvalidData(f"{folder}: no {_file_names('items')}; found are {_listing(folder)}")
    with _collector_paused():
        items = read_items(items_path)
        interactions = _read_interactions(interactions_path, items_path, items) if interactions_path else ()
        triples = _read_triples(triples_path) if triples_path else ()
    if not any(item.own_text for item in items) and not any(interaction.text for interaction in interactions):
        others = (
            f"none in the column text of {interactions_path.name}"
            if interactions_path
            else f"{_file_names('interactions')} is absent"
        )
        raise InvalidData(
            f"{folder}: no usable text: found none in the columns title and text of {items_path.name}, and {others}; "
            "accepted is a data set in which at least one row has words to learn from"
        )
    return Dataset(folder.resolve().name, items, interactions, triples)


@contextmanager
def _collector_paused() -> Iterator[None]:
    """A million new rows and no cycles: the garbage collector would walk through them ten times, a third of the whole time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _find(folder: Path, kind: str) -> Path | None:
    found = [folder / f"{kind}{suffix}" for suffix in SUFFIXES if (folder / f"{kind}{suffix}").exists()]
    if len(found) > 1:
        raise InvalidData(f"{folder}: found {' and '.join(path.name for path in found)}; accepted is one file of {kind}")
    return found[0] if found else None


def _file_names(kind: str) -> str:
    return f"{kind}.{{{','.join(suffix[1:] for suffix in SUFFIXES)}}}"


def _listing(folder: Path) -> str:
    names = sorted(path.name for path in folder.iterdir())
    return (", ".join(names[:10]) + (f" and {len(names) - 10} more" if len(names) > 10 else "")) or "no files at all"


def read_items(path: Path) -> tuple[Item, ...]:
    """The items of one file. Raises InvalidData, naming file, row and column."""
    table = read_table(path, required=("item_id",))
    item_ids = _converted(table, "item_id", _name, accepted=_ACCEPTED_NAME)
    first_row: dict[str, int] = {}
    for row, item_id in enumerate(item_ids):
        if first_row.setdefault(item_id, row) != row:
            found = f"{item_id!r}, which {table.place(first_row[item_id])} has as well"
            raise table.error(row, "item_id", found=found, accepted="an item_id that no other row has")
    texts = [_converted(table, column, _text, accepted="text") for column in ("title", "text")]
    return tuple(map(Item, item_ids, *texts, _attributes(table)))


def _attributes(table: Table) -> list[dict[str, str]]:
    attributes: list[dict[str, str]] = [{} for _ in range(table.row_count)]
    for column in table.columns:
        if column not in ITEM_COLUMNS:
            values = _converted(table, column, _attribute, accepted="text, a finite number, true, false or nothing")
            for row, value in enumerate(values):
                if value:
                    attributes[row][column] = value
    return attributes


def _read_interactions(path: Path, items_path: Path, items: Sequence[Item]) -> tuple[Interaction, ...]:
    table = read_table(path, required=("item_id",), known=INTERACTION_COLUMNS)
    return tuple(
        map(
            Interaction,
            _item_indices(table, items_path, items),
            _converted(table, "text", _text, accepted="text"),
            _converted(table, "user_id", _optional_name, accepted="text or a whole number"),
            _converted(table, "timestamp", _timestamp, accepted=_ACCEPTED_TIME),
            _converted(table, "rating", _number, accepted="a finite number"),
            _converted(table, "label", _label, accepted="a finite number, true or false"),
            _converted(table, "split", _split, accepted=f"{', '.join(SPLITS)}, or empty: drawn by seed"),
        )
    )


def _item_indices(table: Table, items_path: Path, items: Sequence[Item]) -> list[int]:
    index_of = {item.item_id: index for index, item in enumerate(items)}
    item_ids = _converted(table, "item_id", _name, accepted=_ACCEPTED_NAME)
    indices = [index_of.get(item_id, -1) for item_id in item_ids]
    if -1 in indices:
        row = indices.index(-1)
        some = ", ".join(repr(item.item_id) for item in items[:3])
        found = f"{shown(item_ids[row])}, which {items_path.name} does not have"
        raise table.error(row, "item_id", found=found, accepted=f"one of its {len(items)} item_ids, such as {some}")
    return indices


def _read_triples(path: Path) -> tuple[tuple[str, str, str], ...]:
    table = read_table(path, required=TRIPLE_COLUMNS, known=TRIPLE_COLUMNS)
    head, relation, tail = (_converted(table, column, _name, accepted=_ACCEPTED_NAME) for column in TRIPLE_COLUMNS)
    return tuple(zip(head, relation, tail, strict=True))


def _converted(table: Table, column: str, convert: Callable[[object], T], *, accepted: str) -> list[T]:
    """A column's values, each distinct one converted once; a ValueError of ``convert`` becomes InvalidData with its place."""
    values = table.column(column)
    keys: Sequence[object] = values
    if bool in set(map(type, values)):  # as keys, True == 1
        keys = [(type(value), value) for value in values]
    results: dict[object, T] = {}
    for key, value in dict(zip(keys, values, strict=True)).items():
        try:
            results[key] = convert(value)
        except ValueError:
            raise table.error(keys.index(key), column, found=shown(value), accepted=accepted) from None
    return list(map(results.__getitem__, keys))


def _name(value: object) -> str:
    """An id or another name: text as it stands, or a whole number."""
    if isinstance(value, str) and _readable(value):
        return value
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    raise ValueError


def _optional_name(value: object) -> str:
    return "" if _missing(value) else _name(value)


def _text(value: object) -> str:
    """The text as it stands, newlines included; empty where there is nothing to read."""
    if _missing(value):
        return ""
    if not isinstance(value, str):
        raise ValueError
    return value


def _number(value: object) -> float | None:
    """A number, also one written as text; None where it is missing."""
    if _missing(value):
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float, str)) or (isinstance(value, str) and "_" in value):
        raise ValueError
    try:
        number = float(value)
    except OverflowError:
        raise ValueError from None
    if math.isinf(number):
        raise ValueError
    return None if math.isnan(number) else number


def _label(value: object) -> float | None:
    word = str(value).strip().lower() if isinstance(value, (bool, str)) else ""
    return float(word == "true") if word in ("true", "false") else _number(value)


def _timestamp(value: object) -> float | None:
    """Seconds since 1970; a time without an offset is UTC."""
    try:
        seconds = _number(value)
    except ValueError:
        if not isinstance(value, str):
            raise
        moment = datetime.fromisoformat(value.strip())
        seconds = (moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)).timestamp()
    if seconds is not None and not _FIRST_SECOND <= seconds <= _LAST_SECOND:
        raise ValueError
    return seconds


def _split(value: object) -> str:
    split = "" if _missing(value) else value
    if not isinstance(split, str) or split not in ("", *SPLITS):
        raise ValueError
    return split


def _attribute(value: object) -> str:
    """The value as text, empty where it is missing; whole numbers without .0."""
    if _missing(value):
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        if math.isinf(value):
            raise ValueError
        return str(int(value)) if value.is_integer() else repr(value)
    return str(value).strip()


def _missing(value: object) -> bool:
    if isinstance(value, str):
        return not _readable(value)
    return value is None or (isinstance(value, float) and math.isnan(value))


def _readable(text: str) -> bool:
    """Whether :func:`bertrec.text.clean` would leave something: more than spaces and control characters."""
    return text[:1].isalnum() or any(unicodedata.category(character)[0] not in "ZC" for character in text[:MAX_CHARACTERS])
