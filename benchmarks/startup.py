"""What it takes to be there: from the start of a process to its first answer, memory and disk, for engine and way to serve.

Assembling Triton's repository, which is done once, is not counted. From the second round on the files are in the page cache.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from rich.table import Table

from benchmarks.record import Record
from benchmarks.servers import edge
from bertrec.answers import Options
from bertrec.bundle import Bundle
from bertrec.checks import number
from bertrec.errors import InvalidInput, ServerFailed
from bertrec.tensors import ENCODER
from client.backends import connect
from serving.assemble import Target, assemble
from serving.triton import TritonServer
from train.progress import progress

TEXT, TIMEOUT_S = "a warm coat that is not bulky", 60.0
IN_PROCESS = """
import sys
from client import Recommender
with Recommender(bundle=sys.argv[1], engine=sys.argv[2], threads=int(sys.argv[3]), timeout_s=60) as recommender:
    recommender.recommend(sys.argv[4])
    print("answered", flush=True)
    sys.stdin.readline()
"""
WAYS = ("edge", "edge server", "triton")


@dataclass(frozen=True)
class StartupSettings:
    """rounds: starts of each engine in each way. threads: of each engine at the edge; 0 is one for each core."""

    ways: tuple[str, ...] = WAYS
    engines: tuple[str, ...] = ()
    rounds: int = 5
    threads: int = 0

    def __post_init__(self) -> None:
        number("rounds", self.rounds, 1, 1_000)
        if not self.ways or set(self.ways) - set(WAYS):
            raise InvalidInput(f"ways is {', '.join(self.ways) or 'empty'}; accepted are {', '.join(WAYS)}")


def measure_startup(bundle: Bundle, settings: StartupSettings, record: Record) -> None:
    """A row of ``record`` for each engine, way and round. Raises InvalidInput for an engine that the bundle has not."""
    names = settings.engines or tuple(bundle.ort_engines)
    if unknown := set(names) - set(bundle.ort_engines):
        raise InvalidInput(f"engines names {', '.join(sorted(unknown))}; accepted are {', '.join(bundle.ort_engines)}")
    total = settings.rounds * len(names) * len(settings.ways)
    with TemporaryDirectory(prefix="bertrec-startup-") as folder, progress("starting", total) as advance:
        for turn in range(settings.rounds):
            for name in names:
                repository = Path(folder) / str(names.index(name))
                starts = {
                    "edge": partial(_in_process, bundle.folder, name, settings.threads),
                    "edge server": partial(_edge_server, bundle.folder, name, settings.threads),
                    "triton": partial(_triton, repository),
                }
                if "triton" in settings.ways:
                    assemble(bundle.folder, repository, target=Target.CPU, engine=name)
                for way in settings.ways:
                    began = time.perf_counter()
                    with starts[way]() as pid:
                        seconds = time.perf_counter() - began
                        found = {"seconds": seconds, "memory_bytes": memory_bytes(pid)}
                    file = bundle.manifest.files[bundle.engine(ENCODER.name, name).file]
                    record.add({"engine": name, "way": way, "round": turn, **found, "engine_bytes": file.size_bytes})
                    advance(note=f"{name}, {way}")


@contextmanager
def _in_process(folder: Path, engine: str, threads: int) -> Iterator[int]:
    command = [sys.executable, "-c", IN_PROCESS, str(folder), engine, str(threads), TEXT]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        if process.stdout.readline() != "answered\n":
            raise ServerFailed(f"the edge recommender did not answer with the engine {engine}; what it said is above")
        yield process.pid
        process.communicate("\n")


@contextmanager
def _edge_server(folder: Path, engine: str, threads: int) -> Iterator[int]:
    with edge(folder, engine=engine, threads=threads) as served:
        _ask(served.urls["http"])
        yield served.pid


@contextmanager
def _triton(repository: Path) -> Iterator[int]:
    with TritonServer(repository) as server:
        _ask(server.grpc_url)
        yield server.pid


def _ask(url: str) -> None:
    backend = connect(url)
    try:
        backend.answer([TEXT], Options(), timeout_s=TIMEOUT_S)
    finally:
        backend.close()


def memory_bytes(pid: int) -> int:
    """Proportional set size of a process and all below it: what they share is counted once."""
    children = (Path(f"/proc/{pid}/task/{task.name}/children") for task in Path(f"/proc/{pid}/task").iterdir())
    below = [int(child) for file in children for child in file.read_text(encoding="utf-8").split()]
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="utf-8").splitlines()
    own = next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) * 1024
    return own + sum(map(memory_bytes, below))


def startup_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """One line for each engine and way."""
    table = Table(title="from the start of the process to the first answer", title_justify="left")
    for title in ("engine", "way", "starts", "median s (fastest–slowest)", "memory MB", "engine MB on disk"):
        table.add_column(title, justify="left" if title in ("engine", "way") else "right")
    for engine, way in dict.fromkeys((row["engine"], row["way"]) for row in rows):
        mine = [row for row in rows if (row["engine"], row["way"]) == (engine, way)]
        seconds = [row["seconds"] for row in mine]
        memory = float(np.median([row["memory_bytes"] for row in mine])) / 1e6
        spread = f"{np.median(seconds):.2f} ({min(seconds):.2f}–{max(seconds):.2f})"
        table.add_row(engine, way, str(len(mine)), spread, f"{memory:.0f}", f"{mine[0]['engine_bytes'] / 1e6:.1f}")
    return table
