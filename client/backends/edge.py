"""The edge: answers in this process from a bundle, on the CPU, with no server."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

from bertrec.answers import Options, Recommendation
from bertrec.bundle import Bundle
from bertrec.engine import OnnxEngine
from bertrec.errors import InvalidInput
from bertrec.pipeline import Pipeline
from bertrec.tensors import ENCODER, RANKER

from . import NO_HEADERS

MAX_THREADS = 256
"""Far above any use; onnxruntime does not refuse a nonsensical number, it runs out of memory."""


class EdgeBackend:
    """Runs the very pipeline that Triton's ``recommend`` model runs."""

    def __init__(self, bundle: str | Path, *, engine: str | None = None, threads: int = 0) -> None:
        """Verify the bundle and load its engines, so that a fallback that cannot answer is known before it is needed.

        engine: name of the encoder engine, by default the bundle's choice. threads: per engine; 0 is one per core.
        Raises InvalidBundle, InvalidInput for threads or an engine that do not exist, MissingDependency without onnxruntime.
        """
        if isinstance(threads, bool) or not isinstance(threads, int) or not 0 <= threads <= MAX_THREADS:
            raise InvalidInput(f"threads is {threads!r}; accepted is 0, for one per core, to {MAX_THREADS}")
        opened = Bundle.open(bundle)
        engine = opened.default_engine if engine is None else engine
        encoder = OnnxEngine(opened.engine_path(ENCODER.name, engine), ENCODER, threads=threads)
        ranker = OnnxEngine(opened.engine_path(RANKER.name, opened.ranker_engine), RANKER, threads=threads)
        self._pipeline = Pipeline(opened, encoder=encoder.run, ranker=ranker.run, engine=engine)
        # More at once are no faster: they take turns for Python's lock, 5 ms each, and a caller whose deadline ends stands behind
        # all of them. Measured with 16 threads and a server that hangs: 20 to 240 ms too late without the bound, 3 to 30 with it.
        self._turns = threading.Semaphore(_cores())

    def recommend(
        self, texts: Sequence[str], options: Options, *, timeout_s: float, headers: Mapping[str, str] = NO_HEADERS
    ) -> list[Recommendation]:
        """See :class:`Backend`. Computing is not cut short: ``timeout_s`` bounds waiting, and here nobody is waited for."""
        with self._turns:
            return self._pipeline.recommend(texts, [options] * len(texts))

    def close(self) -> None:
        """Nothing is held but memory, which goes with the object."""


def _cores() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
