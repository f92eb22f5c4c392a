"""Data sets: a user's folder in three formats and all that can be wrong with it, the bundled reviews, the split."""

from __future__ import annotations

import csv
import json
import logging
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import pytest

from bertrec.errors import InvalidData
from train.data import SPLITS, TEST, TRAIN, VALIDATION, Dataset, Interaction, Item, Split, split_interactions
from train.sources import load_dataset
from train.tables import read_folder

FORMATS = ("parquet", "csv", "jsonl")
TYPED = ("parquet", "jsonl")  # the formats that tell numbers from text
TEXTUAL = ("csv", "jsonl")  # the formats that have lines
Row = Mapping[str, object]
ITEMS: tuple[Row, ...] = (
    {"item_id": "a", "title": "Amber"},
    {"item_id": "b", "title": "Birch"},
    {"item_id": "c", "title": "Cedar"},
)
WISHES: tuple[Row, ...] = ({"item_id": "a", "text": "warm"}, {"item_id": "b", "text": "pale"}, {"item_id": "c", "text": "red"})


def write(path: Path, rows: Sequence[Row]) -> Path:
    """The rows in the format that the file's name says. In csv, None is an empty field."""
    if path.suffix == ".parquet":
        pyarrow.parquet.write_table(pa.Table.from_pylist([dict(row) for row in rows]), path)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    else:
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    return path


def folder_with(folder: Path, form: str, *, items: Sequence[Row] = ITEMS, interactions: Sequence[Row] = WISHES) -> Path:
    write(folder / f"items.{form}", items)
    if interactions:
        write(folder / f"interactions.{form}", interactions)
    return folder


def complaint(folder: Path) -> str:
    with pytest.raises(InvalidData) as caught:
        read_folder(folder)
    return str(caught.value)


def at(row: int, form: str) -> str:
    """How a row is named: in a csv file with a one-line header, the line is another number."""
    return f"row {row} (line {row + 1})" if form == "csv" else f"row {row}"


# What a good folder becomes


@pytest.mark.parametrize("form", FORMATS)
def test_items_have_texts_and_attributes_without_empty_values(tmp_path: Path, form: str) -> None:
    rows: list[Row] = [
        {"item_id": "007", "title": "Coat", "text": 'Warm,\nand "dry"', "colour": "red ", "price": 12.5, "stock": 3, "size": 4.0},
        {"item_id": "7", "title": None, "text": "  ", "colour": "", "price": None, "stock": None, "size": 4.5},
    ]
    dataset = read_folder(folder_with(tmp_path, form, items=rows, interactions=[{"item_id": "7", "text": "any"}]))
    size = "4.0" if form == "csv" else "4"  # csv holds text, which stays as it is written
    expected = {"colour": "red", "price": "12.5", "stock": "3", "size": size}
    assert dataset.items == (Item("007", "Coat", 'Warm,\nand "dry"', expected), Item("7", "", "", {"size": "4.5"}))
    assert dataset.interactions == (Interaction(1, "any"),)
    assert dataset.name == tmp_path.name


@pytest.mark.parametrize("form", TYPED)
def test_true_and_false_are_attributes(tmp_path: Path, form: str) -> None:
    rows = [{"item_id": 1, "text": "x", "new": True}, {"item_id": 2, "text": "y", "new": False}]
    assert [item.attributes for item in read_folder(folder_with(tmp_path, form, items=rows, interactions=[])).items] == [
        {"new": "true"},
        {"new": "false"},
    ]


def test_one_and_true_in_one_column_stay_two_values(tmp_path: Path) -> None:
    rows: list[Row] = [{"item_id": number, "text": "x", "new": new} for number, new in enumerate((1, True, 1.0, False, 0))]
    items = read_folder(folder_with(tmp_path, "jsonl", items=rows, interactions=[])).items
    assert [item.attributes["new"] for item in items] == ["1", "true", "1", "false", "0"]


