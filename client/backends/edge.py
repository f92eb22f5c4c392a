"""The edge: answers in this process from a bundle, on the CPU, with no server."""

from __future__ import annotations

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

    def recommend(
        self, texts: Sequence[str], options: Options, *, timeout_s: float, headers: Mapping[str, str] = NO_HEADERS
    ) -> list[Recommendation]:
        """See :class:`Backend`. Computing is not cut short: ``timeout_s`` bounds waiting, and here nobody is waited for."""
        return self._pipeline.recommend(texts, [options] * len(texts))

    def close(self) -> None:
        """Nothing is held but memory, which goes with the object."""
