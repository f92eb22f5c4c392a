"""The table and the chart of a bundle's engines."""

from __future__ import annotations

import argparse
import dataclasses
import re
import shutil
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from rich.table import Table

from bertrec.bundle import Bundle, EngineRecord, seal
from bertrec.errors import InvalidInput, MissingDependency
from export import report
from export.chart import Panel, Point, draw, pareto_front
from tests import full_disk

CHOICE = {"target": "cpu", "objective": "latency", "engine": "int8", "why": "of the engines that passed the fastest, 5.00 ms"}


def times(ms: float, per_s: float) -> dict[str, float]:
    return {
        "single_ms_median": ms,
        "texts_per_s_median": per_s,
        "latency_ratio": 10 / ms,
        "throughput_ratio": per_s / 100,
        "threads": 2,
        "rounds": 5,
    }


def ranked(ndcg: float, lost: float | None = None) -> dict[str, float]:
    found = {"texts": 1_000, "ndcg_at_10": ndcg, "recall_at_10": 0.6}
    ends = {} if lost is None else {"": -lost, "_low": -lost - 0.004, "_high": -lost + 0.004}
    return {**found, **{f"ndcg_difference{end}": value for end, value in ends.items()}}


@pytest.fixture
def bundle(tiny_bundle: Path, tmp_path: Path) -> Bundle:
    """The tiny bundle, as if its engines had been measured; one of them was rejected and left out, and one is unmeasured."""
    about: dict[str, dict[str, Any]] = {
        "fp32": {
            "quality": ranked(0.4),
            "latency": times(10, 100),
            "parity": {"top10_overlap": 1.0, "batch_difference_max": 0.0},
        },
        "int8": {
            "quality": ranked(0.396, 0.004),
            "latency": times(5, 160),
            "parity": {"top10_overlap": 0.97, "batch_difference_max": 0.024},
            "verdict": "passed",
            "why": "all is well",
        },
    }
    manifest = Bundle.open(tiny_bundle).manifest
    measured = [
        dataclasses.replace(record, **about[record.name]) if record.model == "encoder" else record for record in manifest.engines
    ]
    rejected = EngineRecord("encoder", "static", "", "fp32", size_bytes=5_200_000, verdict="rejected", why="NDCG@10 +10.00% lost")
    rejected = dataclasses.replace(rejected, quality=ranked(0.36, 0.04), latency=times(0.2, 9_000), batch_invariant=True)
    plan = EngineRecord("encoder", "fp16.plan", "", "fp16", runtime="tensorrt", verdict="unmeasured", why="no GPU here")
    folder = tmp_path / "measured"
    shutil.copytree(tiny_bundle, folder)
    seal(folder, dataclasses.replace(manifest, engines=(*measured, rejected, plan), choice=CHOICE))
    return Bundle.open(folder)


def command(*arguments: object) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    report.add_parser(parser.add_subparsers(dest="command"))
    return parser.parse_args(["report", *map(str, arguments)])


def printed(table: Table) -> list[str]:
    console = Console(width=120)
    with console.capture() as capture:
        console.print(table)
    return [" ".join(line.split()) for line in capture.get().splitlines()]


def test_the_table_shows_every_engine_with_what_was_measured(bundle: Bundle) -> None:
    lines = printed(report.engine_table(bundle))
    assert lines[0].endswith("2 threads, 5 rounds")
    assert "engine verdict MB NDCG@10 % lost (95%) R@10 overlap batch ms texts/s ×" in lines
    fp32, int8 = (f"{(bundle.folder / f'encoder/{name}.onnx').stat().st_size / 1e6:.1f}" for name in ("fp32", "int8"))
    assert f"fp32 reference {fp32} 0.4000 – 0.600 1.000 same 10.00 100 1.00" in lines
    assert f"int8 passed {int8} 0.3960 +1.0 (+0.0…+2.0) 0.600 0.970 ±0.024 5.00 160 1.60" in lines
    assert "static rejected 5.2 0.3600 +10.0 (+9.0…+11.0) 0.600 – same 0.20 9,000 90.00" in lines
    assert "fp16.plan unmeasured 0.0 – – – – – – – –" in lines
    assert any(line.startswith("ranker fp32 reference") for line in lines)


def test_the_reasons_are_those_of_the_choice_and_of_what_was_not_accepted(bundle: Bundle) -> None:
    lines = printed(report.reason_table(bundle))
    assert "int8 chosen for cpu, latency: of the engines that passed the fastest, 5.00 ms" in lines
    assert "static rejected: NDCG@10 +10.00% lost" in lines
    assert "fp16.plan unmeasured: no GPU here" in lines
    assert not any("all is well" in line for line in lines)


def test_the_longest_names_fit_into_a_log(bundle: Bundle) -> None:
    long = EngineRecord("encoder", "trimmed-layers-2-int8-static", "", "int8", verdict="rejected", quality=ranked(0.3, 0.1))
    manifest = dataclasses.replace(bundle.manifest, engines=(*bundle.manifest.engines, long))
    lines = printed(report.engine_table(dataclasses.replace(bundle, manifest=manifest)))
    assert "engine verdict MB NDCG@10 % lost (95%) R@10 overlap batch ms texts/s ×" in lines
    assert any("+25.0 (+24.0…+26.0)" in line for line in lines)


