"""The latency benchmark keeps every sample, and says where and how they were taken."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.__main__ import main
from benchmarks.latency import Samples, held_out_reviews


def test_every_sample_of_every_engine_is_kept(tiny_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    texts = tmp_path / "texts.txt"
    texts.write_text("".join(f"a green gown number {number}\n" for number in range(40)))
    output = tmp_path / "results" / "latency.json"
    arguments = [
        "latency",
        "--bundle",
        str(tiny_bundle),
        "--output",
        str(output),
        "--texts",
        str(texts),
        "--rounds",
        "3",
        "--threads",
        "1",
    ]
    assert main(arguments) == 0
    written = json.loads(output.read_text())
    counts = {(row["engine"], row["workload"]): [len(turn) for turn in row["rounds_s"]] for row in written["samples"]}
    assert counts == {
        **{(engine, one): [40, 40, 40] for engine in ("fp32", "int8") for one in ("wish", "review")},
        **{(engine, "reviews"): [2, 2, 2] for engine in ("fp32", "int8")},
    }
    assert all(sample > 0 for row in written["samples"] for turn in row["rounds_s"] for sample in turn)
    assert written["settings"]["threads"] == 1
    origin = written["provenance"]
    assert origin["cores"] >= 1
    assert origin["versions"]["onnxruntime"]
    assert "p99" in capsys.readouterr().out


def test_percentiles_and_throughput_by_hand() -> None:
    samples = Samples("fp32", "reviews", 2, [[0.1, 0.3], [0.2, 0.2], [0.05, 0.05]])
    assert samples.percentile_ms(50) == pytest.approx(150.0)
    assert samples.percentile_ms(100) == pytest.approx(300.0)
    assert samples.texts_per_second == pytest.approx((10.0, 10.0, 40.0))


def test_the_texts_are_those_that_training_never_saw() -> None:
    reviews = held_out_reviews()
    assert len(reviews) == 2265
    assert all(review.strip() for review in reviews)


def test_bad_input_is_one_line(tiny_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    common = ["latency", "--bundle", str(tiny_bundle), "--output", str(tmp_path / "latency.json")]
    assert main([*common, "--texts", str(tmp_path / "nothing.txt")]) == 2
    assert "cannot be read" in capsys.readouterr().err
    assert main([*common, "--rounds", "0"]) == 2
    assert "rounds is 0; accepted is 1 or more" in capsys.readouterr().err
    assert main(["latency", "--bundle", str(tmp_path), "--output", str(tmp_path / "latency.json")]) == 2
    assert "has no manifest.json" in capsys.readouterr().err
    assert not (tmp_path / "latency.json").exists()
