"""What a bundle costs in a process of its own: time to open it, memory, and the latency of short wishes.

Every repetition is a new process that has imported nothing, so that memory and start are those of an application on a small box.
The files come from the page cache after the first one.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from benchmarks.percentiles import NOT_SHOWN, carries
from benchmarks.record import Record
from bertrec.bundle import Bundle
from bertrec.errors import BertrecError, InvalidInput
from train.progress import progress

WORDS = 12
"""Of a wish, as in "I want a laptop suited for programming that is not too heavy"."""

MOST_IMPORT_S, MOST_OPEN_S, MOST_RSS_MB, MOST_P50_MS = 0.3, 0.3, 150.0, 3.0
"""What was to be reached."""

ROOT = Path(__file__).parents[1]

PROGRAM = """
import json, re, resource, sys, time
began = time.perf_counter()
from client import Recommender
imported = time.perf_counter()
given = json.load(sys.stdin)
opening = time.perf_counter()
recommender = Recommender(bundle=given["bundle"], threads=given["threads"], engine=given["engine"])
opened = time.perf_counter()
first = recommender.recommend(given["texts"][0], k=10)
answered = time.perf_counter()
for text in given["texts"][: given["warm_up"]]:
    recommender.recommend(text, k=10)
cpu, seconds = time.process_time(), []
for text in given["texts"]:
    start = time.perf_counter()
    recommender.recommend(text, k=10)
    seconds.append(time.perf_counter() - start)
cpu = time.process_time() - cpu
with open("/proc/self/status") as status:  # getrusage's would be the parent's, where that was larger
    peak = 1024 * int(re.search(r"VmHWM:\\s+(\\d+)", status.read())[1])
with open("/proc/self/statm") as statm:
    rss = int(statm.read().split()[1]) * resource.getpagesize()
json.dump({"import_s": imported - began, "open_s": opened - opening, "first_s": answered - opened, "seconds": seconds,
           "cpu_s": cpu, "rss_bytes": rss, "peak_bytes": peak, "engine": first.engine}, sys.stdout)
"""
"""What each process runs."""


@dataclass(frozen=True)
class EdgeSettings:
    """repetitions: processes. queries: wishes of each. threads: per engine, 0 for one a core. engine: None for the default."""

    repetitions: int = 10
    queries: int = 200
    threads: int = 0
    warm_up: int = 10
    engine: str | None = None

    def __post_init__(self) -> None:
        for name in ("repetitions", "queries"):
            if getattr(self, name) < 1:
                raise InvalidInput(f"{name} is {getattr(self, name)}; accepted is 1 or more")


@dataclass(frozen=True)
class EdgeRun:
    """One process. open_s: making the recommender, hashing all files included. seconds: (queries,), of each call. cpu_s: all."""

    import_s: float
    open_s: float
    first_s: float
    seconds: list[float]
    cpu_s: float
    rss_bytes: int
    peak_bytes: int
    engine: str


def twelve_words(texts: Sequence[str], count: int) -> list[str]:
    """``count`` wishes of twelve words each: the texts' words one after another, cut. Raises InvalidInput without any words."""
    words = " ".join(texts).split()
    if not words:
        raise InvalidInput("the texts hold no words; wishes of twelve words cannot be cut from them")
    return [" ".join(words[(at * WORDS + offset) % len(words)] for offset in range(WORDS)) for at in range(count)]


def measure_edge(bundle: Path, texts: Sequence[str], settings: EdgeSettings, record: Record) -> None:
    """Open the bundle and ask it in ``settings.repetitions`` processes, one after another; a row of ``record`` for each.

    Raises InvalidBundle, and BertrecError with its last line where a process fails.
    """
    Bundle.open(bundle)
    asked = {
        "bundle": str(bundle.resolve()),
        "texts": twelve_words(texts, settings.queries),
        "threads": settings.threads,
        "warm_up": settings.warm_up,
        "engine": settings.engine,
    }
    with progress("edge", settings.repetitions) as advance:
        for _ in range(settings.repetitions):
            record.add(asdict(_run(asked)))
            advance()


def _run(asked: dict[str, Any]) -> EdgeRun:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], input=json.dumps(asked), cwd=ROOT, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise BertrecError(
            f"the process that asks the bundle failed: {(done.stderr.strip().splitlines() or ['it said nothing'])[-1]}"
        )
    return EdgeRun(**json.loads(done.stdout))


def edge_table(runs: Sequence[EdgeRun]) -> Table:
    """Medians and ranges over the processes, beside what was to be reached."""
    table = Table(title=f"a bundle in a process of its own, engine {runs[0].engine}, {WORDS}-word wishes", title_justify="left")
    for title in ("", "median", "lowest–highest process", "accepted", ""):
        table.add_column(title, justify="left" if not title else "right")
    for row in edge_rows(runs):
        table.add_row(*row)
    return table


def edge_rows(runs: Sequence[EdgeRun]) -> list[list[str]]:
    """Figure, its median, its range over the processes, what was to be reached, and whether it was."""
    fewest = min(len(run.seconds) for run in runs)
    milliseconds = {percent: [1e3 * float(np.percentile(run.seconds, percent)) for run in runs] for percent in (50, 99)}
    figures: list[tuple[str, list[float], str, float | None]] = [
        ("import, s", [run.import_s for run in runs], ".3f", MOST_IMPORT_S),
        ("open, s", [run.open_s for run in runs], ".3f", MOST_OPEN_S),
        ("first answer after it, s", [run.first_s for run in runs], ".3f", None),
        ("memory (RSS), MB", [run.rss_bytes / 1e6 for run in runs], ".0f", MOST_RSS_MB),
        ("memory at its peak, MB", [run.peak_bytes / 1e6 for run in runs], ".0f", None),
        ("p50, ms", milliseconds[50], ".2f", MOST_P50_MS),
        ("p99, ms", milliseconds[99] if carries(fewest, 99) else [], ".2f", None),
        ("CPU time a wish, ms", [1e3 * run.cpu_s / len(run.seconds) for run in runs], ".2f", None),
    ]
    rows = []
    for name, values, form, accepted in figures:
        if not values:
            rows.append([name, NOT_SHOWN, NOT_SHOWN, "", ""])
            continue
        median = float(np.median(values))
        verdict = "" if accepted is None else "reached" if median <= accepted else f"missed by {format(median - accepted, form)}"
        spread = f"{format(min(values), form)}–{format(max(values), form)}"
        rows.append([name, format(median, form), spread, "" if accepted is None else f"{accepted:g}", verdict])
    return rows
