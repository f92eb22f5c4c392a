"""What the signals beside the text cost: the exported ranker with all of them against the one with the text alone.

Both rank the same catalogue of random vectors of length 1, as wide as the real ones. They take turns, request by request and each
first as often as the other, so that a slow spell of the machine hits both; every sample goes into the JSON.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.table import Table

from benchmarks.record import Record
from bertrec.engine import OnnxEngine
from bertrec.errors import InvalidInput
from bertrec.session_options import SessionOptions
from bertrec.tensors import BEHAVIOUR, BOOST, GRAPH, LEXICAL, PRIOR, QUERY_VECTOR, RANKER, TEXT_SIGNAL
from export.ranker import export_ranker
from train.progress import progress

WIDTHS = {TEXT_SIGNAL: 384, LEXICAL: 256, GRAPH: 64, BEHAVIOUR: 64, PRIOR: 1}
"""Of the default backbone, and of the default settings of the other signals."""
MOST_RATIO = 2.0
"""What all signals together may cost, as a multiple of the text alone."""


@dataclass(frozen=True)
class RankerSettings:
    """items: size of the catalogue. pairs: requests that each ranker gets per batch size. threads: intra-op threads of both."""

    items: int = 10_000
    pairs: int = 300
    warm_up: int = 20
    batches: tuple[int, ...] = (1, 8)
    threads: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("items", "pairs"):
            if getattr(self, name) < 1:
                raise InvalidInput(f"{name} is {getattr(self, name)}; accepted is 1 or more")


@dataclass(frozen=True)
class RankerSamples:
    """Seconds of each request of one batch size, pair by pair. text, all_signals: (pairs,)."""

    batch: int
    text: list[float]
    all_signals: list[float]

    @property
    def ratio(self) -> tuple[float, float, float]:
        """All signals to text alone: lower quartile, median and upper quartile over the pairs."""
        low, median, high = np.percentile(np.asarray(self.all_signals) / np.asarray(self.text), [25, 50, 75]).tolist()
        return low, median, high


def measure_ranker(settings: RankerSettings, record: Record) -> None:
    """Export both rankers, and time them in turns; ``record`` gets the samples of each batch size."""
    random = np.random.default_rng(settings.seed)
    items = {signal: _unit(random, settings.items, width) for signal, width in WIDTHS.items()}
    with TemporaryDirectory() as folder, progress("measuring the ranker", len(settings.batches) * settings.pairs) as advance:
        engines = [
            _engine({TEXT_SIGNAL: items[TEXT_SIGNAL]}, Path(folder) / "text.onnx", settings.threads),
            _engine(items, Path(folder) / "all.onnx", settings.threads),
        ]
        for batch in settings.batches:
            samples = RankerSamples(batch, [], [])
            for turn in range(-settings.warm_up, settings.pairs):
                sides = {signal: _unit(random, batch, width) for signal, width in WIDTHS.items()}
                asked = [_inputs([sides[TEXT_SIGNAL]], settings.items), _inputs(list(sides.values()), settings.items)]
                seconds = [0.0, 0.0]
                for which in (0, 1) if turn % 2 == 0 else (1, 0):
                    seconds[which] = _time(engines[which], asked[which])
                if turn >= 0:  # the first ones warm up, and are not kept
                    samples.text.append(seconds[0])
                    samples.all_signals.append(seconds[1])
                    advance()
            record.add({**asdict(samples), "ratio_quartiles": samples.ratio})


def samples_of(rows: Sequence[Mapping[str, Any]]) -> list[RankerSamples]:
    """What the rows of a record hold."""
    return [RankerSamples(row["batch"], row["text"], row["all_signals"]) for row in rows]


def ranker_table(samples: Sequence[RankerSamples], settings: RankerSettings) -> Table:
    """Median milliseconds of both, and their ratio beside what it may be."""
    table = Table(title=f"ranking {settings.items:,} items, {settings.threads} thread, {settings.pairs} pairs of requests")
    for title in ("batch", "text alone, ms", "all signals, ms", "ratio (quartiles)", f"at most {MOST_RATIO:g}"):
        table.add_column(title, justify="right")
    for row in samples:
        low, median, high = row.ratio
        reached = "reached" if median <= MOST_RATIO else f"missed by {median - MOST_RATIO:.2f}"
        medians = [f"{1e3 * float(np.median(seconds)):.3f}" for seconds in (row.text, row.all_signals)]
        table.add_row(str(row.batch), *medians, f"{median:.2f} ({low:.2f}–{high:.2f})", reached)
    return table


def _engine(items: Mapping[str, NDArray[np.float32]], path: Path, threads: int) -> OnnxEngine:
    export_ranker(items, path)
    return OnnxEngine(path, RANKER, SessionOptions(threads))


def _unit(random: np.random.Generator, rows: int, width: int) -> NDArray[np.float32]:
    """(rows, width) random vectors of length 1."""
    vectors = random.standard_normal((rows, width), np.float32)
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)


def _inputs(sides: Sequence[NDArray[np.float32]], items: int) -> dict[str, NDArray[Any]]:
    """The query vector of some user sides, and no rule."""
    return {QUERY_VECTOR.name: np.hstack(sides), BOOST.name: np.zeros((len(sides[0]), items), np.float32)}


def _time(engine: OnnxEngine, inputs: Mapping[str, NDArray[Any]]) -> float:
    began = time.perf_counter()
    engine.run(inputs)
    return time.perf_counter() - began
