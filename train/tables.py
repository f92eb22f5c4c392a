"""A user's own data: a folder with items, interactions and, if wanted, triples, each as .parquet, .csv or .jsonl.

    items           item_id, title?, text?; any further column is an attribute
    interactions    item_id, and any of text, user_id, timestamp, rating, label, split; may be absent if the items have texts
    triples         head, relation, tail; optional

Every complaint names file, row and column, what was found and what is accepted.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path

from bertrec.errors import InvalidData
from bertrec.text import MAX_CHARACTERS
from train.data import SPLITS, Dataset, Interaction, Item
from train.formats import SUFFIXES, Table, read_table, shown

ITEM_COLUMNS = ("item_id", "title", "text")
INTERACTION_COLUMNS = ("item_id", "text", "user_id", "timestamp", "rating", "label", "split")
TRIPLE_COLUMNS = ("head", "relation", "tail")

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
    items = _read_items(items_path)
    interactions = _read_interactions(interactions_path, items_path, items) if interactions_path else ()
    triples = _read_triples(triples_path) if triples_path else ()
    if not any(item.own_text for item in items) and not any(interaction.text for interaction in interactions):
        raise InvalidData(
            f"{folder}: no usable text: found none in the columns title and text of {items_path.name}, and none in the column text of "
            f"{interactions_path.name if interactions_path else f'{_file_names('interactions')}, which is absent'}; "
            "accepted is a data set in which one of them has words to learn from"
        )
    return Dataset(folder.resolve().name, items, interactions, triples)


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


def _read_items(path: Path) -> tuple[Item, ...]:
    table = read_table(path, required=("item_id",))
    item_ids = _names(table, "item_id")
    first_row: dict[str, int] = {}
    for row, item_id in enumerate(item_ids):
        if first_row.setdefault(item_id, row) != row:
            found = f"{item_id!r}, which {table.place(first_row[item_id])} has as well"
            raise table.error(row, "item_id", found=found, accepted="an item_id that no other row has")
    attributes: list[dict[str, str]] = [{} for _ in item_ids]
    for name in table.columns:
        if name not in ITEM_COLUMNS:
            for row, value in enumerate(table.columns[name]):
                if text := _attribute(table, name, row, value):
                    attributes[row][name] = text
    return tuple(map(Item, item_ids, _texts(table, "title"), _texts(table, "text"), attributes))


def _read_interactions(path: Path, items_path: Path, items: Sequence[Item]) -> tuple[Interaction, ...]:
    table = read_table(path, required=("item_id",), known=INTERACTION_COLUMNS)
    index_of = {item.item_id: index for index, item in enumerate(items)}
    return tuple(
        map(
            Interaction,
            _item_indices(table, items_path, index_of),
            _texts(table, "text"),
            _names(table, "user_id", required=False),
            _timestamps(table),
            _numbers(table, "rating"),
            _numbers(table, "label", true_or_false=True),
            _splits(table),
        )
    )


def _read_triples(path: Path) -> tuple[tuple[str, str, str], ...]:
    table = read_table(path, required=TRIPLE_COLUMNS, known=TRIPLE_COLUMNS)
    return tuple(zip(_names(table, "head"), _names(table, "relation"), _names(table, "tail"), strict=True))


def _item_indices(table: Table, items_path: Path, index_of: Mapping[str, int]) -> list[int]:
    item_ids = _names(table, "item_id")
    indices = [index_of.get(item_id, -1) for item_id in item_ids]
    if -1 in indices:
        row = indices.index(-1)
        some = ", ".join(repr(item_id) for item_id in list(index_of)[:3])
        raise table.error(
            row,
            "item_id",
            found=f"{shown(item_ids[row])}, which {items_path.name} does not have",
            accepted=f"one of its {len(index_of)} item_ids, such as {some}",
        )
    return indices


def _names(table: Table, column: str, *, required: bool = True) -> list[str]:
    """Ids and other names: text as it stands, or whole numbers."""
    return [
        value if type(value) is str and _readable(value) else _name(table, column, row, value, required=required)
        for row, value in enumerate(table.column(column))
    ]


def _name(table: Table, column: str, row: int, value: object, *, required: bool) -> str:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if _missing(value) and not required:
        return ""
    raise table.error(row, column, found=shown(value), accepted="text or a whole number" + (", not empty" if required else ""))


def _texts(table: Table, column: str) -> list[str]:
    """Texts as they stand, newlines included; empty where there is nothing to read."""
    texts = []
    for row, value in enumerate(table.column(column)):
        if not (isinstance(value, str) or _missing(value)):
            raise table.error(row, column, found=shown(value), accepted="text")
        texts.append(value if isinstance(value, str) and _readable(value) else "")
    return texts


def _numbers(table: Table, column: str, *, true_or_false: bool = False) -> list[float | None]:
    accepted = "a finite number, true or false" if true_or_false else "a finite number"
    numbers: list[float | None] = []
    for row, value in enumerate(table.column(column)):
        if true_or_false and isinstance(value, (bool, str)) and str(value).strip().lower() in ("true", "false"):
            numbers.append(float(str(value).strip().lower() == "true"))
        elif _missing(value):
            numbers.append(None)
        elif (number := _number(value)) is not None and math.isfinite(number):
            numbers.append(None if math.isnan(number) else number)
        else:
            raise table.error(row, column, found=shown(value), accepted=accepted)
    return numbers


def _timestamps(table: Table) -> list[float | None]:
    """Seconds since 1970; times without an offset are UTC."""
    timestamps: list[float | None] = []
    for row, value in enumerate(table.column("timestamp")):
        if _missing(value):
            timestamps.append(None)
            continue
        seconds = _number(value)
        if seconds is None and isinstance(value, str):
            seconds = _from_iso(value)
        if seconds is None or not _FIRST_SECOND <= seconds <= _LAST_SECOND:
            raise table.error(row, "timestamp", found=shown(value), accepted=_ACCEPTED_TIME)
        timestamps.append(seconds)
    return timestamps


def _from_iso(value: str) -> float | None:
    try:
        moment = datetime.fromisoformat(value.strip())
    except ValueError:
        return None
    return (moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)).timestamp()


def _splits(table: Table) -> list[str]:
    splits = []
    for row, value in enumerate(table.column("split")):
        split = "" if _missing(value) else value
        if split and split not in SPLITS:
            raise table.error(row, "split", found=shown(value), accepted=f"{', '.join(SPLITS)}, or empty: drawn by seed")
        splits.append(str(split))
    return splits


def _attribute(table: Table, column: str, row: int, value: object) -> str:
    if isinstance(value, str):
        return value.strip() if _readable(value) else ""
    if _missing(value):
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        if math.isinf(value):
            raise table.error(row, column, found=shown(value), accepted="text, a finite number, true, false or nothing")
        return str(int(value)) if value.is_integer() else repr(value)
    return str(value)


def _number(value: object) -> float | None:
    """The number, also one written as text; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)) or (isinstance(value, str) and "_" in value):
        return None
    try:
        return float(value)
    except ValueError:
        return None
    except OverflowError:
        return math.inf


def _missing(value: object) -> bool:
    if isinstance(value, str):
        return not _readable(value)
    return value is None or (isinstance(value, float) and math.isnan(value))


def _readable(text: str) -> bool:
    """Whether :func:`bertrec.text.clean` would leave something: more than spaces and control characters."""
    return text.isalnum() or any(unicodedata.category(character)[0] not in "ZC" for character in text[:MAX_CHARACTERS])
