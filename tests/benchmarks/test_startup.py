"""Cold starts: real processes are started, answer, are weighed, and are gone."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.__main__ import main
from benchmarks.startup import memory_bytes


def test_every_way_of_serving_is_started(tiny_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "startup.json"
    arguments = ["startup", "--bundle", str(tiny_bundle), "--output", str(output), "--threads", "1"]
    assert main([*arguments, "--engines", "fp32", "--rounds", "1"]) == 0
    written = json.loads(output.read_text())
    assert [(row["engine"], row["way"]) for row in written["rows"]] == [
        ("fp32", "edge"),
        ("fp32", "edge server"),
        ("fp32", "triton"),
    ]
    for row in written["rows"]:
        assert row["seconds"] > 0.05
        assert row["memory_bytes"] > 10e6
        assert row["engine_bytes"] == (tiny_bundle / "encoder/fp32.onnx").stat().st_size
    assert "engine MB on disk" in capsys.readouterr().out
    assert main([*arguments, "--engines", "fp64"]) == 2
    assert main([*arguments, "--ways", "elsewhere"]) == 2
    assert "accepted are edge, edge server, triton" in capsys.readouterr().err


def test_the_memory_of_a_process_includes_that_of_its_children() -> None:
    hold = "held = bytearray(b'x') * {size}; "
    child = [sys.executable, "-c", hold.format(size=40_000_000) + "print('there', flush=True); input()"]
    parent = f"import subprocess; subprocess.run({child!r})"
    with subprocess.Popen([sys.executable, "-c", parent], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "there\n"
        held = memory_bytes(process.pid)
        process.communicate("\n")
    assert 40_000_000 < held < 120_000_000
