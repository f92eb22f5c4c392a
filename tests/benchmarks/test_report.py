"""The report is made of what the commands write, loads nothing, and says what is missing; the README quotes it to the letter."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ElementTree
from collections import Counter
from dataclasses import asdict
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.__main__ import main
from benchmarks.faults.outcome import Outcome
from benchmarks.machine import provenance
from benchmarks.report.pages import html_page, markdown_page, sections
from benchmarks.report.parts import EXPECTED, Content, Section, engine_of, origin_of, read_results
from benchmarks.report.quote import BLOCKS, block, quoted
from benchmarks.report.summary import what_was_reached
from bertrec.errors import InvalidInput

CHECKOUT = Path(__file__).parents[2]
COMMANDS = {
    "latency": ("--grid", "--rounds", "2", "--threads", "1"),
    "throughput": ("--seconds", "0.1", "--rounds", "2", "--threads", "1"),
    "roofline": ("--repeats", "2", "--side", "64", "--threads", "1"),
    "edge": ("--repetitions", "2", "--queries", "5", "--threads", "1"),
    "startup": ("--rounds", "1", "--ways", "edge", "--threads", "1"),
    "scale": ("--sizes", "100,1000", "--queries", "5", "--rounds", "1", "--texts-used", "40", "--threads", "1"),
    "load": tuple("--servers edge --clients 1,2 --rates 5 --seconds 0.5 --warm-up-s 0 --objective-ms 5000".split()),
}


@pytest.fixture(scope="module")
def results(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Content]:
    """What the real commands write."""
    folder = tmp_path_factory.mktemp("results")
    texts = folder / "texts.txt"
    texts.write_text("".join(f"a green gown and a denim dress, number {number}\n" for number in range(60)))
    for name, arguments in COMMANDS.items():
        given = [name, "--bundle", str(tiny_bundle), "--output", str(folder / f"{name}.json"), *arguments]
        assert main(given + (["--texts", str(texts)] if name not in ("roofline", "startup") else [])) == 0
    return read_results(folder)


@pytest.fixture(scope="module")
def page(results: dict[str, Content]) -> str:
    return html_page(results)


@pytest.fixture(scope="module")
def drawn(results: dict[str, Content]) -> dict[str, Section]:
    return {one.name: one for one in sections(results)[0]}


class Reader(HTMLParser):
    """Tags, ids, what is loaded, and the words."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags, self.ids, self.loaded, self.words = Counter[str](), Counter[str](), list[str](), ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        for name, value in attrs:
            if name == "id":
                self.ids[str(value)] += 1
            if name in ("src", "href", "xlink:href") and not str(value).startswith("#"):
                self.loaded.append(str(value))

    def handle_data(self, data: str) -> None:
        self.words += data


def test_the_page_needs_nothing_but_itself(results: dict[str, Content], page: str) -> None:
    read = Reader(page)
    assert read.loaded == []
    assert read.tags["script"] == read.tags["link"] == read.tags["img"] == 0
    assert not re.search(r"@import|url\((?!#)", page)
    assert [name for name, count in read.ids.items() if count > 1] == []
    assert set(re.findall(r"(?:href=\"#|url\(#)([^\")]+)", page)) <= set(read.ids)
    assert read.tags["svg"] == read.tags["figure"] == 8


def test_every_plot_says_where_its_figures_come_from(drawn: dict[str, Section], page: str) -> None:
    origin = provenance()
    for one in drawn.values():
        for part in (origin.cpu, f"{origin.cores} cores", origin.commit[:10], origin.measured[:10], "python -m benchmarks"):
            assert part in one.origin
        for plot in one.plots:
            assert ElementTree.fromstring(plot.svg).tag.endswith("svg")
    assert page.count("<figcaption>python -m benchmarks") == sum(len(one.plots) for one in drawn.values())


