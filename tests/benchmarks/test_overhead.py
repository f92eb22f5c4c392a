"""Triton beside the engine in-process: a real run, the budget of cores, and what the page says of made-up figures."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from benchmarks.__main__ import main
from benchmarks.beside import TURN, Middle, in_turns
from benchmarks.budget import budget, group, group_cpu_s, started_threads
from benchmarks.measures import READERS
from benchmarks.overhead import GRPC, HERE, HTTP, SPINNING, OverheadSettings, chosen_engines, found
from benchmarks.overhead_page import Goal, goals, overhead_page
from bertrec.bundle import Bundle
from bertrec.errors import InvalidInput
from bertrec.session_options import SessionOptions
from client.backends.edge import EdgeBackend

CALLERS, BATCHES = "in-process, 16 callers", "in-process, batches of 16"
SPUN = f"{SPINNING}, batches of 16"


def latencies(engine: str, turn: int, here_ms: float, grpc_ms: float, http_ms: float) -> dict[str, Any]:
    seconds = {way: [ms / 1e3] * 20 for way, ms in ((HERE, here_ms), (GRPC, grpc_ms), (HTTP, http_ms))}
    return {"kind": "latency", "engine": engine, "round": turn, "seconds": seconds}


def windows(engine: str, turn: int, **answered: int) -> list[dict[str, Any]]:
    ways = {"callers": CALLERS, "batches": BATCHES, "grpc": GRPC, "http": HTTP}
    return [
        {
            "kind": "throughput",
            "engine": engine,
            "round": turn,
            "way": ways[name],
            "answered": number,
            "seconds": 2.0,
            "client_cpu_s": 0.5,
            "server_cpu_s": 3.0 if name in ("grpc", "http") else 0.0,
        }
        for name, number in answered.items()
    ]


def made_up() -> dict[str, Any]:
    """fp32 reaches three of four goals: gRPC +2 ms, HTTP +4 ms, 90% and 85% of the better way in-process."""
    rows: list[dict[str, Any]] = []
    for turn in range(3):
        rows += [
            latencies("fp32", turn, 10.0 + turn, 12.0 + turn, 14.0 + turn),
            *windows("fp32", turn, callers=100, batches=200, grpc=180, http=170),
        ]
    rows += [latencies("static", 0, 1.0, 3.5, 4.0), *windows("static", 0, callers=500, batches=1000, grpc=400, http=300)]
    rows += [latencies("static", 1, 99.0, 0.0, 0.0), *windows("static", 1, callers=1)]  # cut short
    origin = {"cpu": "x", "cores": 2, "cpu_flags": ["avx2"], "versions": {"nvidia-pytriton": "0.7"}, "python": "3.11"}
    origin |= {"measured": "2026-01-01T00:00:00", "commit": "abc", "command": "python -m benchmarks overhead --bundle b"}
    held = {"cores": [0, 1], "encoder_threads": 2}
    return {
        "provenance": origin,
        "bundle": "0123",
        "settings": {"rounds": 3, "seconds": 2.0},
        "budgets": {"fp32": held, "static": held},
        "fastest": "static",
        "rows": rows,
    }


def test_figures_are_taken_within_rounds_and_against_the_best_way_in_process() -> None:
    engines = found(made_up()["rows"])
    fp32, static = engines["fp32"], engines["static"]
    assert fp32.best == static.best == BATCHES
    assert fp32.latency[GRPC].more_p50_ms.value == pytest.approx(2.0)
    assert fp32.latency[GRPC].p50_ms.value == pytest.approx(13.0)
    assert fp32.load[GRPC].part.value == pytest.approx(0.9)
    assert fp32.load[GRPC].server_cpu_s.value == pytest.approx(1e3 * 3.0 / 180)
    assert fp32.load[GRPC].cores_used.value == pytest.approx(1.75)
    assert fp32.load[BATCHES].client_cpu_s.value == pytest.approx(2.5)
    assert static.load[HTTP].part.value == pytest.approx(0.3)


def test_triton_is_held_against_the_better_of_the_ways_in_process_in_each_round() -> None:
    rows = made_up()["rows"]
    for row in rows:
        if row["kind"] == "latency" and row["engine"] == "fp32":
            row["seconds"][SPINNING] = [seconds - (0.001 if row["round"] else -0.001) for seconds in row["seconds"][HERE]]
    fp32 = found(rows)["fp32"]
    assert fp32.latency[GRPC].more_p50_ms.value == pytest.approx(3.0)  # 2, 3 and 3
    assert fp32.latency[GRPC].more_p50_ms.low == pytest.approx(2.0)


def test_an_engine_without_a_whole_round_has_no_figures() -> None:
    rows = [latencies("fp32", 0, 1.0, 2.0, 3.0)]
    assert found(rows) == {}
    assert found([*rows, *windows("fp32", 1, callers=1)]) == {}


def test_the_page_says_what_was_reached_and_what_was_missed() -> None:
    page = overhead_page(made_up())
    lines = [line for line in page.splitlines() if line.endswith(" |") and ("≤" in line or "≥" in line)]
    assert [line.split("|")[-2].strip() for line in lines] == ["reached", "missed by 1.00 ms", "reached", "reached"]
    assert "3 of 4 reached." in page
    assert "## static: the bundle's fastest engine" in page
    assert "gives 40.0% of the best throughput in-process" in page
    without = {**made_up(), "rows": [row for row in made_up()["rows"] if row["engine"] != "fp32"]}
    assert "Not measured: the goals are for fp32, and this run asked static." in overhead_page(without)


def test_a_verdict_says_where_the_interval_leaves_it_open() -> None:
    def verdict(value: float, low: float, high: float, *, at_most: bool) -> str:
        return Goal("x", 3.0 if at_most else 0.8, Middle(value, low, high), at_most, percent=not at_most).verdict

    assert verdict(3.0, 2.0, 3.0, at_most=True) == "reached"
    assert verdict(2.0, 1.0, 3.1, at_most=True) == "reached; the interval holds the limit"
    assert verdict(3.5, 3.2, 4.0, at_most=True) == "missed by 0.50 ms"
    assert verdict(0.8, 0.8, 0.9, at_most=False) == "reached"
    assert verdict(0.7, 0.6, 0.85, at_most=False) == "missed by 10.0 percentage points; the interval holds the limit"


def test_every_way_is_asked_of_every_text_and_is_first_as_often() -> None:
    said: list[tuple[str, str]] = []
    ways = {name: lambda text, name=name: said.append((name, text)) for name in "abc"}
    seconds = in_turns(ways, ["red", "green", "blue", "teal", "pink"], 0.02)
    turns = [said[row : row + TURN] for row in range(0, len(said), TURN)]
    assert all(len({name for name, _ in turn}) == 1 for turn in turns)
    assert len(seconds["a"]) == len(seconds["b"]) == len(seconds["c"]) == (TURN - 1) * len(turns) / 3
    triples = [turns[row : row + 3] for row in range(0, len(turns), 3)]
    assert all(len({name for ((name, _), *_) in triple}) == 3 for triple in triples)
    assert all(len({tuple(text for _, text in turn) for turn in triple}) == 1 for triple in triples)
    first = Counter(triple[0][0][0] for triple in triples)
    assert max(first.values()) - min(first[name] for name in "abc") <= 1


def test_the_budget_holds_this_process_and_what_it_starts_and_lets_go() -> None:
    before = os.sched_getaffinity(0)
    with budget(1) as held:
        assert held.threads == 1
        child = subprocess.run(["nproc"], capture_output=True, text=True, check=True)
        assert (os.sched_getaffinity(0), int(child.stdout)) == (set(held.cores), 1)
    assert os.sched_getaffinity(0) == before
    with pytest.raises(InvalidInput, match="accepted are 1 to"), budget(len(before) + 1):
        pass


def test_the_cpu_time_of_a_process_group_is_that_of_all_in_it() -> None:
    spin = "import time; end = time.process_time() + 0.3\nwhile time.process_time() < end: pass\n"
    hold = "print('done', flush=True); input()"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {spin!r} + {hold!r}])"
    with subprocess.Popen(
        [sys.executable, "-c", parent], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "done\n"
        assert len(group(process.pid)) == 2
        assert 0.28 <= group_cpu_s(process.pid) < 2.0
        process.communicate("\n")
    deadline = time.monotonic() + 5
    while group(process.pid) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert group_cpu_s(process.pid) == 0.0


def test_the_threads_of_the_engines_in_process_are_counted(tiny_bundle: Path) -> None:
    _, one = started_threads(lambda: EdgeBackend(tiny_bundle, session=SessionOptions(1)))
    _, three = started_threads(lambda: EdgeBackend(tiny_bundle, session=SessionOptions(3)))
    assert (one, three) == (0, 2 * 2)  # encoder and ranker


def test_fp32_and_the_fastest_are_asked_where_none_is_named(tiny_bundle: Path) -> None:
    bundle = Bundle.open(tiny_bundle)
    assert chosen_engines(bundle, ()) == ("fp32",)  # int8's answers depend on the batch
    assert chosen_engines(bundle, ("int8",)) == ("int8",)
    with pytest.raises(InvalidInput, match="fp64; accepted are fp32, int8"):
        chosen_engines(bundle, ("fp64",))
    with pytest.raises(InvalidInput, match="rounds"):
        OverheadSettings(rounds=0)


def test_a_real_triton_is_measured_beside_the_engine(
    tiny_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output, page, texts = tmp_path / "results/overhead.json", tmp_path / "docs/overheads.md", tmp_path / "texts.txt"
    texts.write_text("a green gown\na denim dress\nred\n")
    asked = ["--seconds", "0.15", "--rounds", "2", "--threads", "1", "--texts", str(texts)]
    assert main(["overhead", "--bundle", str(tiny_bundle), "--output", str(output), "--page", str(page), *asked]) == 0
    written: dict[str, Any] = json.loads(output.read_text())
    assert written["complete"]
    assert (written["engines"], written["fastest"]) == (["fp32"], "fp32")
    verified = written["budgets"]["fp32"]
    assert (verified["encoder_threads"], verified["encoder_threads_in_process"], len(verified["cores"])) == (1, 1, 1)
    assert verified["server_processes"] >= 4  # tritonserver and the stubs of recommend, encoder and ranker
    kinds = Counter((row["kind"], row.get("way", "")) for row in written["rows"])
    assert kinds == {("latency", ""): 2, **{("throughput", way): 2 for way in (CALLERS, BATCHES, SPUN, GRPC, HTTP)}}
    for row in written["rows"]:
        if row["kind"] == "throughput":
            assert row["answered"] > 0
            assert row["client_cpu_s"] > 0
            assert (row["server_cpu_s"] > 0) == (row["way"] in (GRPC, HTTP))
    (goal, *_) = goals(found(written["rows"])["fp32"])
    assert goal.measured.value > 0  # a server on loopback is slower than a call
    assert "## fp32: the reference and the bundle's fastest engine" in page.read_text()
    assert "texts/s" in capsys.readouterr().out
    assert {"fp32, in-process, p50 ms", f"fp32, {GRPC}, texts/s"} <= set(READERS["overhead"](written))
