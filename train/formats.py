"""Parquet, csv and jsonl read into one shape: columns of plain Python values, and where each row stands in its file.

What the columns must hold is :mod:`train.tables`.
"""

from __future__ import annotations

import csv
import json
import logging
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet

from bertrec.errors import InvalidData

logger = logging.getLogger(__name__)

_SHOWN_CHARACTERS = 80
_SHOWN_COLUMNS = 20
_INDEX_COLUMN = re.compile(r"__index_level_\d+__|")  # what pandas calls its index in parquet and in csv


@dataclass(frozen=True)
class Table:
    """The rows of one file, column by column. A csv file holds text only, the others numbers and true/false as well."""

    path: Path
    columns: Mapping[str, Sequence[object]]
    row_count: int
    lines: Sequence[int] = ()  # the line that each row begins on; empty for parquet

    def column(self, name: str) -> Sequence[object]:
        """The values of one column; all None where the file does not have it."""
        return self.columns.get(name) or [None] * self.row_count

    def place(self, row: int) -> str:
        """Where to look for a row, counted from 1 without the header: ``row 3 (line 4)``."""
        return _place(row + 1, self.lines[row] if self.lines else row + 1)

    def error(self, row: int, column: str, *, found: str, accepted: str) -> InvalidData:
        """The error to raise about one value; ``row`` is counted from 0."""
        return InvalidData(f"{self.path}, {self.place(row)}, column {column}: found {found}; accepted is {accepted}")


def read_table(path: Path, *, required: Sequence[str], known: Sequence[str] = ()) -> Table:
    """The file as a table of its ``known`` columns, or of all columns if none are given.

    Raises InvalidData, naming file, row and column, for a file that is empty, damaged, not UTF-8 or without a ``required`` column.
    """
    try:
        if path.stat().st_size == 0:
            raise InvalidData(f"{path}: found an empty file; accepted is a file with at least one row")
        table, names = _READERS[path.suffix](path, known)
    except OSError as error:
        raise InvalidData(f"{path}: cannot be read: {error}; accepted is a whole, readable {path.suffix[1:]} file") from error
    _check_names(path, names, required)
    if not table.row_count:
        raise InvalidData(f"{path}: found no rows; accepted is a file with at least one row")
    ignored = [name for name in names if name not in table.columns]
    if ignored:
        logger.warning("%s: ignored the columns %s; known are %s", path, _listed(ignored), ", ".join(known) or "all others")
    for name, values in table.columns.items():
        _check_values(table, name, values)
    return table


def shown(value: object) -> str:
    """A value as error messages show it: its kind and, cut where it is long, its content."""
    content = repr(value)
    if len(content) > _SHOWN_CHARACTERS:
        content = content[:_SHOWN_CHARACTERS] + "…"
    if value is None or value == "":
        return "nothing"
    if isinstance(value, bool):
        return f"true/false ({str(value).lower()})"
    return f"the text {content}" if isinstance(value, str) else f"the number {content}"


def _read_parquet(path: Path, known: Sequence[str]) -> tuple[Table, list[str]]:
    try:
        file = pyarrow.parquet.ParquetFile(path)
        names = list(file.schema_arrow.names)
        _check_names(path, names, ())
        wanted = _wanted(names, known)
        arrow = file.read(columns=wanted).select(wanted)
        columns = {name: _arrow_values(path, name, arrow.column(name)) for name in wanted}
    except pa.ArrowException as error:
        raise InvalidData(f"{path}: found something that is not readable parquet ({error}); accepted is a parquet file") from error
    return Table(path, columns, arrow.num_rows), names


def _arrow_values(path: Path, name: str, column: Any) -> list[object]:  # noqa: ANN401  (pyarrow has no types)
    """Plain values: str, int, float, bool or None; dates as ISO 8601."""
    kind = column.type
    if pa.types.is_dictionary(kind):
        return _arrow_values(path, name, column.cast(kind.value_type))
    if pa.types.is_timestamp(kind):  # to UTC without an offset, which needs no time zone database
        column = column.cast(pa.timestamp(kind.unit))
    if pa.types.is_temporal(kind):
        column = column.cast(pa.string())
    elif pa.types.is_float32(kind):  # by way of text, so that 4.3 stays 4.3
        column = column.cast(pa.string()).cast(pa.float64())
    elif pa.types.is_decimal(kind):
        return [_from_decimal(value) for value in column.to_pylist()]
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        return _arrow_texts(path, name, column)
    plain = (pa.types.is_null, pa.types.is_boolean, pa.types.is_integer, pa.types.is_floating)
    if not any(is_kind(column.type) for is_kind in plain):
        row = next((row for row in range(len(column)) if column[row].is_valid), 0)
        raise InvalidData(
            f"{path}, {_place(row + 1)}, column {name}: found {kind}; accepted are text, numbers, true/false and dates, not nested"
        )
    return list(column.to_pylist())


def _from_decimal(value: Decimal | None) -> int | float | None:
    if value is None:
        return None
    return int(value) if value == value.to_integral_value() else float(value)


def _arrow_texts(path: Path, name: str, column: Any) -> list[object]:  # noqa: ANN401
    try:
        return list(column.to_numpy(zero_copy_only=False))  # ten times as quick as to_pylist
    except (pa.ArrowException, UnicodeDecodeError):
        for row, value in enumerate(column.cast(pa.large_binary()).to_pylist()):
            try:
                (value or b"").decode("utf-8")
            except UnicodeDecodeError as error:
                raise InvalidData(
                    f"{path}, {_place(row + 1)}, column {name}: found the byte 0x{value[error.start]:02x}, not UTF-8; accepted is UTF-8"
                ) from None
        raise


