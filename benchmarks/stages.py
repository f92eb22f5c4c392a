"""Where the time of one text goes in this process, from the text to ten items, stage by stage."""

from __future__ import annotations

import time
from collections.abc import Sequence

from bertrec.answers import DEFAULT_K, Options
from bertrec.bundle import Bundle
from bertrec.engine import OnnxEngine
from bertrec.pipeline import Pipeline, RunModel, Tensors
from bertrec.session_options import SessionOptions
from bertrec.tensors import ENCODER, RANKER
from bertrec.text import clean

READING, TOKENISATION, ENCODING, RANKING, REST = "spelling, rules", "tokenisation", "encoder", "ranker", "signals, reasons"
STAGES = (READING, TOKENISATION, ENCODING, RANKING, REST)
WARM_UP = 5


class _Timed:
    """An engine, and the seconds that it has run."""

    def __init__(self, run: RunModel) -> None:
        self._run, self.seconds = run, 0.0

    def __call__(self, inputs: Tensors) -> Tensors:
        began = time.perf_counter()
        outputs = self._run(inputs)
        self.seconds += time.perf_counter() - began
        return outputs


def measure_stages(bundle: Bundle, engine: str, texts: Sequence[str], *, threads: int) -> dict[str, list[float]]:
    """Stage → seconds of each text, asked one at a time.

    Tokenisation is timed by itself, before the answer, and taken from what the answer spends outside of the engines. threads: of
    either engine; 0 is one for each core.
    """
    encoder, ranker = (
        _Timed(OnnxEngine(bundle.engine_path(spec.name, name), spec, SessionOptions(threads)).run)
        for spec, name in ((ENCODER, engine), (RANKER, bundle.ranker_engine))
    )
    pipeline, tokenizer = Pipeline(bundle, encoder=encoder, ranker=ranker, engine=engine), bundle.tokenizer(engine)
    found: dict[str, list[float]] = {stage: [] for stage in STAGES}
    for position, text in enumerate([*texts[:WARM_UP], *texts]):
        encoder.seconds = ranker.seconds = 0.0
        began = time.perf_counter()
        queries = pipeline.queries([text], [Options(k=DEFAULT_K)])
        read = time.perf_counter()
        tokenizer.tokenise([clean(text)])
        tokenised = time.perf_counter()
        pipeline.answer(queries)
        ended = time.perf_counter()
        if position < min(WARM_UP, len(texts)):
            continue
        tokenisation = tokenised - read
        rest = ended - tokenised - encoder.seconds - ranker.seconds - tokenisation
        seconds = (read - began, tokenisation, encoder.seconds, ranker.seconds, max(0.0, rest))
        for stage, one in zip(STAGES, seconds, strict=True):
            found[stage].append(one)
    return found
