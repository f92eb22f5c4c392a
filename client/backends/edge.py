"""The edge: answers in this process from a bundle, on the CPU, with no server."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bertrec.bundle import Bundle
from bertrec.errors import InvalidInput
from bertrec.questions import Question
from bertrec.services import check_asked, open_services

from . import NO_HEADERS

MAX_THREADS = 256
"""Far above any use; onnxruntime does not refuse a nonsensical number, it runs out of memory."""


class EdgeBackend:
    """Runs the very services that Triton's python models run."""

    def __init__(self, bundle: str | Path, *, engine: str | None = None, threads: int = 0, device: str = "cpu") -> None:
        """Verify the bundle and load its engines, so that a fallback that cannot answer is known before it is needed.

        engine: name of the encoder engine, by default the bundle's choice. threads: per engine; 0 is one per core.
        device: ``cpu`` or ``gpu``, see :class:`bertrec.engine.OnnxEngine`.
        Raises InvalidBundle, InvalidInput for threads or an engine that do not exist, MissingDependency without onnxruntime.
        """
        if isinstance(threads, bool) or not isinstance(threads, int) or not 0 <= threads <= MAX_THREADS:
            raise InvalidInput(f"threads is {threads!r}; accepted is 0, for one per core, to {MAX_THREADS}")
        opened = Bundle.open(bundle)
        engine = opened.default_engine if engine is None else engine
        self._bundle = bundle
        self._services = open_services(opened, engine=engine, threads=threads, device=device)
        # More at once are no faster: they take turns for Python's lock, 5 ms each, and a caller whose deadline ends stands behind
        # all of them. Measured with 16 threads and a server that hangs: 20 to 240 ms too late without the bound, 3 to 30 with it.
        self._turns = threading.Semaphore(_cores())

    def answer(
        self, texts: Sequence[str], question: Question, *, timeout_s: float, headers: Mapping[str, str] = NO_HEADERS
    ) -> list[Any]:
        """See :class:`Backend`. Computing is not cut short: ``timeout_s`` bounds waiting, and here nobody is waited for."""
        service = check_asked(self._services, question.model, self._bundle)
        with self._turns:
            return service.answer(service.queries(texts, [question] * len(texts)))

    def close(self) -> None:
        """Nothing is held but memory, which goes with the object."""


def _cores() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