@pytest.mark.parametrize("form", FORMATS)
def test_interactions_have_every_column_of_the_contract(tmp_path: Path, form: str) -> None:
    full = {"item_id": "b", "text": "pale", "user_id": "u1", "timestamp": 86400.5, "rating": 4, "label": True, "split": "test"}
    none = dict.fromkeys(full, None) | {"item_id": "a"}
    dataset = read_folder(folder_with(tmp_path, form, interactions=[full, none]))
    assert dataset.interactions == (Interaction(1, "pale", "u1", 86400.5, 4.0, 1.0, "test"), Interaction(0))


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("number_of_items", [30, 100_000])
@pytest.mark.timeout(60)  # nothing is quadratic
def test_whole_numbers_are_ids(tmp_path: Path, form: str, number_of_items: int) -> None:
    items: list[Row] = [{"item_id": number, "title": f"item number {number}"} for number in range(number_of_items)]
    wishes: list[Row] = [
        {"item_id": number, "text": f"wish {number}", "user_id": 10 * number} for number in range(number_of_items)
    ]
    dataset = read_folder(folder_with(tmp_path, form, items=items, interactions=wishes[::-1]))
    assert [item.item_id for item in dataset.items] == [str(number) for number in range(number_of_items)]
    assert dataset.interactions[0] == Interaction(
        number_of_items - 1, f"wish {number_of_items - 1}", f"{10 * number_of_items - 10}"
    )
    assert [row.item for row in dataset.interactions] == list(range(number_of_items))[::-1]


@pytest.mark.parametrize("form", TYPED)
def test_ids_that_became_floats_are_whole_numbers_again(tmp_path: Path, form: str) -> None:
    wishes: list[Row] = [{"item_id": 7.0, "text": "warm", "user_id": 5.0}, {"item_id": 7.0, "text": "dry", "user_id": None}]
    dataset = read_folder(folder_with(tmp_path, form, items=[{"item_id": 7}], interactions=wishes))
    assert dataset.interactions == (Interaction(0, "warm", "5"), Interaction(0, "dry", ""))


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_split_is_kept(tmp_path: Path, form: str, split: str) -> None:
    dataset = read_folder(folder_with(tmp_path, form, interactions=[{"item_id": "a", "text": "warm", "split": split}]))
    assert dataset.interactions[0].split == split


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        ("1970-01-02", 86_400.0),
        ("1970-01-01T01:00:00", 3_600.0),
        ("1970-01-01T01:00:00Z", 3_600.0),
        ("1970-01-01 01:00:00+01:00", 0.0),
        ("1970-01-01T00:00:00.250", 0.25),
        ("1969-12-31T23:59:59Z", -1.0),
        ("1714557600", 1_714_557_600.0),
    ],
)
def test_timestamps_as_text_are_seconds_in_utc(tmp_path: Path, form: str, written: str, seconds: float) -> None:
    dataset = read_folder(folder_with(tmp_path, form, interactions=[{"item_id": "a", "text": "warm", "timestamp": written}]))
    assert dataset.interactions[0].timestamp == seconds


def test_times_without_an_offset_are_utc_wherever_the_machine_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder_with(tmp_path, "csv", interactions=[{"item_id": "a", "text": "warm", "timestamp": "1970-01-02"}])
    monkeypatch.setenv("TZ", "JST-9")
    time.tzset()
    try:
        assert read_folder(tmp_path).interactions[0].timestamp == 86_400.0
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.mark.parametrize("zone", [None, "UTC", "Europe/Berlin"])
@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_parquet_timestamps_are_seconds_in_utc(tmp_path: Path, unit: str, zone: str | None) -> None:
    moment = datetime(2024, 5, 1, 10, tzinfo=timezone.utc if zone else None)
    times = pa.array([moment, None], pa.timestamp(unit, zone))
    write(tmp_path / "items.parquet", ITEMS)
    pyarrow.parquet.write_table(pa.table({"item_id": ["a", "b"], "timestamp": times}), tmp_path / "interactions.parquet")
    assert [row.timestamp for row in read_folder(tmp_path).interactions] == [1_714_557_600.0, None]


