"""The scale benchmark: real vectors, three ways to search them, all held against the exact answer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.__main__ import main
from benchmarks.bandwidth import measure_bandwidth
from benchmarks.scale import catalogue, encode, growth, identical, scale_table
from benchmarks.searches import FaissSearch, NumpySearch, recall
from bertrec.bundle import Bundle
from tests.tiny import ITEMS, item_text


def texts() -> list[str]:
    return [f"{item_text(number % ITEMS)} {item_text(number * 7 % ITEMS)} number {number}" for number in range(120)]


def test_all_ways_are_measured_at_every_size(tiny_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output, file = tmp_path / "scale.json", tmp_path / "texts.txt"
    file.write_text("\n".join(texts()))
    arguments = ["scale", "--bundle", str(tiny_bundle), "--output", str(output), "--texts", str(file), "--texts-used", "120"]
    assert main([*arguments, "--sizes", "50,6000", "--queries", "10", "--rounds", "2", "--threads", "1"]) == 0
    written: dict[str, Any] = json.loads(output.read_text())
    assert written["complete"]
    assert written["bandwidth"]["best"] > 0
    ways = ["numpy fp32", "int8 scan", "faiss IVF"]
    assert [(row["items"], row["way"]) for row in written["rows"]] == [(size, way) for size in (50, 6_000) for way in ways]
    assert {row["real_items"] for row in written["rows"]} == {50, 100}
    for row in written["rows"]:
        assert len(row["samples_ms"]) == 20
        assert row["build_s"] >= 0
        if row["way"] != "faiss IVF":
            assert (row["identical"], row["recall_at_10"]) == (10, pytest.approx(1.0, abs=0.02))  # ties may swap
        if "gb_per_s" in row:
            assert row["of_read"] >= row["of_bandwidth"] > 0
    scanned = [row["detail"]["scanned_bytes"] for row in written["rows"] if row["items"] == 6_000 and row["way"] != "faiss IVF"]
    assert scanned[0] == 4 * scanned[1]
    assert set(written["growth"]) == set(ways)
    assert "recall@10" in capsys.readouterr().out


def test_too_few_texts_are_refused(tiny_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "texts.txt"
    file.write_text("red\ngreen\n")
    arguments = ["scale", "--bundle", str(tiny_bundle), "--output", str(tmp_path / "scale.json"), "--texts", str(file)]
    assert main(arguments) == 2
    assert "there are 2 texts; accepted are at least 2200" in capsys.readouterr().err
    assert main([*arguments, "--texts-used", "10"]) == 2
    assert "texts is 10; accepted is at least 3 more" in capsys.readouterr().err


def test_vectors_come_in_the_order_of_their_texts(tiny_bundle: Path) -> None:
    bundle, mixed = Bundle.open(tiny_bundle), ["red", "green gown " * 12, "teal", "denim dress " * 20]
    together = encode(bundle, mixed, engine="fp32", threads=1)
    for row, text in enumerate(mixed):
        np.testing.assert_allclose(together[row], encode(bundle, [text], engine="fp32", threads=1)[0], atol=1e-6)


def test_a_catalogue_begins_with_the_real_vectors_and_goes_on_near_them(tmp_path: Path) -> None:
    real = np.random.default_rng(0).standard_normal((40, 16), np.float32) * np.linspace(1, 3, 40, dtype=np.float32)[:, None]
    made = catalogue(real, 500, tmp_path / "items.f32", seed=1)
    np.testing.assert_array_equal(made[:40], real)
    np.testing.assert_array_equal(catalogue(real, 30, tmp_path / "fewer.f32", seed=1), real[:30])
    np.testing.assert_array_equal(made, catalogue(real, 500, tmp_path / "again.f32", seed=1))
    assert len(np.unique(made, axis=0)) >= 495  # chance may draw the same three twice
    cosines = (made / np.linalg.norm(made, axis=1, keepdims=True)) @ (real / np.linalg.norm(real, axis=1, keepdims=True)).T
    assert np.median(cosines[40:].max(axis=1)) > 0.8


def test_the_approximate_search_looks_further_until_it_finds_enough() -> None:
    random = np.random.default_rng(0)
    vectors, queries = (random.standard_normal((rows, 16), np.float32) for rows in (5_000, 30))
    best = [NumpySearch(vectors).top(query, 10) for query in queries]
    search = FaissSearch(vectors, threads=1, seed=0)
    at_first = recall([search.top(query, 10) for query in queries], best)
    search.tune(queries, best, 10)
    assert at_first < 0.95 <= recall([search.top(query, 10) for query in queries], best)
    assert 1 < search.detail["visited"] <= search.detail["lists"]


def test_recall_identity_and_growth_by_hand() -> None:
    assert recall([np.array([1, 2]), np.array([3, 4])], [np.array([2, 1]), np.array([3, 5])]) == 0.75
    vectors = np.eye(3, dtype=np.float32) * np.array([[1], [1], [2]], np.float32)
    query = np.ones(3, np.float32)
    assert identical(vectors, query, np.array([2, 0]), np.array([2, 1]))  # 0 and 1 score the same
    assert not identical(vectors, query, np.array([0, 2]), np.array([2, 0]))
    rows = [{"way": "a", "items": items, "latency_ms": {"p50": ms}} for items, ms in ((10, 5.0), (100, 6.0), (1_000, 60.0))]
    assert growth(rows) == {"a": pytest.approx(1.0)}
    assert growth(rows[:1]) == {"a": None}
    assert growth([]) == {}
    assert scale_table([]).row_count == 0


def test_the_bandwidth_is_that_of_the_bytes_moved() -> None:
    found = measure_bandwidth(2, size_bytes=2**22, repeats=5)
    assert (found.threads, found.repeats) == (2, 5)
    assert 0 < found.read[0] <= found.read[1] <= found.read[2]
    assert found.best == max(found.read[1], found.triad[1])
