"""The throughput benchmark: windows of whole batches, in turns, over texts of all lengths."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import onnxruntime
import pytest

from benchmarks.__main__ import main
from benchmarks.throughput import BATCH, interval, sorted_batches, summary, window
from tests.tiny import ITEMS, item_text


def test_every_engine_gets_its_windows(tiny_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output, file = tmp_path / "throughput.json", tmp_path / "texts.txt"
    file.write_text("\n".join(item_text(number % ITEMS) for number in range(70)))
    arguments = ["throughput", "--bundle", str(tiny_bundle), "--output", str(output), "--texts", str(file)]
    assert main([*arguments, "--seconds", "0.05", "--rounds", "3", "--threads", "1"]) == 0
    written: dict[str, Any] = json.loads(output.read_text())
    order = [(row["round"], row["engine"]) for row in written["rows"]]
    assert order == [(0, "fp32"), (0, "int8"), (1, "int8"), (1, "fp32"), (2, "fp32"), (2, "int8")]
    assert all(row["seconds"] >= 0.05 and row["texts"] >= 6 and row["threads"] == 1 for row in written["rows"])
    assert written["engines"]["fp32"]["ratio"] == 1.0
    assert written["complete"]
    assert all(row["cores_used"] < 1.3 for row in written["rows"])  # one thread was asked for
    assert "times fp32" in capsys.readouterr().out
    assert {row["provider"] for row in written["rows"]} == {"CPUExecutionProvider"}
    assert main([*arguments, "--engines", "fp64"]) == 2
    assert "engines names fp64; accepted are fp32, int8" in capsys.readouterr().err


@pytest.mark.skipif("CUDAExecutionProvider" in onnxruntime.get_available_providers(), reason="this ONNX Runtime may find a GPU")
def test_without_a_gpu_what_ran_instead_is_noted_and_warned_of(
    tiny_bundle: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    output, file = tmp_path / "throughput.json", tmp_path / "texts.txt"
    file.write_text("a green gown\n")
    arguments = ["throughput", "--bundle", str(tiny_bundle), "--output", str(output), "--texts", str(file), "--engines", "fp32"]
    assert main([*arguments, "--seconds", "0.05", "--rounds", "1", "--threads", "1", "--device", "gpu"]) == 0
    written: dict[str, Any] = json.loads(output.read_text())
    assert written["settings"]["device"] == "gpu"
    assert {row["provider"] for row in written["rows"]} == {"CPUExecutionProvider"}
    assert "runs on CPUExecutionProvider; the GPU was asked for" in caplog.text


def test_batches_hold_every_text_once_among_its_like() -> None:
    texts = ["word " * (number * 37 % 100 + 1) for number in range(100)]
    together = sorted_batches(texts, seed=0)
    assert sorted(text for batch in together for text in batch) == sorted(texts)
    assert sorted(len(batch) for batch in together) == [100 % BATCH, BATCH, BATCH, BATCH]
    spans = sorted((min(map(len, batch)), max(map(len, batch))) for batch in together)
    assert all(one[1] <= other[0] for one, other in zip(spans, spans[1:], strict=False))
    assert together == sorted_batches(texts, seed=0)


def test_a_window_ends_with_the_batch_in_which_its_time_is_over() -> None:
    read: list[Sequence[str]] = []

    def slowly(batch: Sequence[str]) -> None:
        read.append(batch)
        time.sleep(0.03)

    found = window(slowly, [["a", "b"], ["c"]], 0.07)
    assert [*read] == [["a", "b"], ["c"], ["a", "b"], ["c"]][: len(read)]
    assert found.texts == sum(map(len, read))
    assert found.seconds >= 0.07
    assert found.rate == found.texts / found.seconds
    assert window(slowly, [["a"]], 0.0).texts == 1


def test_ratios_are_taken_within_rounds() -> None:
    rates = {"fp32": [10, 20, 40], "int8": [30, 60, 80]}
    rows = [
        {"engine": engine, "round": turn, "texts": rate, "seconds": 1.0}
        for engine, mine in rates.items()
        for turn, rate in enumerate(mine)
    ]
    found = summary(rows)
    assert found["int8"] == {"texts_per_s": [30, 60, 80], "ratio": 3.0, "ratio_interval": [2.0, 3.0]}
    assert summary(rows[3:])["int8"]["ratio"] is None
    assert interval([2.0]) == [2.0, 2.0]
