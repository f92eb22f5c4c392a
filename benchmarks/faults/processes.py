"""Looks at the processes of a server, and starts programs of the project where disk or shared memory are full."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bertrec.errors import ServerFailed

ROOT = Path(__file__).parents[2]
STOP_S = 20.0

_MOUNT = 'set -e; for one in "$FULL" "$SHM"; do mount -t tmpfs -o size="$SIZE" tmpfs "$one"; done; exec "$@"'


def group(server: int) -> list[int]:
    """The living processes of a server's process group: its own, and its models'."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            state, _, member_of = (path / "stat").read_text().rpartition(")")[2].split()[:3]
            if int(member_of) == server and state != "Z":
                found.append(int(path.name))
    return found


def stub_of(server: int, model: str) -> int:
    """The process that runs a model. Raises ServerFailed where there is none."""
    for process in group(server):
        with contextlib.suppress(OSError):
            if process != server and f"/models/{model}/".encode() in Path(f"/proc/{process}/cmdline").read_bytes():
                return process
    raise ServerFailed(f"the server {server} has no process for the model {model}")


def resident_bytes(server: int) -> int:
    """Memory of all processes of the group, pages that they share counted for each."""
    pages = 0
    for process in group(server):
        with contextlib.suppress(OSError):
            pages += int(Path(f"/proc/{process}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def why_no_mounts() -> str | None:
    """Why no tmpfs can be mounted in a namespace of one's own; None where it can."""
    if shutil.which("unshare") is None:
        return "unshare (util-linux) is not installed"
    tried = subprocess.run(
        ["unshare", "-rm", "mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", "/mnt"], capture_output=True, text=True, check=False
    )
    return None if tried.returncode == 0 else f"mounting is not allowed: {tried.stderr.strip()}"


@dataclass(frozen=True)
class Confined:
    """A program whose temporary folder is ``full``, and whose shared memory is ``shared``: a tmpfs each, seen by it alone."""

    process: subprocess.Popen[str]
    full: Path
    shared: Path
    printed: str
    url: str

    def fill(self, folder: Path) -> None:
        """Leave no byte free in one of the two. Raises OSError where that is not what ends it."""
        with Path(f"/proc/{self.process.pid}/root{folder}/filling").open("wb", buffering=0) as file:
            try:
                while file.write(bytes(4096)):
                    pass
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise

    def free_bytes(self, folder: Path) -> int:
        """What is free there."""
        return shutil.disk_usage(f"/proc/{self.process.pid}/root{folder}").free


@contextmanager
def confined(folder: Path, module: str, *arguments: str, size: str, address: str, log: bool = False) -> Iterator[Confined]:
    """``python -m module …`` with a disk and a shared memory of ``size`` each; ``address`` is the pattern of the printed url.

    log: give it ``--log`` on that disk. Gives the url "" where the program ended instead of printing one.
    """
    full, shared = folder / "full", Path("/dev/shm")  # noqa: S108  # mounted over, for that program alone
    full.mkdir(exist_ok=True)
    given = [*arguments, *(["--log", str(full / "server.log")] if log else [])]
    command = ["unshare", "-rm", "sh", "-c", _MOUNT, "sh", sys.executable, "-m", module, *given]
    environment = {**os.environ, "FULL": str(full), "SHM": str(shared), "SIZE": size}
    with subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        try:
            printed, url = "", ""
            assert process.stdout is not None
            while not url and (line := process.stdout.readline()):
                printed += line
                if found := re.search(address, line):
                    url = found[1]
            yield Confined(process, full, shared, printed, url)
        finally:
            process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(STOP_S)
            process.kill()