def test_parquet_column_types_that_other_programs_write(tmp_path: Path) -> None:
    columns = {
        "item_id": pa.array([1, 2], pa.decimal128(10, 0)),
        "title": pa.array(["Coat", None]).dictionary_encode(),
        "text": pa.array(["warm", "dry"], pa.large_string()),
        "price": pa.array([4.3, 5.0], pa.float32()),
        "day": pa.array([0, None], pa.date32()),
        "group.name": pa.array(["x", "y"]),
        "none": pa.nulls(2),
        "__index_level_0__": pa.array([0, 1]),
    }
    pyarrow.parquet.write_table(pa.table(columns), tmp_path / "items.parquet")
    assert read_folder(tmp_path).items == (
        Item("1", "Coat", "warm", {"price": "4.3", "day": "1970-01-01", "group.name": "x"}),
        Item("2", "", "dry", {"price": "5", "group.name": "y"}),
    )


@pytest.mark.parametrize(
    ("written", "label"), [("true", 1.0), ("False", 0.0), ("1", 1.0), ("0.5", 0.5), ("", None), ("nan", None)]
)
def test_labels_in_csv(tmp_path: Path, written: str, label: float | None) -> None:
    dataset = read_folder(folder_with(tmp_path, "csv", interactions=[{"item_id": "a", "text": "warm", "label": written}]))
    assert dataset.interactions[0].label == label


@pytest.mark.parametrize("form", TYPED)
def test_not_a_number_is_missing(tmp_path: Path, form: str) -> None:
    nan = float("nan")
    items = [{"item_id": "a", "title": "Amber", "price": nan}, {"item_id": "b", "title": "Birch", "price": 2.0}]
    wishes = [{"item_id": "a", "text": "warm", "rating": nan, "timestamp": nan, "label": nan}]
    dataset = read_folder(folder_with(tmp_path, form, items=items, interactions=wishes))
    assert [item.attributes for item in dataset.items] == [{}, {"price": "2"}]
    assert dataset.interactions == (Interaction(0, "warm"),)


def test_csv_of_a_spreadsheet(tmp_path: Path) -> None:
    """Byte-order mark, CRLF, blanks after commas, blank lines, the unnamed index column of pandas."""
    written = '\ufeff,item_id, title\r\n0,01, "Überwurf, rot"\r\n\r\n1,02, Mütze\r\n'
    (tmp_path / "items.csv").write_bytes(written.encode("utf-8"))
    assert read_folder(tmp_path).items == (Item("01", "Überwurf, rot"), Item("02", "Mütze"))


def test_jsonl_rows_may_lack_keys_and_blank_lines_count_as_lines(tmp_path: Path) -> None:
    (tmp_path / "items.jsonl").write_text(
        '\ufeff{"item_id": "a"}\n\n{"item_id": "b", "text": "red", "colour": "r"}\n{"text": "x"}\n'
    )
    message = complaint(tmp_path)
    assert "items.jsonl, row 3 (line 4), column item_id: found nothing" in message
    (tmp_path / "items.jsonl").write_text('\ufeff{"item_id": "a"}\n\n{"item_id": "b", "text": "red", "colour": "r"}\n')
    assert read_folder(tmp_path).items == (Item("a"), Item("b", "", "red", {"colour": "r"}))


@pytest.mark.parametrize("form", FORMATS)
def test_triples(tmp_path: Path, form: str) -> None:
    rows = [{"head": "a", "relation": "made of", "tail": "wool"}, {"head": "b", "relation": "made of", "tail": "07"}]
    write(folder_with(tmp_path, form) / f"triples.{form}", rows)
    assert read_folder(tmp_path).triples == (("a", "made of", "wool"), ("b", "made of", "07"))


@pytest.mark.parametrize("form", FORMATS)
def test_items_with_texts_need_no_interactions(tmp_path: Path, form: str) -> None:
    dataset = read_folder(folder_with(tmp_path, form, interactions=[]))
    assert (len(dataset.items), dataset.interactions, dataset.triples) == (3, (), ())


