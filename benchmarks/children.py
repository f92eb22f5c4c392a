"""Commands as processes of their own, which Ctrl-C for this one stops as well, whenever it comes."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from train.command import INTERRUPTED

STOP_S = 30.0
"""What a command may take to stop what it has started; then it is killed."""


@contextmanager
def child(command: Sequence[str], **options: Any) -> Iterator[subprocess.Popen[Any]]:  # noqa: ANN401  # those of Popen
    """A process in a session of its own, which is interrupted where Ctrl-C ends the block.

    Ctrl-C while it starts is held until it is known: in the middle of Popen it would leave a process that nobody stops.
    """
    held: list[int] = []
    before = signal.getsignal(signal.SIGINT)
    if before is signal.default_int_handler:
        signal.signal(signal.SIGINT, lambda number, _: held.append(number))
    try:
        with subprocess.Popen(command, start_new_session=True, preexec_fn=_heed_ctrl_c, **options) as process:
            try:
                signal.signal(signal.SIGINT, before)
                if held:
                    raise KeyboardInterrupt
                yield process
            except KeyboardInterrupt:
                interrupt(process)
                raise
    finally:
        signal.signal(signal.SIGINT, before)


def _heed_ctrl_c() -> None:
    """A job in the background ignores Ctrl-C, and what it starts inherits that; the end of a share is heeded all the same."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def interrupt(process: subprocess.Popen[Any]) -> int:
    """Ctrl-C for the command alone: what it started it stops itself. One that does not heed it is killed.

    What is so stopped was interrupted, whatever it says: while numpy loads, Ctrl-C becomes an ImportError.
    """
    process.send_signal(signal.SIGINT)
    try:
        status = process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        status = process.wait()
    return INTERRUPTED if status else status