def test_the_figures_are_those_of_the_files(results: dict[str, Content], drawn: dict[str, Section]) -> None:
    samples = results["latency"]["samples"]
    cells = drawn["latency"].grids[0].rows
    assert len(cells) == len(samples)
    for cell, row in zip(cells, samples, strict=True):
        every = [1e3 * one for turn in row["rounds_s"] for one in turn]
        assert (cell[0], cell[3]) == (row["engine"], str(len(every)))
        assert cell[4] == f"{np.median(every):.2f}"
    loads = drawn["load"].grids[0].rows
    assert [row[1] for row in loads] == ["1 clients", "2 clients", "5/s"]
    assert [row[2] for row in loads] == [f"{row['answers_per_s']:.1f}" for row in results["load"]["rows"]]
    assert {plot.name for plot in drawn["latency"].plots} == {"latency-cdf", "stages"}  # no quality, no Pareto front
    stages = results["latency"]["stages"]["fp32"]
    assert {len(seconds) for seconds in stages.values()} == {60}
    assert np.median(stages["encoder"]) > 0


def test_what_is_missing_or_cut_short_is_said(results: dict[str, Content], page: str) -> None:
    words = Reader(page).words
    assert "python -m benchmarks peers --run runs/NAME --bundle bundles/NAME" in words
    assert "interrupted" not in words
    cut = {"scale": {**results["scale"], "complete": False, "rows": results["scale"]["rows"][:3]}}
    told = markdown_page(cut, plots="report")
    assert "The measurement was interrupted" in told
    assert told.count("| 100 | ") == 3
    empty = {name: {**content, "complete": False} for name, content in results.items()}
    for content in empty.values():
        content.update({name: [] for name in ("rows", "samples", "runs") if name in content})
        content.pop("stages", None)
    assert Reader(html_page(empty)).tags["figure"] == 0
    assert markdown_page({}, plots="report").count("\n- ") == len(EXPECTED)


def test_both_pages_are_written_and_old_plots_go(results: dict[str, Content], page: str, tmp_path: Path) -> None:
    folder, plots = tmp_path / "results", tmp_path / "docs/report"
    folder.mkdir()
    plots.mkdir(parents=True)
    (plots / "old.svg").write_text("")
    for name, content in results.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    markdown = tmp_path / "docs/report.md"
    assert main(["report", "--results", str(folder), "--html", str(tmp_path / "a/report.html"), "--markdown", str(markdown)]) == 0
    assert (tmp_path / "a/report.html").read_text() == page
    pictures = re.findall(r"\]\((report/[^)]+)\)", markdown.read_text())
    assert sorted(pictures) == sorted(f"report/{path.name}" for path in plots.iterdir())
    assert "report/scale.svg" in pictures
    for line in markdown.read_text().splitlines():
        assert not line.startswith("|") or line.endswith("|")


def test_what_cannot_be_read_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", "--results", str(tmp_path)]) == 2
    assert "neither --html nor --markdown" in capsys.readouterr().err
    assert main(["report", "--results", str(tmp_path / "none"), "--html", str(tmp_path / "a.html")]) == 2
    assert "is not a folder" in capsys.readouterr().err
    (tmp_path / "load.json").write_text('{"rows": [')
    assert main(["report", "--results", str(tmp_path), "--html", str(tmp_path / "a.html")]) == 2
    assert "load.json cannot be read as JSON" in capsys.readouterr().err