@pytest.mark.parametrize("form", FORMATS)
def test_unknown_interaction_columns_are_ignored_with_a_warning(
    tmp_path: Path, form: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        dataset = read_folder(
            folder_with(tmp_path, form, interactions=[{"item_id": "a", "text": "warm", "colour": "r", "shop": 3}])
        )
    assert dataset.interactions == (Interaction(0, "warm"),)
    assert [record.getMessage() for record in caplog.records] == [
        f"{tmp_path / f'interactions.{form}'}: ignored the columns colour, shop; "
        "known are item_id, text, user_id, timestamp, rating, label, split"
    ]


# What is refused, and how it is said


@pytest.mark.parametrize("form", FORMATS)
def test_unknown_item_id(tmp_path: Path, form: str) -> None:
    message = complaint(folder_with(tmp_path, form, interactions=[WISHES[0], {"item_id": "z9", "text": "pale"}]))
    assert f"interactions.{form}, {at(2, form)}, column item_id: found the text 'z9'" in message
    assert f"which items.{form} does not have; accepted is one of its 3 item_ids, such as 'a', 'b', 'c'" in message


@pytest.mark.parametrize("form", FORMATS)
def test_duplicate_item_id_names_both_rows(tmp_path: Path, form: str) -> None:
    message = complaint(folder_with(tmp_path, form, items=[*ITEMS, {"item_id": "b", "title": "Beech"}]))
    assert f"items.{form}, {at(4, form)}, column item_id: found 'b', which {at(2, form)} has as well" in message


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("kind", ["items", "interactions"])
@pytest.mark.parametrize("blank", [None, "", " \t"])
def test_missing_item_id(tmp_path: Path, form: str, kind: str, blank: str | None) -> None:
    folder_with(tmp_path, form)
    write(tmp_path / f"{kind}.{form}", [{"item_id": "a", "text": "warm"}, {"item_id": blank, "text": "pale"}])
    message = complaint(tmp_path)
    assert f"{kind}.{form}, {at(2, form)}, column item_id: found " in message
    assert "accepted is text or a whole number, not empty" in message


@pytest.mark.parametrize("form", TYPED)
@pytest.mark.parametrize(("wrong", "found"), [(1.5, "the number 1.5"), (True, "true/false (true)")])
def test_an_id_that_is_none(tmp_path: Path, form: str, wrong: object, found: str) -> None:
    message = complaint(folder_with(tmp_path, form, items=[{"item_id": wrong, "text": "x"}]))
    assert f"items.{form}, row 1, column item_id: found {found}; accepted is text or a whole number" in message


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("kind", ["items", "interactions", "triples"])
def test_empty_file(tmp_path: Path, form: str, kind: str) -> None:
    folder_with(tmp_path, form)
    (tmp_path / f"{kind}.{form}").write_bytes(b"")
    assert f"{kind}.{form}: found an empty file; accepted is a file with at least one row" in complaint(tmp_path)


@pytest.mark.parametrize("form", FORMATS)
def test_file_without_rows(tmp_path: Path, form: str) -> None:
    path = folder_with(tmp_path, form) / f"interactions.{form}"
    if form == "parquet":
        pyarrow.parquet.write_table(pa.table({"item_id": pa.array([], pa.string())}), path)
    else:
        path.write_text("item_id,text\n" if form == "csv" else "\n\n")
    assert f"interactions.{form}: found no rows" in complaint(tmp_path)


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize(
    ("kind", "column", "row"),
    [
        ("items", "item_id", {"id": "a", "title": "Amber"}),
        ("interactions", "item_id", {"item": "a", "text": "warm"}),
        ("triples", "relation", {"head": "a", "tail": "b"}),
    ],
)
def test_missing_column(tmp_path: Path, form: str, kind: str, column: str, row: Row) -> None:
    write(folder_with(tmp_path, form) / f"{kind}.{form}", [row])
    assert f"{kind}.{form}, column {column}: missing; found are the columns {', '.join(row)}" in complaint(tmp_path)


@pytest.mark.parametrize("form", TYPED)
@pytest.mark.parametrize(("kind", "column"), [("items", "title"), ("items", "text"), ("interactions", "text")])
@pytest.mark.parametrize(("wrong", "found"), [(17, "the number 17"), (2.5, "the number 2.5"), (True, "true/false (true)")])
def test_number_where_text_belongs(tmp_path: Path, form: str, kind: str, column: str, wrong: object, found: str) -> None:
    write(folder_with(tmp_path, form) / f"{kind}.{form}", [{"item_id": "a", column: None}, {"item_id": "b", column: wrong}])
    assert f"{kind}.{form}, row 2, column {column}: found {found}; accepted is text" in complaint(tmp_path)


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize(
    ("column", "wrong", "accepted"),
    [
        ("rating", "five", "a finite number"),
        ("rating", "true", "a finite number"),
        ("rating", "1_000", "a finite number"),
        ("rating", "inf", "a finite number"),
        ("label", "yes", "a finite number, true or false"),
        ("timestamp", "yesterday", "seconds since 1970 (a number, not milliseconds) or an ISO 8601 date or time"),
        ("timestamp", "1714557600000", "seconds since 1970 (a number, not milliseconds) or an ISO 8601 date or time"),
        ("split", "dev", "train, validation, test, or empty"),
        ("split", "Train", "train, validation, test, or empty"),
        ("split", "0", "train, validation, test, or empty"),
    ],
)
def test_text_that_a_column_does_not_accept(tmp_path: Path, form: str, column: str, wrong: str, accepted: str) -> None:
    rows = [{"item_id": "a", "text": "warm", column: ""}, {"item_id": "b", "text": "pale", column: wrong}]
    message = complaint(folder_with(tmp_path, form, interactions=rows))
    assert f"interactions.{form}, {at(2, form)}, column {column}: found the text '{wrong}'; accepted is {accepted}" in message


@pytest.mark.parametrize("form", TYPED)
@pytest.mark.parametrize(
    ("column", "wrong"),
    [("rating", float("inf")), ("rating", True), ("label", float("-inf")), ("timestamp", True), ("split", 0), ("user_id", 0.5)],
)
def test_value_of_a_wrong_kind(tmp_path: Path, form: str, column: str, wrong: object) -> None:
    message = complaint(folder_with(tmp_path, form, interactions=[{"item_id": "a", "text": "warm", column: wrong}]))
    assert f"interactions.{form}, row 1, column {column}: found " in message


def test_infinite_attribute(tmp_path: Path) -> None:
    message = complaint(folder_with(tmp_path, "parquet", items=[{"item_id": "a", "title": "Amber", "price": float("inf")}]))
    assert "items.parquet, row 1, column price: found the number inf; accepted is text, a finite number" in message


def test_number_too_large_for_a_float(tmp_path: Path) -> None:
    message = complaint(folder_with(tmp_path, "jsonl", interactions=[{"item_id": "a", "text": "warm", "rating": 10**400}]))
    assert "interactions.jsonl, row 1, column rating: found the number 1000" in message


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("blank", [None, "", " \n\t", "\x00\x07", "\u200b\u00a0", "\n" * 9_000 + "beyond what is read"])
@pytest.mark.parametrize("with_interactions", [True, False])
def test_no_usable_text(tmp_path: Path, form: str, blank: str | None, with_interactions: bool) -> None:
    wishes: list[Row] = [{"item_id": "a", "text": blank}] if with_interactions else []
    message = complaint(folder_with(tmp_path, form, items=[{"item_id": "a", "title": blank, "text": blank}], interactions=wishes))
    assert f"no usable text: found none in the columns title and text of items.{form}" in message
    expected = f"none in the column text of interactions.{form}" if wishes else "interactions.{parquet,csv,jsonl} is absent"
    assert expected in message


@pytest.mark.parametrize("form", TEXTUAL)
def test_text_that_is_not_utf8(tmp_path: Path, form: str) -> None:
    path = folder_with(tmp_path, form, interactions=[*WISHES[:2], {"item_id": "c", "text": "Überwurf"}]) / f"interactions.{form}"
    path.write_bytes(path.read_text(encoding="utf-8").encode("latin-1"))
    message = complaint(tmp_path)
    assert f"interactions.{form}, {at(3, form)}, column text: found the byte 0xdc, not UTF-8; accepted is UTF-8" in message


def test_parquet_text_that_is_not_utf8(tmp_path: Path) -> None:
    raw = pa.array([None, b"fine", "Überwurf".encode("latin-1")], pa.binary())
    text = pa.StringArray.from_buffers(3, raw.buffers()[1], raw.buffers()[2], raw.buffers()[0])
    write(tmp_path / "items.parquet", ITEMS)
    pyarrow.parquet.write_table(pa.table({"item_id": ["a", "b", "c"], "text": text}), tmp_path / "interactions.parquet")
    assert "interactions.parquet, row 3, column text: found the byte 0xdc, not UTF-8" in complaint(tmp_path)


@pytest.mark.parametrize("form", TEXTUAL)
def test_utf16_and_column_names_that_are_not_utf8(tmp_path: Path, form: str) -> None:
    path = folder_with(tmp_path, form) / f"items.{form}"
    content = path.read_text(encoding="utf-8")
    path.write_bytes(content.encode("utf-16"))
    assert f"items.{form}, " in (message := complaint(tmp_path)) and "found the byte 0xff, not UTF-8" in message
    path.write_bytes(content.replace("title", "größe").encode("latin-1"))
    place = "line 1" if form == "csv" else "row 1"
    assert f"items.{form}, {place}: found the byte 0xf6, not UTF-8 in the name of the column" in complaint(tmp_path)


def test_lone_surrogate(tmp_path: Path) -> None:
    folder_with(tmp_path, "jsonl")
    (tmp_path / "items.jsonl").write_text('{"item_id": "a", "title": "Amber"}\n{"item_id": "b", "title": "\\ud83d"}\n')
    assert "items.jsonl, row 2, column title: found a lone surrogate (U+D83D), not Unicode" in complaint(tmp_path)


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ('{"item_id": "b", "text": }', "row 2: found malformed JSON (Expecting value at character 26)"),
        ('{"item_id": "b"', "row 2: found malformed JSON ("),
        ('["b", "pale"]', "row 2: found a list"),
        ('"b"', "row 2: found the text 'b'"),
        ("null", "row 2: found null"),
        ("[" * 100_000, "row 2: found malformed JSON ("),
        ('{"item_id": "b", "text": ["pale"]}', "row 2, column text: found a list inside"),
        ('{"item_id": "b", "colour": {"name": "red"}}', "row 2, column colour: found an object inside"),
    ],
)
def test_json_lines_that_are_not_flat_objects(tmp_path: Path, line: str, found: str) -> None:
    (tmp_path / "items.jsonl").write_text(f'{{"item_id": "a", "text": "warm [new] {{red}}"}}\n{line}\n')
    message = complaint(tmp_path)
    assert f"items.jsonl, {found}" in message
    assert "accepted is " in message


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (
            'item_id,text\na,"two\nlines"\nb,pale,more\n',
            "row 2 (line 4): found 3 fields; accepted are 2, as in the header: item_id, text",
        ),
        ("item_id,text\na,warm\nb\n", "row 2 (line 3): found 1 fields; accepted are 2"),
        ('item_id,text\na,warm\nb,"left open\nc,red\n', "row 2 (line 3): found bad csv (unexpected end of data)"),
        ('item_id,text\na,"warm" coat\n', "row 1 (line 2): found bad csv ("),
        ("item_id,text,text\na,warm,dry\n", "line 1: found more than one column called text"),
    ],
)
def test_bad_csv(tmp_path: Path, content: str, found: str) -> None:
    (tmp_path / "items.csv").write_text(content)
    assert f"items.csv, {found}" in complaint(tmp_path)


