"""NVIDIA's perf_analyzer and our own generator at the same server, in turns: whether they agree on what they have in common.

Both are asked for closed loops over the same texts by gRPC. Open loops are left out: perf_analyzer counts a request's latency
from when it was sent, not from when it was due.
"""

from __future__ import annotations

import asyncio
import csv
import json
import os
import random
import shutil
import statistics
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from rich.table import Table

from benchmarks.drive import Traffic, closed_loop
from benchmarks.load import MOST_CLIENTS
from benchmarks.record import Record
from benchmarks.servers import triton
from bertrec.answers import DEFAULT_K, Options
from bertrec.checks import number
from bertrec.errors import InvalidInput, ServerFailed
from bertrec.tensors import OPTIONS, RECOMMEND, TEXT
from bertrec.text import clean
from client.backends import connect_async
from serving._installation import Installation
from train.progress import progress

PROGRAM = "perf_analyzer"
HOW_TO_GET = (
    "get it from NVIDIA's wheel, which needs no GPU: pip install --no-deps --target tools tritonclient==2.46.0, then "
    "--binary tools/bin/perf_analyzer "
    "(with glibc 2.38 or newer: pip install perf-analyzer; with an older one that is an empty package)"
)
LIBRARIES = {"libb64.so.0d": "libb64-*.so.0d", "libcudart.so.12": "libcudart-*.so.12*"}
"""What the program of the wheel needs → how nvidia-pytriton names its own copy."""
WINDOWS = 3
"""perf_analyzer gives the mean of so many windows; it would take more until they are alike, were it not told that all are."""
ALIKE_PERCENT = 1_000_000
AGREEING = 0.10
"""How far the medians of two ratios may be from 1."""
OURS, THEIRS = "bertrec", PROGRAM


@dataclass(frozen=True)
class ComparisonSettings:
    """clients: of the closed loops. rounds: how often each generator drives each, in turns. seconds: of each, warmed up before.

    Raises InvalidInput for what makes no measurement.
    """

    clients: tuple[int, ...] = (1, 2, 4, 8)
    rounds: int = 3
    seconds: float = 9.0
    warm_up_s: float = 2.0
    timeout_s: float = 30.0
    texts: int = 1_000
    engine: str | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.clients:
            raise InvalidInput("clients is empty; accepted is at least one number of clients")
        for one in self.clients:
            number("clients", one, 1, MOST_CLIENTS)
        number("rounds", self.rounds, 1, 1_000)
        number("seconds", self.seconds, 0.3, 1e4)
        number("warm_up_s", self.warm_up_s, 0.0, 1e4)
        number("texts", self.texts, 1, 1_000_000)


class PerfAnalyzer:
    """An installed perf_analyzer."""

    def __init__(self, binary: Path | None, folder: Path) -> None:
        """Find it: ``binary``, or that of the PATH. ``folder`` takes links to the libraries that it lacks.

        Raises InvalidInput, saying how to get it, where there is none or it does not start.
        """
        found = shutil.which(PROGRAM) if binary is None else shutil.which(binary)
        if found is None:
            where = "on the PATH" if binary is None else f"at {binary}"
            raise InvalidInput(f"{PROGRAM} is not installed: no program {where}; {HOW_TO_GET}")
        self._command, self._folder = str(Path(found).resolve()), folder
        libraries = Installation.find().libraries
        for name, pattern in LIBRARIES.items():
            for library in sorted(libraries.glob(pattern))[:1]:
                (folder / name).symlink_to(library)
        paths = [os.environ.get("LD_LIBRARY_PATH", ""), str(folder)]  # those of the system come first
        self._environment = {**os.environ, "LD_LIBRARY_PATH": ":".join(path for path in paths if path)}
        tried = self._run("--version")
        self.version = (tried.stdout + tried.stderr).strip()  # on stderr and with an exit status that is not 0
        if "Version" not in self.version:
            raise InvalidInput(f"{found} does not start: {self.version or f'it ended with {tried.returncode}'}; {HOW_TO_GET}")

    def closed_loop(self, url: str, texts: Sequence[str], clients: int, seconds: float) -> dict[str, float]:
        """answers_per_s and p50_ms of one closed loop. url: gRPC. Raises ServerFailed where it fails, with what it said."""
        asked, report = self._folder / "texts.json", self._folder / "report.csv"
        options = Options(k=DEFAULT_K).to_json()
        data = [{TEXT.name: [text], OPTIONS.name: [options]} for text in texts]
        asked.write_text(json.dumps({"data": data}), encoding="utf-8")
        report.unlink(missing_ok=True)
        window_ms = max(1, round(1_000 * seconds / WINDOWS))
        where = ["-m", RECOMMEND.name, "-u", urlsplit(url).netloc, "-i", "grpc", "--input-data", str(asked), "-f", str(report)]
        load = ["--concurrency-range", str(clients), "-p", str(window_ms), "-r", str(WINDOWS), "-s", str(ALIKE_PERCENT)]
        done = self._run(*where, *load, timeout_s=60.0 + 4 * seconds)
        if done.returncode or not report.exists():
            raise ServerFailed(f"{PROGRAM} failed with {done.returncode}: {(done.stderr or done.stdout).strip()[-500:]}")
        with report.open(encoding="utf-8", newline="") as file:
            row = next(csv.DictReader(file))
        return {"answers_per_s": float(row["Inferences/Second"]), "p50_ms": float(row["p50 latency"]) / 1e3}

    def _run(self, *arguments: str, timeout_s: float = 30.0) -> subprocess.CompletedProcess[str]:
        command = [self._command, *arguments]
        how: dict[str, Any] = {"env": self._environment, "cwd": self._folder, "timeout": timeout_s}
        try:
            return subprocess.run(command, capture_output=True, text=True, check=False, **how)
        except subprocess.TimeoutExpired:
            raise ServerFailed(f"{PROGRAM} did not end within {timeout_s:g} s: {' '.join(command)}") from None


