"""The roofline: an engine's work is counted from its graph, fused or not, in fp32 or int8."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from benchmarks import roofline
from benchmarks.__main__ import main
from benchmarks.record import Record
from benchmarks.roofline import RooflineSettings, Work, measure_roofline, work_of
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


def test_an_engine_without_matrix_products_is_left_out(
    tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    table = numpy_helper.from_array(np.ones((10, 4), np.float32), "table")
    ids, out = (helper.make_tensor_value_info(name, kind, None) for name, kind in (("ids", 7), ("out", 1)))
    static = helper.make_model(
        helper.make_graph([helper.make_node("Gather", ["table", "ids"], ["out"])], "g", [ids], [out], [table])
    )
    onnx.save(static, str(tmp_path / "static.onnx"))
    assert work_of(tmp_path / "static.onnx", batch=BATCH, tokens=TOKENS).flops == 0

    def work(path: Path, *, batch: int, tokens: int) -> Work:
        return work_of(tmp_path / "static.onnx" if "int8" in path.name else path, batch=batch, tokens=tokens)

    monkeypatch.setattr(roofline, "work_of", work)
    record = Record(tmp_path / "roofline.json", {})
    measure_roofline(Bundle.open(tiny_bundle), RooflineSettings(batch=3, tokens=16, repeats=1, threads=1, side=64), record)
    assert [row["engine"] for row in record.rows] == ["fp32"]
    assert "int8 multiplies no matrices" in capsys.readouterr().err
