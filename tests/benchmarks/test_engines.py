"""The builds for every target: what is taken of each, and the page that holds it against what was to be reached."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import engines
from benchmarks.engines import Build, measure_engines, same_hashes
from benchmarks.engines_page import engines_page
from benchmarks.record import Record
from bertrec.errors import InvalidInput
from tests import tiny
from tests.benchmarks.interrupting import interrupted
from train.fit import fit
from train.settings import PRESETS, Preset
from train.students import StudentSettings, distil


def engine(name: str, *, ndcg: float, ratio: float, mb: float, verdict: str = "passed", sha256: str = "a") -> dict[str, Any]:
    latency = {"throughput_ratio": ratio, "texts_per_s_median": 100 * ratio, "texts_per_s_low": 1.0, "texts_per_s_high": 2.0}
    return {
        "name": name,
        "verdict": verdict,
        "why": "too much" if verdict == "rejected" else "",
        "size_bytes": mb * 1e6,
        "quality": {"ndcg_at_10": ndcg, "ndcg_difference": ndcg - 0.4, "recall_at_10": 0.6},
        "parity": {"top10_overlap": 0.9, "batch_difference_max": 0.02},
        "latency": {**latency, "single_ms_median": 10 / ratio},
        "batch_invariant": name != "int8",
        "stamp": {"sha256": sha256},
    }


def build(*found: dict[str, Any], choice: str, mb: float = 10.0, minutes: float = 2.0) -> dict[str, Any]:
    about = {"command": "python -m export build", "minutes": minutes, "peak_memory_gb": 1.5}
    return {**about, "bytes": mb * 1e6, "choice": {"engine": choice, "why": "it is fast"}, "engines": list(found)}


def content(**changed: dict[str, Any]) -> dict[str, Any]:
    fp32 = engine("fp32", ndcg=0.4, ratio=1.0, mb=90, verdict="reference")
    fast = engine("layers-2-int8", ndcg=0.398, ratio=3.4, mb=8)
    slow = engine("static", ndcg=0.38, ratio=50.0, mb=4, verdict="rejected")
    whole = build(fp32, fast, slow, choice="layers-2-int8")
    builds = {"cpu": whole, "cpu, again": whole, "edge, 15 MB": whole, "edge, 6 MB": whole, **changed}
    origin = {"measured": "2026-01-01T", "commit": "c", "command": "x", "cpu": "y", "cpu_flags": ["avx2"], "cores": 2}
    own = {"value": 0.4, "low": 0.39, "high": 0.41}
    behind = {**own, "behind": {"value": 0.01, "low": 0.005, "high": 0.015}}
    rankers = {"fused": {"ndcg_at_10": {**own, "behind": None}}, "layers-2": {"ndcg_at_10": behind}}
    return {
        "provenance": {**origin, "python": "3.11", "versions": {"onnxruntime": "1"}},
        "builds": builds,
        "students": {"layers-2": {"minutes": 20.0, "cosine": 0.95, "parameters": 15_000_000}},
        "kinds": {"typos": {"queries": 2_000, "rankers": rankers}},
    }


def test_the_page_says_what_was_reached_and_what_was_not() -> None:
    page = engines_page(content())
    assert (
        "| chosen CPU engine | ≥ 3× the throughput of fp32 at ≥ 99% of NDCG@10 | 3.40×, 99.5%, layers-2-int8 | reached |" in page
    )
    assert "| edge bundle ≤ 15 MB | ≥ 99% of NDCG@10 | 10.0 MB, 99.5%, layers-2-int8 | reached |" in page
    assert "| edge bundle ≤ 6 MB | ≥ 97% of NDCG@10 | 10.0 MB, 99.5%, layers-2-int8 | missed |" in page
    assert "all the same | reached" in page
    assert "- static: too much" in page
    assert "**layers-2-int8**" in page
    assert "typos (2,000)" in page
    assert "| layers-2 | 15.0 M | 20 | 0.950 | 0.4000 (+0.0100, +0.0050 to +0.0150) |" in page


def test_what_was_missed_is_said_too() -> None:
    slow = build(engine("fp32", ndcg=0.4, ratio=1.0, mb=90, verdict="reference"), choice="fp32", minutes=6.0)
    again = build(engine("fp32", ndcg=0.4, ratio=1.0, mb=90, sha256="b"), choice="fp32")
    failed = {"command": "c", "minutes": 1.0, "peak_memory_gb": 5.0, "error": "error: no engine that passed fits"}
    page = engines_page(content(**{"cpu": slow, "cpu, again": again, "edge, 6 MB": failed}))
    assert "1.00×, 100.0%, fp32 | missed" in page
    assert "other bytes: fp32 | missed" in page
    assert "≤ 5 minutes | 6.0 | missed" in page
    assert "≤ 4 GB | 5.0 | missed" in page
    assert "No bundle: error: no engine that passed fits" in page


def test_builds_are_timed_and_their_tables_kept(tiny_backbone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = dataclasses.replace(PRESETS[Preset.QUICK], backbone=str(tiny_backbone))
    run = fit(str(tiny.write_data(tmp_path / "data")), settings, tmp_path / "run")
    wanted = (Build("one", ("--engines", "fp32"), 1.0), Build("wrong", ("--engines", "fp64"), 1.0))
    monkeypatch.setattr(engines, "BUILDS", wanted)
    distil(run, StudentSettings("static", epochs=4, batch_size=16, learning_rate=1e-2))
    record = Record(tmp_path / "engines.json", {"run": run.folder.name}, name="builds")
    measure_engines(run.folder, tmp_path / "bundles", tmp_path / "charts", record)
    content = record.content
    assert json.loads((tmp_path / "engines.json").read_text())["builds"] == content["builds"]
    found, written = content["builds"], content["kinds"]["as-written"]["rankers"]
    assert written["fused"]["recall_at_10"]["value"] == 1.0
    assert written["static"]["recall_at_10"]["value"] > 0.9
    assert content["students"]["static"]["parameters"] > 1_000
    (fp32,) = found["one"]["engines"]
    assert (tmp_path / "charts/one/engines.svg").read_text().startswith("<?xml")
    assert (fp32["name"], fp32["verdict"]) == ("fp32", "reference")
    assert found["one"]["peak_memory_gb"] > 0.1
    assert found["one"]["bytes"] > fp32["size_bytes"] > 0
    assert same_hashes(found["one"]["engines"], found["one"]["engines"]) == []
    assert found["wrong"]["error"].startswith("error: engine 'fp64' is unknown")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").write_text("")
    with pytest.raises(InvalidInput, match="is not empty"):
        measure_engines(run.folder, tmp_path / "full", tmp_path / "charts", record)


INTERRUPTED = """
import sys
from benchmarks import engines
from benchmarks.__main__ import main
engines.BUILDS = (engines.Build("wrong", ("--engines", "fp64"), 1.0), engines.Build("one", ("--engines", "fp32"), 1.0))
sys.exit(main())
"""


def test_an_interrupted_command_keeps_its_builds_and_leaves_none_running(tiny_backbone: Path, tmp_path: Path) -> None:
    settings = dataclasses.replace(PRESETS[Preset.QUICK], backbone=str(tiny_backbone))
    run = fit(str(tiny.write_data(tmp_path / "data")), settings, tmp_path / "run")
    bundles, output, page = tmp_path / "bundles", tmp_path / "engines.json", tmp_path / "engines.md"
    page.write_text("the old one")
    arguments = ["engines", "--run", str(run.folder), "--bundles", str(bundles), "--output", str(output), "--page", str(page)]
    content, _ = interrupted(arguments, output, "builds", call=("-c", INTERRUPTED))
    assert list(content["builds"]) == ["wrong"]
    assert content["builds"]["wrong"]["error"].startswith("error: engine 'fp64' is unknown")
    assert page.read_text() == "the old one"
    assert list(bundles.iterdir()) == []
    calls = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if path.exists()]
    assert not [call for call in calls if str(bundles).encode() in call]