def measure_agreement(
    bundle: Path, texts: Sequence[str], settings: ComparisonSettings, binary: Path | None, record: Record
) -> None:
    """A row of ``record`` for each closed loop of each generator, at one Triton that serves the bundle."""
    chosen = [clean(text) for text in texts]
    random.Random(settings.seed).shuffle(chosen)  # neither reads them all, and any part is to be like the others
    chosen = chosen[: settings.texts]
    with tempfile.TemporaryDirectory(prefix="bertrec-perf-") as folder:
        theirs = PerfAnalyzer(binary, Path(folder))
        record.note(perf_analyzer=theirs.version)
        with triton(bundle, engine=settings.engine, threads=0) as served:
            url = served.urls["grpc"]
            with progress("comparing generators", 2 * settings.rounds * len(settings.clients)) as advance:
                for clients in settings.clients:
                    asyncio.run(_ours(url, chosen, clients, settings.warm_up_s, settings.timeout_s))
                    for turn in range(settings.rounds):
                        for generator in (THEIRS, OURS) if turn % 2 else (OURS, THEIRS):
                            if generator == OURS:
                                found = asyncio.run(_ours(url, chosen, clients, settings.seconds, settings.timeout_s))
                            else:
                                found = theirs.closed_loop(url, chosen, clients, settings.seconds)
                            record.add({"generator": generator, "clients": clients, "round": turn, **found})
                            advance(note=f"{generator}, {clients} clients: {found['answers_per_s']:.1f} answers/s")


async def _ours(url: str, texts: Sequence[str], clients: int, seconds: float, timeout_s: float) -> dict[str, float]:
    backend = connect_async(url)
    try:
        driven = await closed_loop(Traffic(backend, texts, timeout_s), clients, seconds)
    finally:
        await backend.close()
    if driven.errors:
        raise ServerFailed(f"{driven.errors.total()} of the requests failed: {dict(driven.errors)}")
    return {"answers_per_s": driven.answered / driven.elapsed_s, "p50_ms": driven.percentile_ms(50.0) or 0.0}


def agreement(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """For each number of clients and measure: medians, the median ratio of ours to theirs within a round, and its range."""
    found = []
    for clients in dict.fromkeys(row["clients"] for row in rows):
        mine = {(row["generator"], row["round"]): row for row in rows if row["clients"] == clients}
        turns = [turn for generator, turn in mine if generator == OURS and (THEIRS, turn) in mine]
        for measure in ("p50_ms", "answers_per_s"):
            ours, theirs = ([mine[generator, turn][measure] for turn in turns] for generator in (OURS, THEIRS))
            if not turns:
                continue
            ratios = [mine[OURS, turn][measure] / mine[THEIRS, turn][measure] for turn in turns]
            ratio = statistics.median(ratios)
            about = {"clients": clients, "measure": measure, "ours": statistics.median(ours), "theirs": statistics.median(theirs)}
            verdict = {"ratio": ratio, "range": [min(ratios), max(ratios)], "agree": abs(ratio - 1) <= AGREEING}
            found.append({**about, **verdict})
    return found


def agreement_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """Two lines for each number of clients."""
    table = Table(title="the same closed loops by two generators, in turns", title_justify="left")
    for title in ("clients", "measure", "ours", THEIRS, "ratio (range)", f"within {AGREEING:.0%}"):
        table.add_column(title, justify="left" if title == "measure" else "right")
    for one in agreement(rows):
        ratio = "{:.3f} ({:.3f}–{:.3f})".format(one["ratio"], *one["range"])
        figures = (f"{one['ours']:.1f}", f"{one['theirs']:.1f}", ratio, "yes" if one["agree"] else "no")
        table.add_row(str(one["clients"]), {"p50_ms": "p50 ms", "answers_per_s": "answers/s"}[one["measure"]], *figures)
    return table