def test_the_command_prints_and_draws(bundle: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "made" / "here"
    assert report.run(command("--bundle", bundle.folder, "--output", output)) == 0
    assert sorted(path.name for path in output.iterdir()) == ["engines.png", "engines.svg"]
    assert struct.unpack(">II", (output / "engines.png").read_bytes()[16:24]) == (1_440, 672)
    drawing = (output / "engines.svg").read_text()
    # matplotlib draws letters as shapes, and leaves what they spell in a comment
    said = re.findall("<!-- (.*?) -->", drawing)
    assert [said.count(name) for name in ("fp32", "int8 (chosen)", "static (rejected)", "fp16.plan")] == [2, 2, 2, 0]
    assert {"NDCG@10", "milliseconds for one text, 2 threads", "size of the engine, MB", "Pareto front", "rejected"} <= set(said)
    assert any("1,000 held-out texts" in words for words in said)
    out = capsys.readouterr()
    assert "static" in out.out
    assert "engines.svg" in out.err


def test_a_second_report_gives_the_same_bytes(bundle: Bundle, tmp_path: Path) -> None:
    first, second = (report.write_chart(bundle, tmp_path / name) for name in "ab")
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]
    assert "<dc:date>" not in first[1].read_text()


def test_an_unmeasured_bundle_gives_a_report_that_says_so(tiny_bundle: Path, tmp_path: Path) -> None:
    bundle = Bundle.open(tiny_bundle)
    assert any(line.startswith("int8 reference") for line in printed(report.engine_table(bundle)))
    drawing = report.write_chart(bundle, tmp_path)[1].read_text()
    assert drawing.count("<!-- not measured -->") == 2


def test_the_front_is_of_those_that_passed_and_that_none_beats_in_both() -> None:
    def point(name: str, cost: float, quality: float, passed: bool = True) -> Point:
        return Point(name, cost, quality, passed)

    cheap, middle, best = point("cheap", 1, 0.30), point("middle", 2, 0.35), point("best", 5, 0.40)
    worse, dearer, twin = point("worse", 3, 0.34), point("dearer", 6, 0.40), point("twin", 2, 0.35)
    rejected = point("rejected", 0.1, 0.5, passed=False)
    assert pareto_front([best, worse, dearer, twin, middle, cheap, rejected]) == [cheap, middle, twin, best]
    assert pareto_front([rejected]) == []


def test_no_name_covers_another_or_a_point(monkeypatch: pytest.MonkeyPatch) -> None:
    from export import chart

    covered: list[tuple[float, chart._Box]] = []
    place = chart._place

    def placing(label: Any, own: chart._Box, marks: list[chart._Box], **others: Any) -> None:
        place(label, own, marks, **others)
        box = chart._extent(label, others["renderer"])
        covered.append((sum(box.shared(other) for other in others["taken"]) + box.area - box.shared(others["inside"]), box))

    monkeypatch.setattr(chart, "_place", placing)
    names = [f"trimmed-layers-{number}-int8-static" for number in range(10)]
    crowded = [Point(name, 10 + 0.3 * number, 0.39 + 0.0002 * (number % 3), True) for number, name in enumerate(names)]
    draw([Panel("cost", [*crowded, Point("far", 100, 0.35, False)])], title="crowded", quality="quality")
    assert len(covered) == 11
    assert [area for area, _ in covered] == [pytest.approx(0.0)] * 11
    assert min(box.area for _, box in covered) > 100


def test_a_full_disk_is_one_clear_error_and_leaves_the_old_report(bundle: Bundle, tmp_path: Path) -> None:
    output = tmp_path / "report"
    before = {path: path.read_bytes() for path in report.write_chart(bundle, output)}
    assert max(len(content) for content in before.values()) > full_disk.LIMIT_BYTES
    program = (
        "import resource, sys\n"
        "from pathlib import Path\n"
        "from bertrec.bundle import Bundle\n"
        "from export.report import write_chart\n"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({full_disk.LIMIT_BYTES},) * 2)\n"
        "write_chart(Bundle.open(sys.argv[1]), Path(sys.argv[2]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(bundle.folder), str(output)], capture_output=True, text=True, check=False
    )
    assert f"the report cannot be written to {output}" in done.stderr.splitlines()[-1]
    assert done.stderr.endswith("Free some space or choose another --output\n")
    assert {path: path.read_bytes() for path in output.iterdir()} == before


def test_a_file_in_the_way_is_one_clear_error(bundle: Bundle, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(InvalidInput, match="cannot be written to .*file.*choose another --output"):
        report.write_chart(bundle, tmp_path / "file")
    assert (tmp_path / "file").read_text() == "mine"


def test_without_matplotlib_the_command_that_installs_it_is_named(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "export.chart")
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.style", None)
    with pytest.raises(MissingDependency, match=r"matplotlib is not installed; it comes with: pip install 'bertrec\[export\]'"):
        report.write_chart(bundle, tmp_path)
    assert not list(tmp_path.glob("*.png"))
