"""The servers that the load benchmark asks: a real Triton and the edge server, each started on loopback and stopped again."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bertrec.errors import InvalidInput, ServerFailed
from bertrec.tensors import ENCODER, RECOMMEND, ModelSpec
from serving.assemble import MODELS_FOLDER, Target, assemble
from serving.triton import TritonServer

STOP_TIMEOUT_S = 15.0
SETTLED_S = 0.02
"""Between two readings of what a server has counted."""
INTRA_OP = "intra_op_thread_count"
"""The parameter of encoder/configs/cpu.pbtxt."""
CACHE_MB = 64
"""Answers take some 4 KB, so this holds those to every text that is asked."""

COMPUTE = ("compute_input", "compute_infer", "compute_output")
"""The parts of an execution in Triton's statistics."""


@dataclass(frozen=True)
class Executed:
    """How many executions took a batch of one size, and their seconds together."""

    executions: int
    seconds: float


@dataclass(frozen=True)
class Executions:
    """How many texts a server has answered since its start, and in how many executions of its pipeline.

    batches: texts of an execution → what such executions took, from Triton's statistics; empty for a server that does not tell.
    """

    texts: int
    executions: int
    batches: Mapping[int, Executed] = field(default_factory=dict)

    def since(self, earlier: Executions) -> Executions:
        """What was added after ``earlier``."""
        batches = {}
        for size, now in self.batches.items():
            before = earlier.batches.get(size, Executed(0, 0.0))
            if now.executions > before.executions:
                batches[size] = Executed(now.executions - before.executions, now.seconds - before.seconds)
        return Executions(self.texts - earlier.texts, self.executions - earlier.executions, batches)


@dataclass(frozen=True)
class Served:
    """A server that runs.

    urls: by protocol. count: asks the server for its own statistics. pid: of its main process; 0 where it was not started here.
    """

    urls: dict[str, str]
    count: Callable[[], Executions]
    pid: int


@contextmanager
def triton(
    bundle: Path,
    *,
    engine: str | None,
    threads: int,
    cache_mb: int = 0,
    alter: Callable[[Path], None] = lambda repository: None,
) -> Iterator[Served]:
    """Triton with the bundle. threads: of the encoder's engine; 0 as its configuration says. alter: done to the repository."""
    with tempfile.TemporaryDirectory(prefix="bertrec-load-") as folder:
        repository = assemble(bundle, Path(folder) / "repository", target=Target.CPU, engine=engine)
        if threads:
            set_encoder_threads(repository, threads)
        alter(repository)
        with TritonServer(repository, cache_mb=cache_mb) as server:
            urls = {"grpc": server.grpc_url, "http": server.http_url}
            yield Served(urls, lambda: triton_executions(server.http_url, RECOMMEND), server.pid)


def set_encoder_threads(repository: Path, threads: int) -> None:
    """Have an assembled repository's encoder run with so many intra-op threads."""
    config = repository / MODELS_FOLDER / ENCODER.name / "configs" / f"{Target.CPU.value}.pbtxt"
    pattern = rf'(key: "{INTRA_OP}" value: {{ string_value: ")\d+'
    text, found = re.subn(pattern, rf"\g<1>{threads}", config.read_text(encoding="utf-8"))
    if found != 1:
        raise InvalidInput(f"{config} names {INTRA_OP} {found} times; accepted is once")
    config.write_text(text, encoding="utf-8")


def served_encoder_threads(url: str) -> int:
    """The intra-op threads that a running Triton says that its encoder has."""
    config: Any = json.loads(_get(f"{url}/v2/models/{ENCODER.name}/config"))
    return int(config["parameters"][INTRA_OP]["string_value"])


@contextmanager
def edge(bundle: Path, *, engine: str | None, threads: int) -> Iterator[Served]:
    """The edge server in a process of its own, with ``threads`` an engine (0: one for each core)."""
    command = [sys.executable, "-m", "client.server", "--bundle", str(bundle), "--port", "0", "--threads", str(threads)]
    command += [] if engine is None else ["--engine", engine]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True) as process:
        try:
            assert process.stdout is not None and process.stderr is not None
            said = re.match(r"serving (http://\S+)", process.stdout.readline())
            if said is None:
                raise ServerFailed(f"the edge server did not start: {process.stderr.read().strip()}")
            url = said[1]
            yield Served({"http": url}, lambda: _edge_executions(url), process.pid)
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.communicate(timeout=STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                process.kill()


@contextmanager
def running(urls: Mapping[str, str]) -> Iterator[Served]:
    """A Triton that somebody else started, such as one in NVIDIA's container. urls: by protocol; HTTP has its statistics."""
    if "http" not in urls:
        raise InvalidInput(f"running is {', '.join(urls.values())}; accepted is an http:// address, and a grpc:// one beside it")
    yield Served(dict(urls), lambda: triton_executions(urls["http"], RECOMMEND), pid=0)


def triton_executions(url: str, model: ModelSpec) -> Executions:
    """What Triton's own statistics say of one of its models; an execution's time is that of input, inference and output.

    Triton counts a request a moment after it has answered it, so they are read until they stand still.
    """
    found = _statistics(url, model)
    while True:
        time.sleep(SETTLED_S)
        before, found = found, _statistics(url, model)
        if found == before:
            return found


def _statistics(url: str, model: ModelSpec) -> Executions:
    try:
        statistics: Any = json.loads(_get(f"{url}/v2/models/{model.name}/stats"))["model_stats"][0]
    except OSError as error:
        raise ServerFailed(f"{url} gives no statistics of {model.name}: {error}") from error
    batches = {
        int(one["batch_size"]): Executed(int(one["compute_infer"]["count"]), sum(int(one[part]["ns"]) for part in COMPUTE) / 1e9)
        for one in statistics.get("batch_stats", ())
    }
    return Executions(int(statistics["inference_count"]), int(statistics["execution_count"]), batches)


def _edge_executions(url: str) -> Executions:
    values = dict(re.findall(r"^bertrec_edge_(\w+)_total (\d+)", _get(f"{url}/metrics"), re.MULTILINE))
    return Executions(int(values["texts"]), int(values["runs"]))


def _get(url: str) -> str:
    with urllib.request.urlopen(url, timeout=STOP_TIMEOUT_S) as answer:
        return str(answer.read().decode())
