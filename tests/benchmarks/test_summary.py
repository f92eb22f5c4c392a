"""The targets of top-k are judged by the rows of a million items, and by the bandwidth of reading."""

from __future__ import annotations

from typing import Any

from benchmarks.report.parts import Content
from benchmarks.report.summary import what_was_reached


def big_scale(*, gb_per_s: float, identical: int, ms: float, recall: float) -> Content:
    """A result of scale whose two ways have these figures at a million items."""
    shared: dict[str, Any] = {"items": 1_000_000, "queries": 100, "needs_bytes": 4e8}
    exact = {**shared, "way": "int8 scan", "gb_per_s": gb_per_s, "identical": identical}
    near = {**shared, "way": "faiss IVF", "needs_bytes": 1.2e9, "latency_ms": {"p50": ms}, "recall_at_10": recall}
    fp32 = {**shared, "way": "numpy fp32", "needs_bytes": 1.5e9}
    bandwidth = {"read": [30.0, 40.0, 50.0], "best": 80.0}
    growth = {"numpy fp32": 1.1, "int8 scan": 0.95, "faiss IVF": 1.25}
    return {"rows": [fp32, exact, near], "bandwidth": bandwidth, "growth": growth}


def test_the_targets_are_judged_by_what_was_measured() -> None:
    rows = {
        row[0]: row[1:4] for row in what_was_reached({"scale": big_scale(gb_per_s=28.0, identical=100, ms=1.5, recall=0.96)}).rows
    }
    scanned = "ten best of 1,000,000 items: "
    assert rows[f"{scanned}exact, of the bandwidth of reading"] == ["≥ 70%", "70.0% (28.0 of 40.0 GB/s)", "reached"]
    assert rows[f"{scanned}exact, identical ten best"] == ["all", "100 of 100", "reached"]
    assert rows[f"{scanned}approximate, p50 at recall@10 ≥ 0.95"] == ["≤ 2 ms", "1.50 ms at 0.960", "reached"]
    assert rows[f"{scanned}memory, int8 scan"] == ["≤ 1,000 MB", "400 MB", "reached"]
    assert rows[f"{scanned}memory, faiss IVF"] == ["≤ 1,000 MB", "1,200 MB", "missed by 200 MB"]
    grown = "growth of the cost up to 1,000,000 items, exponent, "
    assert rows[f"{grown}int8 scan"][2] == "reached"
    assert rows[f"{grown}faiss IVF"] == ["≤ 1 (linear)", "1.250", "missed by 0.250"]
    assert not any("numpy" in what for what in rows)
    worse = {
        row[0]: row[3] for row in what_was_reached({"scale": big_scale(gb_per_s=24.0, identical=98, ms=2.5, recall=0.9)}).rows
    }
    assert worse[f"{scanned}exact, of the bandwidth of reading"] == "missed by 10.0 percentage points"
    assert worse[f"{scanned}exact, identical ten best"] == "missed by 2 queries"
    assert worse[f"{scanned}approximate, p50 at recall@10 ≥ 0.95"] == "missed by 0.50 ms and 0.050 of recall"