def other_results() -> dict[str, Content]:
    """What the commands write that take too long here, in small."""
    origin = asdict(provenance())
    speed = {"texts_per_s": [100.0, 90.0, 110.0]}
    single = {"p50_ms": 4.0, "p95_ms": 5.0}
    ours = {way: single for way in ("total", "encode")}
    target: dict[str, Any] = {"kept": 0.99, "figure": "offline", "wanted": 3.0, "ratio": 3.5, "interval": [3.0, 4.0]}
    peers = {
        "speeds": {"bertrec": {"offline": {"total": speed, "encode": speed}, "wish": ours, "review": ours}},
        "quality": {"bertrec": {"ndcg_at_10": 0.39, "kept": 0.998}},
        "peers": {
            "bertrec": {"ours": True, "student": "layers-2", "server": False},
            "fastembed": {"ours": False, "student": "", "server": False},
            "infinity": {"ours": False, "student": "", "server": False, "failed": {"stage": "install", "reason": "no <wheel>"}},
        },
        "same_network": [{**target, "network": "layers-2", "ours": None, "peer": "OpenVINO", "ratio": None, "standing": "level"}],
        "targets": [{**target, "ours": "bertrec", "peer": "fastembed", "verdict": "reached"}],
    }
    window: dict[str, Any] = {
        "kind": "throughput",
        "engine": "fp32",
        "answered": 30,
        "seconds": 3.0,
        "client_cpu_s": 1.0,
        "server_cpu_s": 2.0,
    }
    beside: list[dict[str, Any]] = [
        {"kind": "latency", "engine": "fp32", "seconds": {"BLS": [0.01, 0.02], "ensemble": [0.02, 0.03]}}
    ]
    beside += [{**window, "way": "BLS"}, {**window, "way": "ensemble"}]
    delays = {"in-process": [0.010], "Triton, gRPC": [0.012], "Triton, HTTP": [0.014]}
    triton: list[dict[str, Any]] = [{"kind": "latency", "engine": "fp32", "round": 0, "seconds": delays}]
    answered = {"in-process, batches of 16": 100, "Triton, gRPC": 90, "Triton, HTTP": 70}
    triton += [{**window, "way": way, "round": 0, "answered": count} for way, count in answered.items()]
    both = {"p50": 5.0, "p99": 9.0}
    check = {"loads": [{"rate": 10.0, "requests": 100, "measured": both, "predicted": both}], "allowance": 1.25}
    line: dict[str, Any] = {"rate": 1e3, "instances": 9, "spared": 10, "cores": 20, "used": 0.5, "p99_ms": [40.0, 35.0]}
    plan: dict[str, Any] = {"server": "triton", "protocol": "grpc", "check": check}
    plan["plan"] = [{**line, "instance_hours_per_million": 2.7, "cost": None}]
    outcome = Outcome("killed", "the server is killed", calls=10, by_edge=4, late_ms=3.0, next_by="triton")
    scenario = {**asdict(outcome), "lost": outcome.lost, "complaints": outcome.complaints}
    difference = {"value": 0.001, "low": -0.002, "high": 0.004}
    tool: dict[str, Any] = {"tool": "lora", "base": "2026-01-02T03", "cpu_minutes": 5.0}
    tool["cost"] = {"trained_parameters": 10, "peak_memory_mb": 900.0}
    tool["asked"] = {"fused": {"as-written": {"first": 0.35, "difference": difference}}}
    found: dict[str, Any] = {
        "peers": peers,
        "overhead": {"rows": triton},
        "bls": {"rows": beside},
        "plan": {"settings": {"objective_ms": 45.0}, "rows": [plan]},
    }
    load = {"clients": 8, "round": 0, "p50_ms": 5.0, "p99_ms": 9.0, "slowest_ms": 12.0, "errors": {}}
    batches = [{**load, "variant": name, "requests_per_s": rate} for name, rate in (("as shipped", 100.0), ("no delay", 90.0))]
    found |= {"batching": {"rows": batches}}
    early = {
        **scenario,
        "late_ms": -4381.1,
        "what": "the server is restarted",
        "command": "python -m early",
        "commit": "abcdef0123",
    }
    found |= {"faults": {"scenarios": [scenario, early]}, "tools": {"rows": [tool]}}
    agreed = {"clients": 8, "ours": 40.0, "theirs": 50.0, "range": [0.7, 0.9]}
    both_measures = [{**agreed, "measure": "p50_ms", "ratio": 0.8, "agree": False}]
    both_measures += [{**agreed, "measure": "answers_per_s", "ratio": 0.95, "agree": True}]
    found |= {"perf-analyzer": {"bundle": "0123456789abcdef", "agreement": both_measures}}
    signals = {"batch": 8, "text": [0.001], "all_signals": [0.0015], "ratio_quartiles": [1.4, 1.5, 1.6]}
    found |= {"ranker": {"settings": {"items": 10_000}, "samples": [signals]}}
    value = {"value": 0.31, "low": 0.3, "high": 0.32}
    label = {"share": 0.1, "method": "self-training", "ranker": "fused", "texts": 1_000, "minutes": 3.0}
    found |= {"labels": {"source": "clothing", "rows": [{**label, "ndcg_at_10": value, "recall_at_10": value}]}}
    return {name: {"provenance": origin, **content} for name, content in found.items()}


