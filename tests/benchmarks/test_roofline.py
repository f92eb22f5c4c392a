"""The roofline: an engine's work is counted from its graph, fused or not, in fp32 or int8."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.__main__ import main
from benchmarks.roofline import work_of
from bertrec.bundle import Bundle
from bertrec.tensors import ENCODER

BATCH, TOKENS, HIDDEN, INNER, LAYERS = 3, 16, 32, 64, 2  # of tests.tiny
WEIGHTS = LAYERS * (4 * HIDDEN * HIDDEN + 2 * HIDDEN * INNER)
FLOPS = BATCH * TOKENS * (2 * WEIGHTS + LAYERS * 4 * TOKENS * HIDDEN)


@pytest.mark.parametrize(("engine", "width"), [("fp32", 4), ("int8", 1)])
def test_the_work_is_that_of_bert_by_hand(tiny_bundle: Path, engine: str, width: int) -> None:
    work = work_of(Bundle.open(tiny_bundle).engine_path(ENCODER.name, engine), batch=BATCH, tokens=TOKENS)
    assert (work.flops, work.weight_bytes, work.layers) == (FLOPS, width * WEIGHTS, LAYERS)


def test_every_engine_is_held_against_the_machine(tiny_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "roofline.json"
    arguments = ["roofline", "--bundle", str(tiny_bundle), "--output", str(output), "--threads", "1"]
    assert main([*arguments, "--batch", "3", "--tokens", "16", "--repeats", "3", "--side", "256"]) == 0
    written = json.loads(output.read_text())
    assert [(row["engine"], row["bound"], row["flops"]) for row in written["rows"]] == [
        ("fp32", "fp32", FLOPS),
        ("int8", "int8", FLOPS),
    ]
    assert all(0 < row["of_bound"] < 1 and len(row["seconds"]) == 3 for row in written["rows"])
    assert min(written["peak_gflops"].values()) > 0
    assert "of it" in capsys.readouterr().out
