"""A peer's process, from the driver's side."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

from bertrec.errors import BertrecError

ROOT = Path(__file__).parents[2]
WORKER = "benchmarks.peers.worker"
STOP_S = 5.0
POOLS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS", "TORCHINDUCTOR_COMPILE_THREADS")
OFFLINE = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "DO_NOT_TRACK": "1",
    "PYTHONUNBUFFERED": "1",
}
_TICK_S = 1.0 / os.sysconf("SC_CLK_TCK")


class PeerFailed(BertrecError):
    """A peer could not do what it was told, or died; the message is its reason in one line."""


class PeerProcess:
    """A process that answers commands (benchmarks/peers/worker.py), in a session of its own, so that Ctrl-C does not reach it."""

    def __init__(self, python: Path, log: Path, threads: int) -> None:
        """Start it. log: where what it says goes."""
        self._log = log
        environment = {**os.environ, **OFFLINE, **dict.fromkeys(POOLS, str(threads))}
        environment["PATH"] = f"{python.parent}{os.pathsep}{environment.get('PATH', '')}"
        with log.open("wb") as said:
            self._process = subprocess.Popen(
                [str(python), "-m", WORKER],
                cwd=ROOT,
                env=environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=said,
                start_new_session=True,
            )
        self._unread = b""

    @property
    def pid(self) -> int:
        """Of the process; a peer may have others below it."""
        return self._process.pid

    def ask(self, what: str, timeout_s: float, **given: Any) -> dict[str, Any]:  # noqa: ANN401  # what JSON holds
        """Give a command and wait for its answer. Raises PeerFailed for an error, a death and a timeout."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps({"do": what, **given}).encode() + b"\n")
            self._process.stdin.flush()
        except OSError:
            raise PeerFailed(self._last_words()) from None
        answer: dict[str, Any] = json.loads(self._line(timeout_s))
        if "error" in answer:
            raise PeerFailed(str(answer["error"]))
        return answer

    def cpu_seconds(self) -> float:
        """CPU time of the process and all below it, so far."""
        return sum(_cpu_seconds(pid) for pid in _tree(self.pid))

    def close(self) -> None:
        """End it and all below it."""
        below = _tree(self.pid)
        with contextlib.suppress(OSError):
            os.killpg(self.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(STOP_S)
        for pid in below:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            with contextlib.suppress(OSError):
                pipe.close()  # type: ignore[union-attr]  # both were asked for

    def _line(self, timeout_s: float) -> bytes:
        assert self._process.stdout is not None
        until = time.monotonic() + timeout_s
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            while b"\n" not in self._unread:
                if not selector.select(max(until - time.monotonic(), 0.0)):
                    raise PeerFailed(f"no answer after {timeout_s:g} s")
                part = os.read(self._process.stdout.fileno(), 1 << 16)
                if not part:
                    raise PeerFailed(self._last_words())
                self._unread += part
        line, self._unread = self._unread.split(b"\n", 1)
        return line

    def _last_words(self) -> str:
        """The last line that it said, and how it ended."""
        status = self._process.wait()
        lines = [line.strip() for line in self._log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
        return f"{lines[-1] if lines else 'it said nothing'} (the process ended with status {status})"


def _tree(pid: int) -> list[int]:
    """A process and all below it, as far as they are there."""
    try:
        files = [Path(f"/proc/{pid}/task/{task.name}/children") for task in Path(f"/proc/{pid}/task").iterdir()]
        children = [int(child) for file in files for child in file.read_text(encoding="utf-8").split()]
    except OSError:
        return [pid]
    return [pid, *(one for child in children for one in _tree(child))]


def _cpu_seconds(pid: int) -> float:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) * _TICK_S  # utime and stime, fields 14 and 15 of proc(5)
