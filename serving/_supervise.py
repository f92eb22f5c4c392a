"""Stands between a Python program and the tritonserver that it started: the server ends when the program does, however it ends.

Run as a script, with the standard library alone:

    python _supervise.py REGION_PREFIX FOLDER GRACE_S COMMAND [ARGUMENT…]

It starts the command in a session of its own, prints its process id, and waits for one of two things: the command ends, or
standard input has a byte or its end, because the program wants to stop or died. Then nothing is left: neither the command nor
its children (the python backend's stubs), nor the shared-memory regions that they leave in /dev/shm when they are killed, nor
FOLDER, which was made for it.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

REGIONS = Path("/dev/shm")
PREFIX_STEM = "bertrec"
_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def region_prefix(token: str) -> str:
    """A prefix for the names of a server's shared-memory regions, which tells whose they are."""
    return f"{PREFIX_STEM}-{os.getpid()}-{token}-"


def remove_regions(prefix: str) -> None:
    """Remove the shared-memory regions of one server."""
    for path in REGIONS.glob(f"{prefix}*"):
        with contextlib.suppress(OSError):  # removed by somebody else, or another user's
            path.unlink()


def remove_abandoned_regions() -> None:
    """Remove the shared-memory regions of servers whose program is dead."""
    for path in REGIONS.glob(f"{PREFIX_STEM}-*"):
        found = re.match(rf"{PREFIX_STEM}-(\d+)-", path.name)
        if found and not Path("/proc", found[1]).exists():
            with contextlib.suppress(OSError):
                path.unlink()


def remove_abandoned_folders(parent: Path) -> None:
    """Remove from ``parent`` the temporary folders of programs that are dead, named ``bertrec-<what>-<pid>-…``."""
    for path in parent.glob(f"{PREFIX_STEM}-*"):
        found = re.match(rf"{PREFIX_STEM}-[a-z]+-(\d+)-", path.name)
        if found and not Path("/proc", found[1]).exists():
            shutil.rmtree(path, ignore_errors=True)


def folder_prefix(what: str) -> str:
    """A prefix for the name of a temporary folder, which tells whose it is."""
    return f"{PREFIX_STEM}-{what}-{os.getpid()}-"


def _die_with_parent() -> None:
    """In the child: be killed when the supervisor is, which then could not do it."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _stop_when_told(server: subprocess.Popen[bytes], grace_s: float) -> None:
    os.read(sys.stdin.fileno(), 1)  # not through sys.stdin: its lock would be held at exit
    server.terminate()
    try:
        server.wait(grace_s)
    except subprocess.TimeoutExpired:
        _kill_group(server.pid)


def _kill_group(group: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)


def main() -> int:
    """Returns the command's exit code, as the shell gives it."""
    prefix, folder, grace_s, *command = sys.argv[1:]
    server = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=sys.stderr,
        start_new_session=True,
        preexec_fn=_die_with_parent,
    )
    sys.stdout.write(f"{server.pid}\n")
    sys.stdout.close()
    threading.Thread(target=_stop_when_told, args=(server, float(grace_s)), daemon=True).start()
    code = server.wait()
    _kill_group(server.pid)
    remove_regions(prefix)
    shutil.rmtree(folder, ignore_errors=True)
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(main())
