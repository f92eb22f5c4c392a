"""The edge benchmark asks in processes of its own, keeps every sample, and judges by medians."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.__main__ import main
from benchmarks.edge import EdgeRun, EdgeSettings, edge_table, measure_edge, twelve_words
from benchmarks.record import Record
from bertrec.errors import BertrecError, InvalidInput
from train.progress import show


def test_every_process_and_call_is_kept(tiny_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    texts, output = tmp_path / "texts.txt", tmp_path / "results/edge.json"
    texts.write_text("a denim dress\nan amber apron that is not very long\n")
    given = ["--texts", str(texts), "--engine", "int8", "--repetitions", "2", "--queries", "7", "--threads", "1"]
    assert main(["edge", "--bundle", str(tiny_bundle), "--output", str(output), *given]) == 0
    written = json.loads(output.read_text())
    assert [(run["engine"], len(run["seconds"])) for run in written["runs"]] == [("int8", 7)] * 2
    for run in written["runs"]:
        assert 20e6 < run["rss_bytes"] <= run["peak_bytes"] < 300e6
        assert all(run[name] > 0 for name in ("import_s", "open_s", "first_s", "cpu_s"))
    assert "engine int8, 12-word wishes" in capsys.readouterr().out


def test_wishes_have_twelve_words_each() -> None:
    wishes = twelve_words(["a denim dress", "warm"], 3)
    assert [len(wish.split()) for wish in wishes] == [12, 12, 12]
    assert wishes[0].startswith("a denim dress warm a denim")
    with pytest.raises(InvalidInput, match="the texts hold no words"):
        twelve_words([" "], 1)


def test_what_was_missed_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    run = EdgeRun(0.4, 0.5, 0.01, [0.002, 0.002, 0.002], 0.006, 100_000_000, 120_000_000, "fp32")
    show(edge_table([run]))
    lines = {line.split("│")[1].strip(): line for line in capsys.readouterr().out.splitlines() if "│" in line}
    assert "missed by 0.100" in lines["import, s"]
    assert "missed by 0.200" in lines["open, s"]
    assert "reached" in lines["p50, ms"]
    assert "2.00" in lines["CPU time a wish, ms"]


def test_what_cannot_be_measured_is_refused(tiny_bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="queries is 0; accepted is 1 or more"):
        EdgeSettings(queries=0)
    with pytest.raises(BertrecError, match="has no encoder engine 'fp8'"):
        measure_edge(
            tiny_bundle, ["red"], EdgeSettings(repetitions=1, queries=1, engine="fp8"), Record(tmp_path / "edge.json", {})
        )
