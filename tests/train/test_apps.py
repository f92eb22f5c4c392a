"""The loader of the applications, on files of the same form as the fetched ones."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bertrec.errors import InvalidData
from train.apps import INTERACTIONS_FILE, ITEMS_FILE, load_apps
from train.data import TEST, TRAIN, Interaction, Item, split_interactions
from train.examples import make_examples

ITEMS = [
    {"item_id": "a.desktop", "title": "Ann", "text": "Draw pictures", "category": "Graphics|Viewer", "package": "ann"},
    {"item_id": "b.desktop", "title": "Bob", "text": "Play chess", "category": "", "package": "bob"},
]
ROWS = [
    {"item_id": "b.desktop", "text": "下国际象棋", "split": TEST, "query": "chinese summary"},
    {"item_id": "a.desktop", "text": "It draws circles and squares.", "split": TRAIN, "query": "english sentence"},
]


def write_apps(folder: Path, rows: list[dict[str, str]]) -> Path:
    for name, lines in ((ITEMS_FILE, ITEMS), (INTERACTIONS_FILE, rows)):
        (folder / name).write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return folder


def test_the_files_are_a_data_set(tmp_path: Path) -> None:
    dataset = load_apps(write_apps(tmp_path, ROWS))
    assert (dataset.name, dataset.items) == (
        "apps",
        (
            Item("a.desktop", "Ann", "Draw pictures", {"category": "Graphics|Viewer", "package": "ann"}),
            Item("b.desktop", "Bob", "Play chess", {"package": "bob"}),
        ),
    )
    assert dataset.interactions == (
        Interaction(1, "下国际象棋", split=TEST, segments={"query": "chinese summary", "item": "new"}),
        Interaction(
            0,
            "It draws circles and squares.",
            split=TRAIN,
            segments={"query": "english sentence", "item": "seen in training"},
        ),
    )


def test_a_new_application_is_ranked_by_its_own_text(tmp_path: Path) -> None:
    dataset = load_apps(write_apps(tmp_path, ROWS))
    examples = make_examples(dataset, split_interactions(dataset, 0))
    assert examples.own_texts == ["Ann. Draw pictures", "Bob. Play chess"]
    assert examples.counts.tolist() == [1, 0]
    assert (examples.test.texts, examples.test.items.tolist()) == (["下国际象棋"], [1])


def test_what_is_not_there_or_does_not_fit_is_said(tmp_path: Path) -> None:
    with pytest.raises(InvalidData, match="'apps' has not been fetched: .*items.jsonl is missing; fetch it with: make data-apps"):
        load_apps(tmp_path)
    write_apps(tmp_path, [*ROWS, {**ROWS[0], "item_id": "c.desktop"}])
    with pytest.raises(InvalidData, match=r"row 3.*column item_id: found 'c.desktop'; accepted is an item_id of items.jsonl"):
        load_apps(tmp_path)