def test_what_other_commands_wrote_is_shown() -> None:
    others = other_results()
    words = Reader(html_page(others)).words
    for figure in (
        "bertrec † *",
        "layers-2",
        "level",
        "100 (90–110)",
        "99.8%",
        "no <wheel>",
        "3.50× (3.00–4.00)",
        "10.0 (10.0–10.0)",
        "100.00",
    ):
        assert figure in words
    for figure in (
        "the server is killed",
        "0.90 (0.90–0.90)",
        "as it should be",
        "lora",
        "+0.0010 (-0.0020…+0.0040)",
        "1,000",
        "2.7",
    ):
        assert figure in words
    for figure in ("times 1.25", "objective of 45 ms", "+3 ms", "within", "0.800 (0.700–0.900)", "1.50 (1.40–1.60)"):
        assert figure in words
    assert "the engine that the export chose for bundle 0123456789ab, 8" in words
    assert "10%, self-training, fused" in words and "0.310 (0.300…0.320)" in words
    assert "-4381" not in words
    order = ["peers", "overhead", "bls", "batching", "perf-analyzer", "ranker", "plan", "faults", "tools", "labels"]
    assert [one.name for one in sections(others)[0]] == order
    committed = read_results(CHECKOUT / "benchmarks/results")
    assert {"engines", "quality"} <= {one.name for one in sections(committed)[0]}


def test_an_origin_names_every_command_that_measured_a_row() -> None:
    others = other_results()
    assert "also" not in origin_of(others["tools"])
    told = origin_of(others["faults"])
    assert told.startswith(others["faults"]["provenance"]["command"])
    assert told.endswith("; also python -m early, commit abcdef0123")


def test_the_engine_is_that_of_the_answers_else_what_is_known_of_it(results: dict[str, Content]) -> None:
    assert engine_of(results["load"]) == engine_of(results["scale"]) == "engine fp32"
    rows = [{"engine": "fp32"}, {"engine": "int8"}, {"engine": None}]
    assert engine_of({"rows": rows, "settings": {"engine": "other"}}) == "engine fp32, int8"
    assert engine_of({"rows": [{}], "settings": {"engine": "int8"}}) == "engine int8"
    silent = {"rows": [{}], "settings": {"engine": None}, "bundle": "0123456789abcdef"}
    assert engine_of(silent) == "the engine that the export chose for bundle 0123456789ab"


