"""NVIDIA's perf_analyzer and our own generator at the same server, in turns: whether they agree on what they have in common.

Both are asked for closed loops over the same texts by gRPC, and leave the answers as they come: perf_analyzer can do no more, and
what a client makes of them costs cores that the server runs on. Open loops are left out: perf_analyzer counts a request's latency
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
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import grpc  # type: ignore[import-untyped]  # its stubs are a package of their own
import numpy as np
from rich.table import Table
from tritonclient.grpc.service_pb2 import ModelInferRequest
from tritonclient.utils import serialize_byte_tensor

from benchmarks.drive import Traffic, closed_loop
from benchmarks.load import MOST_CLIENTS
from benchmarks.overhead import chosen_engines
from benchmarks.record import Record
from benchmarks.servers import triton
from bertrec.answers import DEFAULT_K, Options
from bertrec.bundle import Bundle
from bertrec.checks import number
from bertrec.errors import InvalidInput, ServerFailed, Unavailable
from bertrec.questions import Question
from bertrec.tensors import OPTIONS, RECOMMEND, TEXT
from bertrec.text import clean
from client.backends import NO_HEADERS
from serving._installation import Installation
from train.progress import progress

PROGRAM = "perf_analyzer"
INFER = "/inference.GRPCInferenceService/ModelInfer"
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
MEASURES = {"p50_ms": "p50 ms", "answers_per_s": "answers/s"}


@dataclass(frozen=True)
class ComparisonSettings:
    """engines: encoder engines, none for fp32 and the fastest of the bundle. clients: of the closed loops.

    rounds: how often each generator drives each, in turns. seconds: of each, warmed up before.

    Raises InvalidInput for what makes no measurement.
    """

    clients: tuple[int, ...] = (1, 2, 4, 8)
    rounds: int = 3
    seconds: float = 9.0
    warm_up_s: float = 2.0
    timeout_s: float = 30.0
    texts: int = 1_000
    engines: tuple[str, ...] = ()
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
    bundle: Bundle, texts: Sequence[str], settings: ComparisonSettings, binary: Path | None, record: Record
) -> None:
    """A row of ``record`` for each closed loop of each generator, at one Triton for each engine, one after another.

    Raises InvalidInput for an engine that the bundle has not, or without the program.
    """
    engines = chosen_engines(bundle, settings.engines)
    chosen = [clean(text) for text in texts]
    random.Random(settings.seed).shuffle(chosen)  # neither reads them all, and any part is to be like the others
    chosen = chosen[: settings.texts]
    with tempfile.TemporaryDirectory(prefix="bertrec-perf-") as folder:
        theirs = PerfAnalyzer(binary, Path(folder))
        record.note(perf_analyzer=theirs.version)
        with progress("comparing generators", 2 * settings.rounds * len(settings.clients) * len(engines)) as advance:
            for engine in engines:
                with triton(bundle.folder, engine=engine, threads=0) as served:
                    for row in _rows(served.urls["grpc"], theirs, chosen, settings):
                        record.add({"engine": engine, **row})
                        advance(
                            note=f"{engine}, {row['generator']}, {row['clients']} clients: {row['answers_per_s']:.1f} answers/s"
                        )


def _rows(url: str, theirs: PerfAnalyzer, texts: Sequence[str], settings: ComparisonSettings) -> Iterator[dict[str, Any]]:
    """One for each closed loop at one server. Raises ServerFailed where a request failed."""
    for clients in settings.clients:
        asyncio.run(_ours(url, texts, clients, settings.warm_up_s, settings.timeout_s))
        for turn in range(settings.rounds):
            for generator in (THEIRS, OURS) if turn % 2 else (OURS, THEIRS):
                if generator == OURS:
                    found = asyncio.run(_ours(url, texts, clients, settings.seconds, settings.timeout_s))
                else:
                    found = theirs.closed_loop(url, texts, clients, settings.seconds)
                yield {"generator": generator, "clients": clients, "round": turn, **found}


class Undecoded:
    """A backend (client.backends.AsyncBackend) for one text at a time, whose answers are left as they came: the list is empty."""

    def __init__(self, url: str, texts: Sequence[str]) -> None:
        """url: gRPC. texts: all that will be asked."""
        self._channel = grpc.aio.insecure_channel(urlsplit(url).netloc)
        self._infer = self._channel.unary_unary(INFER)
        self._requests = {text: _request(text) for text in texts}

    async def answer(
        self, texts: Sequence[str], question: Question, *, timeout_s: float, headers: Mapping[str, str] = NO_HEADERS
    ) -> list[Any]:
        """Raises Unavailable where the server refuses or fails."""
        (text,) = texts
        try:
            await self._infer(self._requests[text], timeout=timeout_s)
        except grpc.aio.AioRpcError as error:
            raise Unavailable(f"{error.code().name}: {error.details()}") from None
        return []

    async def close(self) -> None:
        """Close the channel."""
        await self._channel.close()


def _request(text: str) -> bytes:
    """The message that asks for the ten best items for a text."""
    inputs = {TEXT: text, OPTIONS: Options(k=DEFAULT_K).to_json()}
    request = ModelInferRequest(model_name=RECOMMEND.name)
    for spec, value in inputs.items():
        request.inputs.add(name=spec.name, datatype=spec.dtype, shape=[1, 1])
        request.raw_input_contents.append(serialize_byte_tensor(np.array([[value]], object)).item())
    return bytes(request.SerializeToString())


async def _ours(url: str, texts: Sequence[str], clients: int, seconds: float, timeout_s: float) -> dict[str, float]:
    backend = Undecoded(url, texts)
    try:
        driven = await closed_loop(Traffic(backend, texts, timeout_s), clients, seconds)
    finally:
        await backend.close()
    if driven.errors:
        raise ServerFailed(f"{driven.errors.total()} of the requests failed: {dict(driven.errors)}")
    return {"answers_per_s": driven.answered / driven.elapsed_s, "p50_ms": driven.percentile_ms(50.0) or 0.0}


def agreement(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """For each engine, number of clients and measure: medians, the median ratio of ours to theirs within a round, its range."""
    found = []
    for engine, clients in dict.fromkeys((row["engine"], row["clients"]) for row in rows):
        mine = {(row["generator"], row["round"]): row for row in rows if (row["engine"], row["clients"]) == (engine, clients)}
        turns = [turn for generator, turn in mine if generator == OURS and (THEIRS, turn) in mine]
        for measure in MEASURES:
            ours, theirs = ([mine[generator, turn][measure] for turn in turns] for generator in (OURS, THEIRS))
            if not turns:
                continue
            ratios = [mine[OURS, turn][measure] / mine[THEIRS, turn][measure] for turn in turns]
            ratio = statistics.median(ratios)
            about = {"engine": engine, "clients": clients, "measure": measure}
            figures = {"ours": statistics.median(ours), "theirs": statistics.median(theirs)}
            verdict = {"ratio": ratio, "range": [min(ratios), max(ratios)], "agree": abs(ratio - 1) <= AGREEING}
            found.append({**about, **figures, **verdict})
    return found


def agreement_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """Two lines for each engine and number of clients."""
    table = Table(title="the same closed loops by two generators, in turns", title_justify="left")
    for title in ("engine", "clients", "measure", "ours", THEIRS, "ratio (range)", f"within {AGREEING:.0%}"):
        table.add_column(title, justify="left" if title in ("engine", "measure") else "right")
    for one in agreement(rows):
        ratio = "{:.3f} ({:.3f}–{:.3f})".format(one["ratio"], *one["range"])
        figures = (f"{one['ours']:.1f}", f"{one['theirs']:.1f}", ratio, "yes" if one["agree"] else "no")
        table.add_row(one["engine"], str(one["clients"]), MEASURES[one["measure"]], *figures)
    return table
