"""The ranker benchmark runs both real rankers in turns, keeps every sample, and judges by the median of the ratios."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.__main__ import main
from benchmarks.ranker import RankerSamples, RankerSettings, ranker_table
from tests.benchmarks.interrupting import interrupted
from train.progress import show


def test_both_rankers_are_timed_pair_by_pair(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "results" / "ranker.json"
    assert main(["ranker", "--items", "300", "--pairs", "12", "--output", str(output)]) == 0
    written = json.loads(output.read_text())
    assert [(row["batch"], len(row["text"]), len(row["all_signals"])) for row in written["samples"]] == [(1, 12, 12), (8, 12, 12)]
    assert all(seconds > 0 for row in written["samples"] for part in ("text", "all_signals") for seconds in row[part])
    assert written["settings"]["threads"] == 1
    assert written["widths"] == {"text": 384, "lexical": 256, "graph": 64, "behaviour": 64, "prior": 1}
    assert written["provenance"]["versions"]["onnxruntime"]
    low, median, high = written["samples"][0]["ratio_quartiles"]
    assert low <= median <= high
    assert written["complete"]
    assert "ranking 300 items" in capsys.readouterr().out


def test_the_ratio_is_that_of_pairs_and_not_of_means(capsys: pytest.CaptureFixture[str]) -> None:
    # A slow spell makes both of a pair slow, and leaves their ratio.
    samples = RankerSamples(1, [0.001, 0.001, 0.1, 0.001, 0.001], [0.0025, 0.0025, 0.25, 0.002, 0.003])
    assert samples.ratio == pytest.approx((2.5, 2.5, 2.5))
    show(ranker_table([samples], RankerSettings(items=300)))
    printed = capsys.readouterr().out
    assert "2.50 (2.50–2.50)" in printed
    assert "missed by 0.50" in printed


def test_what_cannot_be_measured_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ranker", "--items", "0", "--output", str(tmp_path / "ranker.json")]) == 2
    assert "items is 0; accepted is 1 or more" in capsys.readouterr().err
    assert not (tmp_path / "ranker.json").exists()


def test_an_interrupted_run_keeps_the_batch_sizes_that_it_has(tmp_path: Path) -> None:
    output, pairs = tmp_path / "ranker.json", 2_000
    content, printed = interrupted(
        ["ranker", "--items", "300", "--pairs", str(pairs), "--output", str(output)], output, "samples"
    )
    assert [(row["batch"], len(row["text"]), len(row["all_signals"])) for row in content["samples"]] == [(1, pairs, pairs)]
    assert "ranking 300 items" in printed
