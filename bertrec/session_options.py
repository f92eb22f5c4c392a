"""How ONNX Runtime runs engines on this machine: threads, memory, cores. No model changes with it, and no answer."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from bertrec.checks import boolean
from bertrec.errors import InvalidInput

MAX_THREADS = 256
"""Far above any use; onnxruntime does not refuse a nonsensical number, it runs out of memory."""


class Device(str, Enum):
    """Where an engine shall run."""

    CPU = "cpu"
    GPU = "gpu"


@dataclass(frozen=True)
class SessionOptions:
    """Of each engine; checked when made.

    threads: intra-op threads, 0 for one per core. The thread that asks is one of them.
    device: ``gpu`` asks for TensorRT, CUDA and the CPU, in that order.
    memory_arena: keep the memory of a run for the next one; without, less is held, and each run asks the system for it.
    affinity: core numbers, one for each thread but the asking one, which stays where its program has it
    (``os.sched_setaffinity``). ``threads`` may be left at 0 then, and is one more than there are cores given.
    allow_spinning: threads that wait for the next operator spin instead of sleeping. Faster alone; they take the cores from the
    engine that runs next, and from whatever runs beside.

    Raises InvalidInput for what cannot be had.
    """

    threads: int = 0
    device: Device | str = Device.CPU
    memory_arena: bool = True
    affinity: Sequence[int] = ()
    allow_spinning: bool = False

    def __post_init__(self) -> None:
        threads: object = self.threads
        if isinstance(threads, bool) or not isinstance(threads, int) or not 0 <= threads <= MAX_THREADS:
            raise InvalidInput(f"threads is {threads!r}; accepted is 0, for one per core, to {MAX_THREADS}")
        try:
            object.__setattr__(self, "device", Device(self.device))
        except ValueError:
            raise InvalidInput(f"device is {self.device!r}; accepted are {', '.join(one.value for one in Device)}") from None
        for name in ("memory_arena", "allow_spinning"):
            boolean(name, getattr(self, name))
        object.__setattr__(self, "affinity", _cores(self.affinity))
        if self.affinity:
            if threads not in (0, len(self.affinity) + 1):
                raise InvalidInput(
                    f"affinity names {len(self.affinity)} cores and threads is {threads}; accepted is a core for each thread but "
                    "the one that asks"
                )
            object.__setattr__(self, "threads", len(self.affinity) + 1)


def usable_cores() -> tuple[int, ...]:
    """The numbers of the cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return tuple(sorted(os.sched_getaffinity(0)))
    return tuple(range(os.cpu_count() or 1))


def _cores(given: object) -> tuple[int, ...]:
    there = usable_cores()
    if (
        isinstance(given, str | bytes)
        or not isinstance(given, Sequence)
        or any(isinstance(core, bool) or core not in there for core in given)
    ):
        listed = ", ".join(map(str, there))
        raise InvalidInput(f"affinity is {given!r}; accepted is a list of the cores that this process may use: {listed}")
    return tuple(given)
