"""MLServer, a server of KServe's protocol: transformers with torch behind it, on this machine, asked over HTTP."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.peers.encoders.ports import HOST, free_ports
from benchmarks.peers.setup import Loaded, Setup, in_batches

NAME, START_S, TIMEOUT_S = "encoder", 120.0, 60.0
RUNTIME = "benchmarks.peers.encoders.mlserver_runtime.Runtime"


def load(setup: Setup) -> Loaded:
    """variant: not read."""
    folder = Path(setup.own) / "server"
    folder.mkdir(exist_ok=True)
    http, grpc, metrics = free_ports(3)
    settings = {"host": HOST, "http_port": http, "grpc_port": grpc, "metrics_port": metrics, "parallel_workers": 0}
    (folder / "settings.json").write_text(json.dumps(settings), encoding="utf-8")
    model = {"name": NAME, "implementation": RUNTIME, "parameters": {"extra": asdict(setup)}}
    (folder / "model-settings.json").write_text(json.dumps(model), encoding="utf-8")
    start = "import sys; from mlserver.cli import main; sys.argv = ['mlserver', 'start', sys.argv[1]]; main()"
    process = subprocess.Popen([sys.executable, "-c", start, str(folder)], env={**os.environ, "PYTHONPATH": os.getcwd()})
    url = f"http://{HOST}:{http}/v2/models/{NAME}"
    _wait(f"{url}/ready", process)

    def encode(texts: Sequence[str]) -> NDArray[np.float32]:
        inputs = [{"name": "text", "shape": [len(texts), 1], "datatype": "BYTES", "data": list(texts)}]
        body = json.dumps({"inputs": inputs}).encode()
        request = urllib.request.Request(f"{url}/infer", body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:
            output: dict[str, Any] = json.load(answer)["outputs"][0]
        return np.asarray(output["data"], np.float32).reshape(output["shape"])

    return Loaded(in_batches(encode), setup.threads, ("mlserver", "torch", "transformers", "numpy"))


def _wait(url: str, process: subprocess.Popen[bytes]) -> None:
    """Until the model is ready. Raises RuntimeError where the server ends before, or takes too long."""
    until = time.monotonic() + START_S
    while time.monotonic() < until:
        if process.poll() is not None:
            raise RuntimeError(f"mlserver ended with status {process.returncode}; what it said is in this peer's log")
        try:
            with urllib.request.urlopen(url, timeout=TIMEOUT_S):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    raise RuntimeError(f"mlserver was not ready after {START_S:g} s; what it said is in this peer's log")