def _read_csv(path: Path, known: Sequence[str]) -> tuple[Table, list[str]]:
    rows: list[list[str]] = []
    lines: list[int] = []
    names: list[str] = []
    with path.open("rb") as file:
        reader = csv.reader(_decoded(file), strict=True, skipinitialspace=True)
        line = 1
        try:
            for fields in reader:
                if not names:
                    names = [field.strip() for field in fields]
                elif fields:  # a blank line is no row
                    rows.append(fields)
                    lines.append(line)
                    if len(fields) != len(names):
                        raise InvalidData(
                            f"{path}, {_place(len(rows), line)}: found {len(fields)} fields; "
                            f"accepted are {len(names)}, as in the header: {_listed(names)}"
                        )
                line = reader.line_num + 1
        except csv.Error as error:
            hint = "fields quoted as RFC 4180 says, at most 131,072 characters each; is a quote left open?"
            raise InvalidData(f"{path}, {_place(len(rows) + 1, line)}: found bad csv ({error}); accepted are {hint}") from None
    _check_names(path, names, ())
    by_position = list(zip(*rows, strict=True)) or [()] * len(names)
    columns = {name: by_position[names.index(name)] for name in _wanted(names, known)}
    return Table(path, columns, len(rows), lines), names


def _read_jsonl(path: Path, known: Sequence[str]) -> tuple[Table, list[str]]:
    rows: list[dict[str, object]] = []
    lines: list[int] = []
    names: dict[str, None] = {}  # a set that keeps its order
    with path.open("rb") as file:
        for line, text in enumerate(_decoded(file), start=1):
            if not text.strip():
                continue
            row = _json_object(path, _place(len(rows) + 1, line), text)
            rows.append(row)
            lines.append(line)
            if not row.keys() <= names.keys():
                names.update(dict.fromkeys(row))
    columns = {name: [row.get(name) for row in rows] for name in _wanted(list(names), known)}
    return Table(path, columns, len(rows), lines), list(names)


def _json_object(path: Path, place: str, text: str) -> dict[str, object]:
    try:
        row = json.loads(text)
    except (ValueError, RecursionError) as error:
        found = _not_unicode(text) or f"malformed JSON ({error})"
        raise InvalidData(f"{path}, {place}: found {found}; accepted is one JSON object a line, in UTF-8") from None
    if not isinstance(row, dict):
        raise InvalidData(f"{path}, {place}: found {_shown_json(row)}; accepted is one JSON object a line")
    return row


_READERS: Mapping[str, Callable[[Path, Sequence[str]], tuple[Table, list[str]]]] = {
    ".parquet": _read_parquet,
    ".csv": _read_csv,
    ".jsonl": _read_jsonl,
}
SUFFIXES = tuple(_READERS)


def _decoded(file: Iterator[bytes]) -> Iterator[str]:
    """The lines as text. A byte that is not UTF-8 becomes a lone surrogate, found once its row and column are known."""
    for number, line in enumerate(file):
        text = line.decode("utf-8", "surrogateescape")
        yield text.removeprefix("\ufeff") if number == 0 else text


def _wanted(names: Sequence[str], known: Sequence[str]) -> list[str]:
    return [name for name in names if (name in known if known else not _INDEX_COLUMN.fullmatch(name))]


def _check_names(path: Path, names: Sequence[str], required: Sequence[str]) -> None:
    for name in names:
        if not name.isascii() and (found := _not_unicode(name)):
            raise InvalidData(f"{path}: found {found} in the name of the column {name!r}; accepted is UTF-8")
    twice = sorted({name for name in names if name and names.count(name) > 1}) if len(set(names)) < len(names) else []
    if twice:
        raise InvalidData(f"{path}, column {twice[0]}: found twice; accepted is one column of a name")
    for name in required:
        if name not in names:
            raise InvalidData(f"{path}, column {name}: missing; found are the columns {_listed(names)}; accepted is a file with {name}")


def _check_values(table: Table, name: str, values: Sequence[object]) -> None:
    for row, value in enumerate(values):
        if isinstance(value, str):
            if not value.isascii() and (found := _not_unicode(value)):
                raise table.error(row, name, found=found, accepted="UTF-8 text")
        elif isinstance(value, (dict, list)):
            raise table.error(row, name, found=_shown_json(value), accepted="text, a number, true, false or null")


def _not_unicode(text: str) -> str:
    """What in the text is no Unicode: a byte that was not UTF-8 or a lone surrogate; empty if all is well."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        code = ord(text[error.start])
        if 0xDC80 <= code <= 0xDCFF:  # surrogateescape
            return f"the byte 0x{code - 0xDC00:02x}, not UTF-8"
        return f"a lone surrogate (U+{code:04X}), not Unicode"
    return ""


def _shown_json(value: object) -> str:
    if isinstance(value, (dict, list)):
        return f"a nested {'object' if isinstance(value, dict) else 'list'} ({json.dumps(value)[:_SHOWN_CHARACTERS]})"
    return "null" if value is None else shown(value)


def _listed(names: Sequence[str]) -> str:
    more = len(names) - _SHOWN_COLUMNS
    return ", ".join(name or "(no name)" for name in names[:_SHOWN_COLUMNS]) + (f" and {more} more" if more > 0 else "")


def _place(row: int, line: int | None = None) -> str:
    return f"row {row}" if line in (None, row) else f"row {row} (line {line})"
