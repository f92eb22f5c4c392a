"""labels.json: what is written is read again, columns fall to their heads, and everything else is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from bertrec.errors import InvalidBundle, InvalidInput
from bertrec.labels import LABELS_FILE, Head, Labels

LABELS = Labels((Head("sentiment", ("negative", "neutral", "positive")), Head("kind", ("coat", "Tücher"))), "e" * 64)


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    path = LABELS.save(tmp_path / LABELS_FILE)
    assert Labels.load(path) == LABELS
    assert [file.name for file in tmp_path.iterdir()] == [LABELS_FILE]


def test_each_head_has_its_own_columns() -> None:
    row = [0.5, 0.25, 0.25, 0.125, 0.875]
    said = LABELS.split(np.asarray([row, row[::-1]], np.float32).clip(0, 1))
    assert said[0] == {
        "sentiment": {"negative": 0.5, "neutral": 0.25, "positive": 0.25},
        "kind": {"coat": 0.125, "Tücher": 0.875},
    }
    assert said[1]["sentiment"]["negative"] == 0.875
    assert LABELS.slices == {"sentiment": slice(0, 3), "kind": slice(3, 5)}
    assert LABELS.split(np.zeros((0, 5), np.float32)) == []


@pytest.mark.parametrize("wrong", [np.zeros((1, 4)), np.zeros(5), np.full((1, 5), np.nan), np.full((1, 5), 1.5)])
def test_what_is_no_output_of_the_heads_is_refused(wrong: NDArray[np.float64]) -> None:
    with pytest.raises(InvalidInput, match="the probabilities h"):
        LABELS.split(wrong.astype(np.float32))


@pytest.mark.parametrize(
    "content",
    [
        "[]",
        "{",
        '{"encoder": ""}',
        json.dumps({"heads": [], "encoder": ""}),
        json.dumps({"heads": [{"name": "kind", "labels": ["one"]}], "encoder": ""}),
        json.dumps({"heads": [{"name": "kind", "labels": ["one", "one"]}], "encoder": ""}),
        json.dumps({"heads": [{"name": "kind", "labels": [1, 2]}], "encoder": ""}),
        json.dumps({"heads": [{"name": "kind", "labels": "coat"}], "encoder": ""}),
        json.dumps({"heads": [{"name": "kind", "labels": ["a", "b"]}] * 2, "encoder": ""}),
        json.dumps({"heads": [{"name": "kind", "labels": ["a", "b"]}]}),
        json.dumps({"heads": [{"name": "kind", "labels": ["a", "b"]}], "encoder": 5}),
    ],
)
def test_another_file_is_refused(content: str, tmp_path: Path) -> None:
    (tmp_path / LABELS_FILE).write_text(content)
    with pytest.raises(InvalidBundle, match=r"labels.json names no heads and labels .*; make it again"):
        Labels.load(tmp_path / LABELS_FILE)


def test_a_missing_file_is_said(tmp_path: Path) -> None:
    with pytest.raises(InvalidBundle, match="FileNotFoundError"):
        Labels.load(tmp_path / LABELS_FILE)
