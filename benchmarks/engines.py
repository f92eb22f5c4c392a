"""Every engine of a run, built and chosen for every target, against what the export set out to reach.

Each build is a process of its own, whose time and peak memory are taken; its table is read from the bundle's manifest.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.children import child
from benchmarks.record import Record
from benchmarks.students import measure_students
from bertrec.bundle import SIGNALS_FOLDER, Bundle
from bertrec.errors import BertrecError, InvalidInput
from bertrec.spelling import FILE as SPELLING_FILE
from bertrec.tensors import ENCODER
from export.report import write_chart
from train.progress import progress, say
from train.run import open_run

AGAIN = ", again"
"""Ends the name of a build that is only compared with the one before it."""
MINUTES, MEMORY_GB = 5.0, 4.0
SPEED_UP = 3.0


@dataclass(frozen=True)
class Build:
    """One call of ``python -m export build``. wanted_loss: of NDCG@10 in percent, which the build itself may exceed."""

    name: str
    arguments: tuple[str, ...]
    wanted_loss: float


BUILDS = (
    Build("cpu", ("--target", "cpu", "--objective", "throughput"), 1.0),
    Build(f"cpu{AGAIN}", ("--target", "cpu", "--objective", "throughput"), 1.0),
    Build("edge, 15 MB", ("--target", "edge", "--max-mb", "15"), 1.0),
    Build("edge, 6 MB", ("--target", "edge", "--max-mb", "6", "--max-loss", "5"), 3.0),
)


def measure_engines(run: Path, folder: Path, charts: Path, record: Record, *, once: bool = False) -> None:
    """Build the run for every target into ``folder``; ``record`` gets ``builds`` after each, then the students.

    once: leave out the second export, which is compared with the first. charts: a folder for each build's quality against
    latency and size, as PNG and SVG. ``students`` and ``kinds`` are those of benchmarks/students.py. A build that finds no engine
    is kept with its error. Raises InvalidInput where ``folder`` holds something, InvalidRun as ``open_run`` does.
    """
    opened = open_run(run)
    if folder.exists() and any(folder.iterdir()):
        raise InvalidInput(f"{folder} is not empty: the builds are timed, so none may be there already. Choose another --bundles")
    folder.mkdir(parents=True, exist_ok=True)
    wanted = [build for build in BUILDS if not (once and build.name.endswith(AGAIN))]
    builds: dict[str, Any] = {}
    with progress("building", len(wanted)) as advance:
        for build in wanted:
            say(f"building for {build.name}")
            builds[build.name] = _built(build, run, folder / in_path(build.name), charts / in_path(build.name))
            record.note(builds=builds)
            advance(note=build.name)
    record.note(**measure_students(opened))


def _built(build: Build, run: Path, output: Path, charts: Path) -> dict[str, Any]:
    command = [sys.executable, "-m", "export", "build", "--run", str(run), "--output", str(output), *build.arguments]
    pipes: dict[str, Any] = {"stderr": subprocess.PIPE, "stdout": subprocess.DEVNULL, "text": True}
    started = time.monotonic()
    with child(command, **pipes) as process:  # Ctrl-C reaches it, so that it removes what it has begun
        assert process.stderr is not None
        said = process.stderr.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    spent = {"minutes": round((time.monotonic() - started) / 60, 2), "peak_memory_gb": round(usage.ru_maxrss / 1e6, 2)}
    asked = {"command": " ".join(["python", *command[1:]]), "wanted_loss": build.wanted_loss, **spent}
    try:
        bundle = Bundle.open(output)
    except BertrecError:
        return {**asked, "error": said.strip().splitlines()[-1] if said.strip() else "no output"}
    found = {
        **asked,
        "bytes": bundle_bytes(output),
        "choice": dict(bundle.manifest.choice),
        "engines": [asdict(record) for record in bundle.manifest.engines if record.model == ENCODER.name],
    }
    if not build.name.endswith(AGAIN):
        write_chart(bundle, charts)
    shutil.rmtree(output)
    return found


def in_path(name: str) -> str:
    """A build's name as a folder's."""
    return name.replace(",", "").replace(" ", "-").lower()


def bundle_bytes(folder: Path) -> int:
    """Bytes of a bundle, its spelling dictionary apart."""
    apart = folder / SIGNALS_FOLDER / SPELLING_FILE
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file() and path != apart)


def same_hashes(first: Sequence[Mapping[str, Any]], second: Sequence[Mapping[str, Any]]) -> list[str]:
    """The names of the engines whose files differ between two builds."""
    others = {engine["name"]: engine["stamp"].get("sha256") for engine in second}
    return [engine["name"] for engine in first if engine["stamp"].get("sha256") != others.get(engine["name"])]


def chosen(build: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The chosen engine's record, or None where none was found."""
    name = build.get("choice", {}).get("engine")
    return next((engine for engine in build.get("engines", []) if engine["name"] == name), None)


def loss(engine: Mapping[str, Any]) -> float:
    """The share of the reference's NDCG@10 that an engine loses."""
    quality = engine["quality"]
    before = quality["ndcg_at_10"] - quality.get("ndcg_difference", 0.0)
    return 1.0 - float(quality["ndcg_at_10"]) / float(before) if before else 0.0
