"""The curve over shares of the labels, on the tiny data set."""

from __future__ import annotations

import dataclasses
import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from benchmarks.labels import RANKERS, LabelSettings, labels_page, labels_table, measure_labels
from benchmarks.record import Record
from bertrec.errors import InvalidInput
from tests import tiny
from train.settings import PRESETS, Preset


def test_every_share_is_measured_with_every_method(tiny_backbone: Path, tmp_path: Path) -> None:
    data = tiny.write_data(tmp_path / "checkerboard", per_item=4)
    base = dataclasses.replace(PRESETS[Preset.QUICK], backbone=str(tiny_backbone), max_minutes=None, confidence=0.05)
    record = Record(tmp_path / "labels.json", {"source": str(data)})
    measure_labels(str(data), LabelSettings(base, (0.3, 1.0)), tmp_path / "runs", record)
    rows, content = record.rows, record.content
    assert json.loads((tmp_path / "labels.json").read_text())["rows"] == rows
    assert len(rows) == (4 + 3) * len(RANKERS)
    texts = {row["share"]: row["texts"] for row in rows if row["method"] == "labels alone"}
    assert texts[0.3] < texts[1.0]
    (accepted,) = {row["pseudo_labels"] for row in rows if row["method"] == "self-training"}
    guessing = next(row for row in rows if row["method"] == "self-training")
    assert guessing["texts"] - accepted == texts[0.3] and accepted > 0
    assert not any(row["pseudo_labels"] for row in rows if row["method"] != "self-training")
    fused = {(row["share"], row["method"]): row["ndcg_at_10"]["value"] for row in rows if row["ranker"] == "fused"}
    assert fused[1.0, "labels alone"] == 1.0
    console = Console(width=140, record=True, file=io.StringIO())
    console.print(labels_table(content))
    assert f"{fused[0.3, 'self-training']:.4f}" in console.export_text()
    page = labels_page(content)
    assert f"| method | 30% ({texts[0.3]} texts) | 100% ({texts[1.0]} texts) |" in page
    (line,) = [line for line in page.partition("## Text alone")[0].splitlines() if line.startswith("| self-training |")]
    assert line.startswith(f"| self-training | {fused[0.3, 'self-training']:.4f} (")
    assert line.endswith(f" min; {accepted} pseudo labels | – |")
    assert page.count("pseudo labels |") == len(RANKERS)


def test_no_share_is_refused() -> None:
    with pytest.raises(InvalidInput, match="no share of the labels"):
        LabelSettings(shares=())