def test_the_targets_take_the_verdicts_of_the_other_pages() -> None:
    row = {"engine": "fp32", "batch": 32, "tokens": 64, "gflops": 80.0}
    roofline = {"rows": [{**row, "engine": "int8"}, {**row, "batch": 1}, row], "peak_gflops": {"fp32": 100.0}}
    run = {"import_s": 0.1, "open_s": 0.4, "first_s": 0.1, "seconds": [0.002], "cpu_s": 1.0, "rss_bytes": 10**8}
    edge = {"runs": [{**run, "peak_bytes": 10**8, "engine": "fp32"}]}
    grid = what_was_reached({**other_results(), "roofline": roofline, "edge": edge})
    rows = {row[0]: row[1:] for row in grid.rows}
    peers = rows["times as fast as the best other library, ≥ 99% of NDCG@10: throughput"]
    assert peers == ["≥ 3×", "3.50× (3.00–4.00): bertrec (student) beside fastembed", "reached", "peers"]
    (peak,) = (found for what, found in rows.items() if what.startswith("fp32 engine"))
    assert peak == ["≥ 85%", "80.0%", "missed by 5.0 percentage points", "roofline"]
    agreed = {what.split(" on ")[1][:4]: found[2] for what, found in rows.items() if what.startswith("perf_analyzer")}
    assert agreed == {"p50 ": "missed at 8 clients", "answ": "reached"}
    assert rows["a bundle in a process of its own: import, s"][2] == "reached"
    assert rows["a bundle in a process of its own: open, s"][2] == "missed by 0.100"
    assert rows["a bundle in a process of its own: p50, ms"][2] == "reached"
    assert rows["Triton, gRPC: p50 of one text over that in-process, fp32"][1] == "2.00 ms (2.00 ms…2.00 ms)"
    added = [found[2] for what, found in rows.items() if what.startswith("Triton")]
    assert added == ["reached", "missed by 1.00 ms", "reached", "missed by 10.0 percentage points"]
    assert rows["ten best of 1,000,000 items"][2] == "not measured: python -m benchmarks scale --bundle bundles/NAME"
    assert grid.title == "What was to be reached: 7 reached, 5 missed, 1 not measured"


def test_both_pages_begin_with_the_targets(results: dict[str, Content], page: str) -> None:
    told = markdown_page(results, plots="report")
    assert told.index("## ") == told.index("## What was to be reached: ")
    assert page.index("<h2>") == page.index("<h2>What was to be reached: ")
    cut = what_was_reached({"edge": {**results["edge"], "complete": False}})
    assert [row[3].split(":")[0] for row in cut.rows] == ["not measured"] * 6
    committed = read_results(CHECKOUT / "benchmarks/results")
    goals = {row[4] for row in what_was_reached(committed).rows}
    assert goals == {"peers", "roofline", "scale", "perf-analyzer", "overhead", "edge"}


def test_the_readme_says_what_the_results_say() -> None:
    page = (CHECKOUT / "README.md").read_text(encoding="utf-8")
    assert set(re.findall(r"<!-- figures: (\w+) -->", page)) == set(BLOCKS)
    assert quoted(page, read_results(CHECKOUT / "benchmarks/results")) == page, "run python -m benchmarks quote"


def test_blocks_hold_the_figures_of_the_files(results: dict[str, Content], tmp_path: Path) -> None:
    page = "before\n<!-- figures: edge -->\nold\n<!-- end -->\nbetween\n<!-- figures: load -->\n<!-- end -->\n"
    once = quoted(page, results)
    assert once == quoted(once, results)
    assert "old" not in once
    assert once.startswith("before\n<!-- figures: edge -->\n")
    opened = np.median([run["open_s"] for run in results["edge"]["runs"]])
    assert f"opening the bundle takes {opened:.2f} s" in once
    assert f"| edge, http | 1 | {results['load']['rows'][0]['answers_per_s']:.1f} |" in once
    measured = {**other_results(), **results}
    assert "kept up to: edge by http at least 5 requests/s, the greatest rate tried." in once
    for name in BLOCKS:
        assert "commit" in block(name, measured)
    assert "| bertrec † * | 100 (90–110) | 4.00 | 99.8% |" in block("peers", measured)
    assert "of other libraries" in block("peers", measured)
    assert "mapped file of the same vectors and size, which is not counted" in block("scale", results)
    assert "answered by engine fp32:" in once
    cut = {**results, "edge": {**results["edge"], "complete": False}}
    assert "Not measured yet: `python -m benchmarks edge" in quoted(page, cut)
    assert quoted(page, {}).count("Not measured yet") == 2
    with pytest.raises(InvalidInput, match="a block of figures 'cost'; accepted are edge, latency"):
        quoted(page.replace("edge", "cost"), results)
    with pytest.raises(InvalidInput, match="has no end"):
        quoted(page + "<!-- figures: scale -->\n", results)
