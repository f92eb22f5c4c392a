"""Ctrl-C for a command of ``python -m benchmarks`` that runs as it does for a person."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.serving.processes import ROOT, heed_ctrl_c


def interrupted(
    arguments: Sequence[str], output: Path, rows: str, *, call: Sequence[str] = ("-m", "benchmarks"), least: int = 1
) -> tuple[dict[str, Any], str]:
    """What ``output`` holds, and what was printed, of a command that got SIGINT once there were ``least`` of its ``rows``."""

    def found() -> int:
        return len(json.loads(output.read_text())[rows]) if output.exists() else 0

    command = [sys.executable, *call, *arguments]
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, preexec_fn=heed_ctrl_c, text=True
    ) as process:
        try:
            until = time.monotonic() + 150.0
            while found() < least and process.poll() is None and time.monotonic() < until:
                time.sleep(0.05)
            process.send_signal(signal.SIGINT)
            printed, error = process.communicate(timeout=60.0)
        finally:
            process.kill()
    assert process.returncode == 130, error
    assert "interrupted; what was measured is kept" in error
    content: dict[str, Any] = json.loads(output.read_text())
    assert content["complete"] is False
    return content, printed
