"""Run a command of the project, or a part of a test, as on a full disk."""

from __future__ import annotations

import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

LIMIT_BYTES = 40_000
"""No file may grow beyond this, which the tiny model's weights and engines do."""


def run_on_full_disk(module: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """``python -m module`` in a process of its own, in which every write beyond the limit fails."""
    return subprocess.run(
        [sys.executable, "-m", module, *arguments],
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (LIMIT_BYTES, LIMIT_BYTES)),
        cwd=Path(__file__).parent.parent,
    )


@contextmanager
def full_disk(limit_bytes: int = LIMIT_BYTES) -> Iterator[None]:
    """Every write of this process beyond the limit fails."""
    before, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (before, hard))
