"""Old and new results: what is noise, what is better, and what ends with exit status 1."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from benchmarks.__main__ import main
from benchmarks.compare import compare_results
from bertrec.errors import InvalidInput

ORIGIN = {"command": "python -m benchmarks throughput --bundle b", "cpu": "y", "cores": 2}


def result(path: Path, *, cpu: str = "y", command: str = "throughput", **engines: Sequence[int]) -> Path:
    rows = [{"engine": name, "texts": texts, "seconds": 1.0} for name, rates in engines.items() for texts in rates]
    origin = {**ORIGIN, "cpu": cpu, "command": f"python -m benchmarks {command}"}
    path.write_text(json.dumps({"provenance": origin, "rows": rows}))
    return path


def test_only_what_is_beyond_noise_is_a_change(tmp_path: Path) -> None:
    old = result(tmp_path / "old.json", fp32=[100, 101, 99, 100], int8=[200, 150, 240], static=[1000, 1001, 1002], gone=[1])
    new = result(tmp_path / "new.json", fp32=[80, 81, 79, 82], int8=[180, 230, 160], static=[1300, 1301, 1302], fresh=[1])
    changes = {change.name: change for change in compare_results(old, new)}
    assert {name: change.verdict for name, change in changes.items()} == {
        "fp32, texts/s": "worse",
        "int8, texts/s": "same",
        "static, texts/s": "better",
    }
    assert changes["fp32, texts/s"].ratio == pytest.approx(0.805)
    assert changes["fp32, texts/s"].high < 0.85


def test_a_change_that_is_sure_but_small_is_none(tmp_path: Path) -> None:
    old, new = result(tmp_path / "old.json", fp32=[1000] * 5), result(tmp_path / "new.json", fp32=[960] * 5)
    assert [change.verdict for change in compare_results(old, new)] == ["same"]


def test_the_command_ends_with_1_where_something_became_worse(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old, new = result(tmp_path / "old.json", fp32=[100] * 3), result(tmp_path / "new.json", fp32=[70] * 3)
    assert main(["compare", str(old), str(new)]) == 1
    assert main(["compare", str(new), str(old)]) == 0
    printed = capsys.readouterr()
    assert "0.700 (0.700…0.700)" in printed.out + printed.err


def test_what_cannot_be_compared_is_said(tmp_path: Path) -> None:
    old = result(tmp_path / "old.json", fp32=[1])
    with pytest.raises(InvalidInput, match="measure both on one machine"):
        compare_results(old, result(tmp_path / "other.json", cpu="z", fp32=[1]))
    with pytest.raises(InvalidInput, match="no engine or measure in common"):
        compare_results(old, result(tmp_path / "other.json", int8=[1]))
    with pytest.raises(InvalidInput, match="accepted are results of throughput, edge, latency"):
        compare_results(old, result(tmp_path / "other.json", command="quality", fp32=[1]))
    (tmp_path / "broken.json").write_text("{")
    with pytest.raises(InvalidInput, match="is no result of a benchmark"):
        compare_results(old, tmp_path / "broken.json")
