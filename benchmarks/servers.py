"""The servers that the load benchmark asks: a real Triton and the edge server, each started on loopback and stopped again."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bertrec.errors import InvalidInput, ServerFailed
from bertrec.tensors import RECOMMEND
from serving.assemble import Target, assemble
from serving.triton import TritonServer

STOP_TIMEOUT_S = 15.0
CACHE_MB = 64
"""Answers take some 4 KB, so this holds those to every text that is asked."""


@dataclass(frozen=True)
class Executions:
    """How many texts a server has answered since its start, and in how many executions of its pipeline."""

    texts: int
    executions: int

    def since(self, earlier: Executions) -> Executions:
        """What was added after ``earlier``."""
        return Executions(self.texts - earlier.texts, self.executions - earlier.executions)


@dataclass(frozen=True)
class Served:
    """A server that runs. urls: by protocol. count: asks the server for its own statistics. pid: of its main process."""

    urls: dict[str, str]
    count: Callable[[], Executions]
    pid: int


@contextmanager
def triton(bundle: Path, *, engine: str | None, threads: int, cache_mb: int = 0) -> Iterator[Served]:
    """Triton with the bundle, at the threads that its configuration gives each model. Raises InvalidInput for other threads."""
    if threads:
        raise InvalidInput(f"threads is {threads}; accepted is 0: its threads stand in triton_models/*/configs/cpu.pbtxt")
    with tempfile.TemporaryDirectory(prefix="bertrec-load-") as folder:
        repository = assemble(bundle, Path(folder) / "repository", target=Target.CPU, engine=engine)
        with TritonServer(repository, cache_mb=cache_mb) as server:
            yield Served(
                {"grpc": server.grpc_url, "http": server.http_url}, lambda: _triton_executions(server.http_url), server.pid
            )


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


def _triton_executions(url: str) -> Executions:
    statistics: Any = json.loads(_get(f"{url}/v2/models/{RECOMMEND.name}/stats"))["model_stats"][0]
    return Executions(int(statistics["inference_count"]), int(statistics["execution_count"]))


def _edge_executions(url: str) -> Executions:
    values = dict(re.findall(r"^bertrec_edge_(\w+)_total (\d+)", _get(f"{url}/metrics"), re.MULTILINE))
    return Executions(int(values["texts"]), int(values["runs"]))


def _get(url: str) -> str:
    with urllib.request.urlopen(url, timeout=STOP_TIMEOUT_S) as answer:
        return str(answer.read().decode())
