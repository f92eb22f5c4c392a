"""A command of its own is stopped by Ctrl-C whenever it comes, also while it starts."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import Any

import pytest

from benchmarks.children import child

SLEEPING = [sys.executable, "-c", "import time; time.sleep(60)"]


def test_ctrl_c_in_the_block_stops_the_child() -> None:
    with pytest.raises(KeyboardInterrupt), child(SLEEPING) as process:
        raise KeyboardInterrupt
    assert process.returncode is not None and process.returncode != 0
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_ctrl_c_while_it_starts_stops_it_too(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[subprocess.Popen[Any]] = []

    class Interrupted(subprocess.Popen):  # type: ignore[type-arg]
        """The process is there, and the program does not know it yet."""

        def __init__(self, *arguments: Any, **options: Any) -> None:  # noqa: ANN401
            super().__init__(*arguments, **options)
            started.append(self)
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(subprocess, "Popen", Interrupted)
    with pytest.raises(KeyboardInterrupt), child(SLEEPING):
        pytest.fail("the block began")
    assert started[0].returncode is not None
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_an_error_in_the_block_is_its_own() -> None:
    with pytest.raises(ValueError, match="mine"), child([sys.executable, "-c", ""]) as process:
        raise ValueError("mine")
    assert process.returncode == 0