@pytest.mark.parametrize("kind", ["items", "interactions"])
def test_unreadable_parquet(tmp_path: Path, kind: str) -> None:
    path = folder_with(tmp_path, "parquet") / f"{kind}.parquet"
    whole = path.read_bytes()
    for damaged in (b"not parquet at all", whole[: len(whole) // 2], whole[:4] + bytes(30) + whole[34:]):
        path.write_bytes(damaged)
        assert f"{kind}.parquet" in (message := complaint(tmp_path)) and "accepted is a" in message


@pytest.mark.parametrize(("values", "found"), [([None, ["x"]], "list<"), ([None, {"x": 1}], "struct<"), ([None, b"x"], "binary")])
def test_parquet_columns_of_other_kinds(tmp_path: Path, values: list[object], found: str) -> None:
    pyarrow.parquet.write_table(pa.table({"item_id": ["a", "b"], "tags": values}), tmp_path / "items.parquet")
    message = complaint(tmp_path)
    assert f"items.parquet, row 2, column tags: found {found}" in message
    assert "accepted are text, numbers, true/false and dates, not nested" in message


@pytest.mark.parametrize("kind", ["items", "interactions", "triples"])
def test_two_files_of_a_kind(tmp_path: Path, kind: str) -> None:
    folder_with(tmp_path, "csv")
    (tmp_path / f"{kind}.csv").touch()
    (tmp_path / f"{kind}.parquet").touch()
    assert f"found {kind}.parquet and {kind}.csv; accepted is one file of {kind}" in complaint(tmp_path)


def test_no_items_file(tmp_path: Path) -> None:
    (tmp_path / "item.csv").touch()
    assert "no items.{parquet,csv,jsonl}; found are item.csv" in complaint(tmp_path)


# Where a data set comes from


def test_source_is_a_folder(tmp_path: Path) -> None:
    assert load_dataset(str(folder_with(tmp_path, "csv"))) == read_folder(tmp_path)


@pytest.mark.parametrize("source", ["", " ", "shoes", "a/b/c"])
def test_source_is_neither(source: str) -> None:
    with pytest.raises(InvalidData) as caught:
        load_dataset(source)
    assert f"data source {source!r}: found neither" in str(caught.value)
    assert "the bundled data sets (clothing) and a folder with items.{parquet,csv,jsonl}" in str(caught.value)


def test_source_is_a_file(tmp_path: Path) -> None:
    with pytest.raises(InvalidData, match="found a file; accepted are"):
        load_dataset(str(write(tmp_path / "items.csv", ITEMS)))


def test_the_formats_agree(tmp_path: Path) -> None:
    fingerprints = set()
    for form in FORMATS:
        folder = tmp_path / form / "shop"
        folder.mkdir(parents=True)
        fingerprints.add(read_folder(folder_with(folder, form)).fingerprint)
    assert len(fingerprints) == 1
    assert fingerprints != {
        read_folder(folder_with(tmp_path, "csv", items=[*ITEMS, {"item_id": "d", "title": "Date"}])).fingerprint
    }


@pytest.fixture(scope="module")
def clothing() -> Dataset:
    return load_dataset("clothing")


def test_clothing_reviews(clothing: Dataset) -> None:
    assert (clothing.name, len(clothing.items), len(clothing.interactions)) == ("clothing", 1_179, 22_641)
    assert all(row.text.strip() for row in clothing.interactions)
    assert clothing.items[0] == Item("767", attributes={"division": "Initmates", "department": "Intimate", "class": "Intimates"})
    assert clothing.interactions[0] == Interaction(
        0,
        "Absolutely wonderful - silky and sexy and comfortable",
        rating=4.0,
        label=1.0,
        segments={"department": "Intimate", "age": "30 to 39"},
    )
    assert clothing.interactions[2].headline == "Some major design flaws"
    assert clothing.interactions[2].text.startswith("Some major design flaws. I had such high hopes")
    assert Counter(row.rating for row in clothing.interactions) == {5.0: 12_540, 4.0: 4_908, 3.0: 2_823, 2.0: 1_549, 1.0: 821}
    assert Counter(row.label for row in clothing.interactions) == {1.0: 18_540, 0.0: 4_101}
    assert {(row.user_id, row.timestamp, row.split) for row in clothing.interactions} == {("", None, "")}


def test_clothing_popularity(clothing: Dataset) -> None:
    reviews = Counter(clothing.items[row.item].item_id for row in clothing.interactions)
    assert reviews.most_common(3) == [("1078", 987), ("862", 778), ("1094", 735)]
    assert sum(count == 1 for count in reviews.values()) == 474
    assert sum(count <= 5 for count in reviews.values()) == 857
    assert sum(not item.attributes for item in clothing.items) == 7


# The split


def parts(split: Split) -> dict[str, list[int]]:
    return {name: split.part(name).tolist() for name in SPLITS}


def drawn(number: int) -> Dataset:
    return Dataset("drawn", (Item("a"),), tuple(Interaction(0, f"wish {row}") for row in range(number)))


@pytest.mark.parametrize(
    ("number", "sizes"), [(10, (8, 1, 1)), (30, (24, 3, 3)), (1_000, (800, 100, 100)), (22_641, (18_112, 2_264, 2_265))]
)
def test_split_is_80_10_10_and_complete(number: int, sizes: tuple[int, int, int]) -> None:
    split = split_interactions(drawn(number), 0)
    assert tuple(len(split.part(name)) for name in (TRAIN, VALIDATION, TEST)) == sizes
    assert sorted(row for part in parts(split).values() for row in part) == list(range(number))


def test_split_depends_on_the_seed_alone() -> None:
    assert parts(split_interactions(drawn(100), 3)) == parts(split_interactions(drawn(100), 3))
    assert parts(split_interactions(drawn(100), 3)) != parts(split_interactions(drawn(100), 4))
    assert split_interactions(drawn(100), 3).test.tolist() != list(range(90, 100))


def test_given_splits_are_honoured_and_the_rest_is_drawn() -> None:
    given = {0: TEST, 1: TRAIN, 2: VALIDATION, 3: TEST}
    rows = tuple(Interaction(0, f"wish {row}", split=given.get(row, "")) for row in range(54))
    found = parts(split_interactions(Dataset("given", (Item("a"),), rows), 0))
    assert [len(found[name]) for name in SPLITS] == [40 + 1, 5 + 1, 5 + 2]
    assert all(row in found[name] for row, name in given.items())
    assert sorted(row for part in found.values() for row in part) == list(range(54))


def test_a_split_given_throughout_is_taken_as_it_is(tmp_path: Path) -> None:
    rows = [{"item_id": "a", "text": f"wish {row}", "split": SPLITS[row % 3]} for row in range(9)]
    dataset = read_folder(folder_with(tmp_path, "csv", interactions=rows))
    assert parts(split_interactions(dataset, 5)) == {TRAIN: [0, 3, 6], VALIDATION: [1, 4, 7], TEST: [2, 5, 8]}


@pytest.mark.parametrize("form", FORMATS)
def test_a_small_shop(tmp_path: Path, form: str) -> None:
    """30 items, two wishes each, read and split."""
    items: list[Row] = [{"item_id": f"{number:03d}", "title": f"Lamp {number}", "watts": number} for number in range(30)]
    start = datetime(2024, 1, 1, tzinfo=timezone.utc)
    wishes: list[Row] = [
        {"item_id": f"{row % 30:03d}", "text": f"light number {row}", "timestamp": (start + timedelta(days=row)).isoformat()}
        for row in range(60)
    ]
    dataset = read_folder(folder_with(tmp_path, form, items=items, interactions=wishes))
    assert dataset.items[29] == Item("029", "Lamp 29", "", {"watts": "29"})
    assert dataset.interactions[31] == Interaction(1, "light number 31", timestamp=start.timestamp() + 31 * 86_400)
    assert [len(part) for part in parts(split_interactions(dataset, 0)).values()] == [48, 6, 6]
