"""Run a command of the project as on a full disk."""

from __future__ import annotations

import resource
import subprocess
import sys
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
