"""One budget of cores for all that a measurement runs: this process, its threads, and the server that it starts.

Engines are given as many threads as there are cores. What does not count as an engine (a server's own threads, the client, the
Python processes) has to run on the same cores, so whoever needs more of it has less for the engine.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

from benchmarks.servers import Served, served_encoder_threads
from bertrec.errors import InvalidInput, ServerFailed

Opened = TypeVar("Opened")

TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
_GROUP, _USER, _SYSTEM = 2, 11, 12  # of /proc/PID/stat, counted from the field after the command's name


@dataclass(frozen=True)
class Budget:
    """cores: those that everything runs on, by their numbers. threads: intra-op threads of every engine, one for each core."""

    cores: tuple[int, ...]

    @property
    def threads(self) -> int:
        """See above."""
        return len(self.cores)

    def verified(self, served: Served) -> dict[str, Any]:
        """What was read back from the kernel and from the running server.

        Raises ServerFailed where a process may use another core, or the encoder has another number of threads.
        """
        processes = group(served.pid)
        elsewhere = [pid for pid in processes if set(os.sched_getaffinity(pid)) != set(self.cores)]
        here, encoder = sorted(os.sched_getaffinity(0)), served_encoder_threads(served.urls["http"])
        if elsewhere or here != list(self.cores) or encoder != self.threads:
            raise ServerFailed(
                f"the budget is the cores {self.cores}, and a thread for each; the client has {here}, the processes "
                f"{elsewhere} of the server have others, and its encoder says {encoder} threads"
            )
        return {**asdict(self), "server_processes": len(processes), "encoder_threads": encoder}


def started_threads(opening: Callable[[], Opened]) -> tuple[Opened, int]:
    """What was opened, and how many threads of this process it left running. A session of n intra-op threads starts n − 1."""
    before = _threads()
    opened = opening()
    return opened, len(_threads() - before)


def _threads() -> set[int]:
    return {int(task.name) for task in Path("/proc/self/task").iterdir()}


@contextmanager
def budget(threads: int) -> Iterator[Budget]:
    """Hold this process, and what it starts meanwhile, to the first ``threads`` of its cores; 0: to all of them.

    Raises InvalidInput where it has not so many.
    """
    before = os.sched_getaffinity(0)
    if not 0 <= threads <= len(before):
        raise InvalidInput(f"threads is {threads}; accepted are 1 to {len(before)}, the cores here, or 0 for all of them")
    chosen = tuple(sorted(before)[: threads or len(before)])
    try:
        _hold(set(chosen))
        yield Budget(chosen)
    finally:
        _hold(before)


def _hold(cores: set[int]) -> None:
    for thread in _threads():  # the call holds one thread, not the process
        with contextlib.suppress(ProcessLookupError):
            os.sched_setaffinity(thread, cores)


def group(pgid: int) -> list[int]:
    """The processes of a process group."""
    return [pid for pid, fields in _processes() if int(fields[_GROUP]) == pgid]


def group_cpu_s(pgid: int) -> float:
    """CPU seconds that the processes of a group have used so far, in user and in kernel mode; to some 10 ms a process."""
    used = (int(fields[_USER]) + int(fields[_SYSTEM]) for _, fields in _processes() if int(fields[_GROUP]) == pgid)
    return sum(used) / TICKS_PER_SECOND


def _processes() -> Iterator[tuple[int, list[str]]]:
    """Every process with the fields of its /proc/PID/stat behind the name, which may hold spaces."""
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has ended
            yield int(folder.name), (folder / "stat").read_text(encoding="utf-8").rpartition(")")[2].split()
