"""Looks at processes and at what they leave behind."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

from serving import _supervise

ROOT = Path(__file__).parents[2]


def regions(program: int | None = None) -> set[str]:
    """The shared-memory regions of the servers that a program started: this one, if none is named."""
    return {path.name for path in _supervise.REGIONS.glob(f"{_supervise.PREFIX_STEM}-{program or os.getpid()}-*")}


def working_folders(tmp_path: Path) -> list[Path]:
    return list(tmp_path.glob("bertrec-*"))


def members(group: int) -> list[int]:
    """The living processes of a process group."""
    found = [(int(path.name), *_status(int(path.name))) for path in Path("/proc").glob("[0-9]*")]
    return [process for process, state, _, member_of in found if member_of == group and state != "Z"]


def parent_of(process: int) -> int:
    return _status(process)[1]


def _status(process: int) -> tuple[str, int, int]:
    """State, parent and process group; see proc(5)."""
    try:
        state, parent, group = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[:3]
    except OSError:
        return "Z", 0, 0
    return state, int(parent), int(group)


def wait_until(condition: Callable[[], bool], timeout_s: float = 10.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "did not happen in time"
        time.sleep(0.02)


def stub_of(server: int, model: str) -> int:
    """The living process that runs a model's only instance."""
    named = f"/models/{model}/".encode()
    processes = [one for one in members(server) if one != server and named in Path(f"/proc/{one}/cmdline").read_bytes()]
    (stub,) = processes
    return stub


def heed_ctrl_c() -> None:
    """Shells start background jobs with SIGINT ignored, which children inherit; a person at a terminal has it not ignored."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
