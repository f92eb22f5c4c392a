"""What was to be reached, of everything that the results hold: one table, for whoever must decide."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from benchmarks.edge import EdgeRun, edge_rows
from benchmarks.overhead import found
from benchmarks.overhead_page import goals
from benchmarks.peers.page import target_rows
from benchmarks.perf_analyzer import AGREEING, MEASURES
from benchmarks.report.parts import EXPECTED, NOTHING, Content, Grid, commit_of, engine_of, is_whole, machine_of
from benchmarks.scale import NUMPY
from bertrec.bundle import REFERENCE_ENGINE

TITLE = "What was to be reached"
HEADS = ("", "wanted", "measured", "", "results of")
BATCH, TOKENS, LEAST_OF_PEAK = 32, 64, 0.85
ITEMS, LEAST_OF_READING, MOST_MS, LEAST_RECALL, MOST_BYTES, MOST_EXPONENT = 1_000_000, 0.70, 2.0, 0.95, 1e9, 1.0
EXACT, APPROXIMATE = "int8 scan", "faiss IVF"
MOST_CLIENTS = 8
MISSING = "not measured"
NOTE = (
    "The bandwidth is that of reading, measured in the same run: a scan only reads. The memory of the int8 scan is without the "
    "mapped file of the fp32 vectors from which it scores its few best again."
)

Cells = tuple[str, str, str, str]
"""What, wanted, measured, and the verdict."""


def what_was_reached(results: Mapping[str, Content]) -> Grid:
    """All targets; where there is no result, or it was cut short, the command that makes it."""
    rows: list[list[str]] = []
    for name, what, reader in READERS:
        content = results.get(name)
        cells = list(reader(content)) if content is not None and is_whole(content) else []
        command = next(one.command for one in EXPECTED if one.name == name)
        rows += [[*one, name] for one in cells or [(what, NOTHING, NOTHING, f"{MISSING}: python -m {command}")]]
    verdicts = {said: sum(row[3].startswith(said) for row in rows) for said in ("reached", "missed", MISSING)}
    counted = ", ".join(f"{count} {said}" for said, count in verdicts.items() if count)
    return Grid(f"{TITLE}: {counted}", HEADS, rows, NOTE)


def measured_by(results: Mapping[str, Content]) -> str:
    """Machine, commit and date of each result of the table."""
    whole = [name for name, _, _ in READERS if name in results and is_whole(results[name])]
    places: dict[str, list[str]] = {}
    for name in whole:
        places.setdefault(f"{machine_of(results[name])}, {commit_of(results[name])}", []).append(name)
    return "; ".join(f"{', '.join(names)}: {place}" for place, names in places.items()) or "nothing of it was measured yet"


def _peers(content: Content) -> Iterable[Cells]:
    for what, wanted, measured, ours, peer, verdict in target_rows(content):
        yield f"times as fast as the best other library, {what}", wanted, f"{measured}: {ours} beside {peer}", verdict


def _roofline(content: Content) -> Iterable[Cells]:
    peak = content.get("peak_gflops", {}).get("fp32")
    for row in content["rows"]:
        if peak and (row["engine"], row["batch"], row["tokens"]) == (REFERENCE_ENGINE, BATCH, TOKENS):
            share = row["gflops"] / peak
            verdict = _verdict(share, LEAST_OF_PEAK, lambda apart: f"{100 * apart:.1f} percentage points")
            yield _ROOFLINE, f"≥ {LEAST_OF_PEAK:.0%}", f"{share:.1%}", verdict


def _scale(content: Content) -> Iterable[Cells]:
    rows = {row["way"]: row for row in content["rows"] if row["items"] == ITEMS}
    if EXACT in rows:
        row, reading = rows[EXACT], content["bandwidth"]["read"][1]
        share = row["gb_per_s"] / reading
        measured = f"{share:.1%} ({row['gb_per_s']:.1f} of {reading:.1f} GB/s)"
        verdict = _verdict(share, LEAST_OF_READING, lambda apart: f"{100 * apart:.1f} percentage points")
        yield f"{_SCALE}: exact, of the bandwidth of reading", f"≥ {LEAST_OF_READING:.0%}", measured, verdict
        missing = row["queries"] - row["identical"]
        same = "reached" if not missing else f"missed by {missing} queries"
        yield f"{_SCALE}: exact, identical ten best", "all", f"{row['identical']} of {row['queries']}", same
    if APPROXIMATE in rows:
        yield _approximate(rows[APPROXIMATE])
    ways = [way for way in rows if way != NUMPY]
    for way in ways:
        held = rows[way]["needs_bytes"]
        verdict = _verdict(-held, -MOST_BYTES, lambda apart: f"{apart / 1e6:,.0f} MB")
        yield f"{_SCALE}: memory, {way}", f"≤ {MOST_BYTES / 1e6:,.0f} MB", f"{held / 1e6:,.0f} MB", verdict
    grown = content.get("growth", {})
    for way in (way for way in ways if grown.get(way) is not None):
        verdict = _verdict(-grown[way], -MOST_EXPONENT, lambda apart: f"{apart:.3f}")
        what = f"growth of the cost up to {ITEMS:,} items, exponent, {way}"
        yield what, f"≤ {MOST_EXPONENT:g} (linear)", f"{grown[way]:.3f}", verdict


def _approximate(row: Mapping[str, Any]) -> Cells:
    ms, recall = row["latency_ms"]["p50"], row["recall_at_10"]
    missed = [
        *([f"{ms - MOST_MS:.2f} ms"] if ms > MOST_MS else []),
        *([f"{LEAST_RECALL - recall:.3f} of recall"] if recall < LEAST_RECALL else []),
    ]
    verdict = f"missed by {' and '.join(missed)}" if missed else "reached"
    what = f"{_SCALE}: approximate, p50 at recall@10 ≥ {LEAST_RECALL:g}"
    return what, f"≤ {MOST_MS:g} ms", f"{ms:.2f} ms at {recall:.3f}", verdict


def _generators(content: Content) -> Iterable[Cells]:
    groups: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for one in content.get("agreement", ()):
        if one["clients"] <= MOST_CLIENTS:
            groups.setdefault((one.get("engine") or engine_of(content), one["measure"]), []).append(one)
    for (engine, measure), loads in groups.items():
        ratios = [one["ratio"] for one in loads]
        far = [str(one["clients"]) for one in loads if not one["agree"]]
        clients = ", ".join(str(one["clients"]) for one in loads)
        what = f"perf_analyzer and our generator agree on {MEASURES[measure]}, {engine}, {clients} clients"
        verdict = f"missed at {', '.join(far)} clients" if far else "reached"
        yield what, f"within {AGREEING:.0%}", f"ratios {min(ratios):.3f}–{max(ratios):.3f}", verdict


def _overhead(content: Content) -> Iterable[Cells]:
    figures = found(content["rows"]).get(REFERENCE_ENGINE)
    for goal in goals(figures) if figures is not None else ():
        what, wanted, measured, verdict = goal.cells
        yield f"{what}, {REFERENCE_ENGINE}", wanted, measured, verdict


def _edge(content: Content) -> Iterable[Cells]:
    runs = [EdgeRun(**run) for run in content["runs"]]
    for name, median, spread, accepted, verdict in edge_rows(runs) if runs else ():
        if accepted:
            yield f"a bundle in a process of its own: {name}", f"≤ {accepted}", f"{median} ({spread})", verdict


def _verdict(value: float, least: float, shown: Callable[[float], str]) -> str:
    return "reached" if value >= least else f"missed by {shown(least - value)}"


_ROOFLINE = f"{REFERENCE_ENGINE} engine, {BATCH} × {TOKENS} tokens, of the machine's measured fp32 peak"
_SCALE = f"ten best of {ITEMS:,} items"

READERS: Sequence[tuple[str, str, Callable[[Content], Iterable[Cells]]]] = (
    ("peers", "times as fast as the best other library", _peers),
    ("roofline", _ROOFLINE, _roofline),
    ("scale", _SCALE, _scale),
    ("perf-analyzer", "perf_analyzer and our generator agree", _generators),
    ("overhead", "what Triton adds to the engine in-process", _overhead),
    ("edge", "a bundle in a process of its own: opening, memory, p50", _edge),
)
"""Result, what it is about, and what says its targets."""
