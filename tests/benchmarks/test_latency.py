"""The latency benchmark keeps every sample, and says where and how they were taken."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.__main__ import main
from benchmarks.latency import Samples, held_out_reviews, of_length, ratios
from tests.benchmarks.interrupting import interrupted


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


def test_an_interrupted_run_keeps_its_samples(tiny_bundle: Path, tmp_path: Path) -> None:
    texts, output = tmp_path / "texts.txt", tmp_path / "latency.json"
    texts.write_text("a green gown\na denim dress\n")
    arguments = ["latency", "--bundle", str(tiny_bundle), "--output", str(output), "--texts", str(texts)]
    written, out = interrupted([*arguments, "--rounds", "1000000", "--threads", "1"], output, "samples")
    assert "p99" in out
    assert {row["engine"] for row in written["samples"]} == {"fp32", "int8"}
    assert all(len(turn) > 0 for row in written["samples"] for turn in row["rounds_s"])


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


def test_the_grid_has_every_batch_at_every_length_that_the_encoder_reads(tiny_bundle: Path, tmp_path: Path) -> None:
    texts, output = tmp_path / "texts.txt", tmp_path / "latency.json"
    texts.write_text("".join(f"a green gown and a denim dress {number}\n" for number in range(9)))
    arguments = ["latency", "--bundle", str(tiny_bundle), "--output", str(output), "--texts", str(texts), "--grid"]
    assert main([*arguments, "--rounds", "3", "--threads", "1"]) == 0
    written = json.loads(output.read_text())
    lengths = ("real lengths", "16 tokens", "64 tokens")  # the tiny encoder reads 64
    rows = {(row["engine"], row["workload"], row["batch"]): [len(turn) for turn in row["rounds_s"]] for row in written["samples"]}
    requests = {1: [9] * 3, 8: [2] * 3, 32: [1] * 3}
    assert rows == {
        (engine, length, batch): requests[batch] for engine in ("fp32", "int8") for length in lengths for batch in (1, 8, 32)
    }
    assert {row["ratio"] for row in written["ratios"] if row["engine"] == "fp32"} == {1.0}
    assert all(row["interval"][0] <= row["ratio"] <= row["interval"][1] for row in written["ratios"])


def test_a_fixed_length_is_reached_from_below() -> None:
    reviews = ["one two three", "four five"]
    assert of_length(reviews, 7, lambda text: len(text.split()) + 2) == "one two three four five"
    assert of_length(reviews, 9, lambda text: len(text.split()) + 2) == "one two three four five one two"
    assert of_length(reviews[1:], 3, lambda text: len(text.split()) + 2) == "four"


def test_the_ratio_to_fp32_is_that_of_the_rounds_medians() -> None:
    samples = [
        Samples("fp32", "review", 1, [[0.2, 0.2, 0.9], [0.4], [0.3]]),
        Samples("int8", "review", 1, [[0.1, 0.1], [0.1], [0.1]]),
        Samples("int8", "wish", 1, [[0.1]]),
    ]
    found = {(row["engine"], row["workload"]): (row["ratio"], row["interval"]) for row in ratios(samples)}
    assert found["int8", "review"] == (pytest.approx(3.0), [pytest.approx(2.0), pytest.approx(4.0)])
    assert ("int8", "wish") not in found
