"""Parquet, csv and jsonl read into one shape: columns of plain Python values, and where each row stands in its file.

What the columns must hold is :mod:`train.tables`.
"""

from __future__ import annotations

import csv
import json
import logging
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet

from bertrec.errors import InvalidData

logger = logging.getLogger(__name__)

_ESCAPE = "surrogateescape"  # bytes that are not UTF-8 become lone surrogates, refused once their row and column are known
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

    Raises InvalidData, naming file, row and column, if the file is empty, damaged or not UTF-8, or lacks a ``required`` column.
    """
    try:
        if path.stat().st_size == 0:
            raise InvalidData(f"{path}: found an empty file; accepted is a file with at least one row")
        table, names = _READERS[path.suffix](path, known)
    except OSError as error:
        raise InvalidData(f"{path}: cannot be read: {error}; accepted is a whole, readable {path.suffix[1:]} file") from error
    if not table.row_count:
        raise InvalidData(f"{path}: found no rows, a header at most; accepted is a file with at least one row")
    for name in required:
        if name not in names:
            raise InvalidData(
                f"{path}, column {name}: missing; found are the columns {_listed(names)}; accepted is a file with {name}"
            )
    ignored = [name for name in names if name not in table.columns]
    if ignored:
        logger.warning("%s: ignored the columns %s%s", path, _listed(ignored), f"; known are {', '.join(known)}" if known else "")
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
        with pyarrow.parquet.ParquetFile(path) as file:
            names = list(file.schema_arrow.names)
            _check_names(f"{path}", names)
            wanted = _wanted(names, known)
            arrow = file.read(columns=wanted)
            columns = {name: _arrow_values(path, name, arrow.column(name)) for name in wanted}
            return Table(path, columns, arrow.num_rows), names
    except (pa.ArrowException, UnicodeDecodeError) as error:
        raise InvalidData(
            f"{path}: found something that is not readable parquet ({error}); accepted is a parquet file"
        ) from error


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
        accepted = "text, numbers, true/false and dates, not nested"
        raise InvalidData(f"{path}, {_place(row + 1)}, column {name}: found {kind}; accepted are {accepted}")
    return list(column.to_pylist() if column.null_count else column.to_numpy().tolist())  # numpy is the quicker one


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
                found = f"the byte 0x{value[error.start]:02x}, not UTF-8"
                raise InvalidData(f"{path}, {_place(row + 1)}, column {name}: found {found}; accepted is UTF-8") from None
        raise


def _read_csv(path: Path, known: Sequence[str]) -> tuple[Table, list[str]]:
    names: list[str] = []
    columns: dict[str, list[object]] = {}
    lines: list[int] = []
    line = 1
    with path.open(encoding="utf-8-sig", errors=_ESCAPE, newline="") as file:
        reader = csv.reader(file, strict=True, skipinitialspace=True)
        try:
            for fields in reader:
                if not names:
                    names = [field.strip() for field in fields]
                    _check_names(f"{path}, line {line}", names)
                    columns = {name: [] for name in _wanted(names, known)}
                    positions = [(names.index(name), column) for name, column in columns.items()]
                elif fields:  # a blank line is no row
                    lines.append(line)
                    if len(fields) != len(names):
                        found = f"{len(fields)} fields; accepted are {len(names)}, as in the header: {_listed(names)}"
                        raise InvalidData(f"{path}, {_place(len(lines), line)}: found {found}")
                    for position, column in positions:
                        column.append(fields[position])
                    if not "".join(fields).isascii():
                        _check_row(Table(path, columns, len(lines), lines))
                line = reader.line_num + 1
        except csv.Error as error:
            accepted = "fields quoted as RFC 4180 says, at most 131,072 characters each; is a quote left open?"
            raise InvalidData(
                f"{path}, {_place(len(lines) + 1, line)}: found bad csv ({error}); accepted are {accepted}"
            ) from None
    return Table(path, columns, len(lines), lines), names


def _read_jsonl(path: Path, known: Sequence[str]) -> tuple[Table, list[str]]:
    names: dict[str, None] = {}  # a set that keeps its order
    columns: dict[str, list[object]] = {}
    lines: list[int] = []
    with path.open(encoding="utf-8-sig", errors=_ESCAPE, newline="\n") as file:
        for line, text in enumerate(file, start=1):
            if text.isspace():
                continue
            row = _json_object(path, len(lines) + 1, line, text)
            if not row.keys() <= names.keys():
                _check_names(f"{path}, {_place(len(lines) + 1, line)}", list(row))
                names.update(dict.fromkeys(row))
                for name in _wanted(list(row), known):
                    columns.setdefault(name, [None] * len(lines))
            lines.append(line)
            for name, column in columns.items():
                column.append(row.get(name))
            if not text.isascii() or "\\u" in text or text.rfind("{") > 0 or "[" in text:
                _check_row(Table(path, columns, len(lines), lines))
    return Table(path, columns, len(lines), lines), list(names)


def _json_object(path: Path, row: int, line: int, text: str) -> dict[str, object]:
    accepted = "one JSON object a line, in UTF-8"
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        why = f"{error.msg} at character {error.colno}" if isinstance(error, json.JSONDecodeError) else str(error)
        found = _not_unicode(text) or f"malformed JSON ({why})"
        raise InvalidData(f"{path}, {_place(row, line)}: found {found}; accepted is {accepted}") from None
    if not isinstance(value, dict):
        raise InvalidData(f"{path}, {_place(row, line)}: found {_shown_json(value)}; accepted is {accepted}")
    return value


_READERS: Mapping[str, Callable[[Path, Sequence[str]], tuple[Table, list[str]]]] = {
    ".parquet": _read_parquet,
    ".csv": _read_csv,
    ".jsonl": _read_jsonl,
}
SUFFIXES = tuple(_READERS)


def _wanted(names: Sequence[str], known: Sequence[str]) -> list[str]:
    return [name for name in names if (name in known if known else not _INDEX_COLUMN.fullmatch(name))]


def _check_names(place: str, names: Sequence[str]) -> None:
    for name in names:
        if not name.isascii() and (found := _not_unicode(name)):
            raise InvalidData(f"{place}: found {found} in the name of the column {name!r}; accepted is UTF-8")
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise InvalidData(f"{place}: found more than one column called {twice or '(no name)'}; accepted is one column of a name")


def _check_row(table: Table) -> None:
    """Refuse what is no Unicode, or nested, in the last row read so far; the readers ask where a quick test finds it possible."""
    row = table.row_count - 1
    for name, values in table.columns.items():
        value = values[row]
        if isinstance(value, (dict, list)):
            raise table.error(row, name, found=f"{_shown_json(value)} inside", accepted="text, a number, true, false or null")
        if isinstance(value, str) and (found := _not_unicode(value)):
            raise table.error(row, name, found=found, accepted="UTF-8 text")


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
        return "an object" if isinstance(value, dict) else "a list"
    return "null" if value is None else shown(value)


def _listed(names: Sequence[str]) -> str:
    more = len(names) - _SHOWN_COLUMNS
    return ", ".join(name or "(no name)" for name in names[:_SHOWN_COLUMNS]) + (f" and {more} more" if more > 0 else "")


def _place(row: int, line: int | None = None) -> str:
    return f"row {row}" if line in (None, row) else f"row {row} (line {line})"
