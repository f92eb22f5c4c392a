"""How ranking by inner product grows with the catalogue: latency, recall, memory and the time to build, apart for each way.

Vectors are what the encoder made of real texts. Beyond their number, a catalogue is filled with a + 0.3·(b − c) of three of them,
at the length of a: new items near real ones, spread as real ones are. Queries are other texts' vectors, in no catalogue.
"""

from __future__ import annotations

import gc
import math
import os
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.table import Table
from threadpoolctl import threadpool_limits

from benchmarks.bandwidth import Bandwidth, measure_bandwidth, written_against
from benchmarks.percentiles import shown
from benchmarks.record import Record
from benchmarks.searches import FaissSearch, NumpySearch, Rows, ScanSearch, Search, Vectors, recall
from bertrec.bundle import Bundle
from bertrec.checks import number
from bertrec.engine import OnnxEngine
from bertrec.errors import InvalidInput
from bertrec.session_options import SessionOptions
from bertrec.tensors import ATTENTION_MASK, ENCODER, INPUT_IDS, INTEREST_VECTOR
from bertrec.text import batches, clean
from train.progress import progress, say

SPREAD = 0.3
ROWS = 65_536
K = 10
TURN = 10
"""Queries that each way is asked before the next has its turn."""
NUMPY = "numpy fp32"
"""The way that the others are held against."""
TIE = 1e-6
"""Relative to the best score: what fp32's own rounding moves, so that numpy may order such items either way."""


@dataclass(frozen=True)
class ScaleSettings:
    """sizes: of the catalogues. queries: measured. tuning: further queries that choose how far the approximate search looks.

    rounds: how often each query is asked. texts: how many real ones are encoded. threads: of every search; 0: one for each core.
    Raises InvalidInput for what makes no measurement.
    """

    sizes: tuple[int, ...] = (1_000, 10_000, 100_000, 1_000_000)
    queries: int = 100
    tuning: int = 100
    rounds: int = 3
    texts: int = 2_200
    engine: str | None = None
    threads: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        for size in self.sizes:
            number("sizes", size, K, 100_000_000)
        for name in ("queries", "tuning", "rounds"):
            number(name, getattr(self, name), 1, 1_000_000)
        if self.texts < self.queries + self.tuning + 3:
            raise InvalidInput(f"texts is {self.texts}; accepted is at least 3 more than queries and tuning together")


def measure_scale(bundle: Bundle, texts: Sequence[str], settings: ScaleSettings, record: Record) -> None:
    """A row of ``record`` for each size and way, and the bandwidth of the same run. Raises InvalidInput for too few texts."""
    threads = settings.threads or len(os.sched_getaffinity(0))
    if len(texts) < settings.texts:
        raise InvalidInput(f"there are {len(texts)} texts; accepted are at least {settings.texts}, or a smaller --texts-used")
    bandwidth = measure_bandwidth(threads)
    record.note(bandwidth={**asdict(bandwidth), "best": bandwidth.best})
    engine = settings.engine or bundle.default_engine
    record.note(engine=engine)
    real = encode(bundle, [clean(text) for text in texts[: settings.texts]], engine=engine, threads=threads)
    queries, tuning, items = np.split(real, [settings.queries, settings.queries + settings.tuning])
    with threadpool_limits(threads), TemporaryDirectory(prefix="bertrec-scale-") as folder:
        for size in settings.sizes:
            say(f"a catalogue of {size:,}")
            vectors = catalogue(items, size, Path(folder) / f"{size}.f32", seed=settings.seed)
            exact = NumpySearch(vectors)
            right = [exact.top(query, K) for query in tuning]
            ways: dict[str, Callable[[], Search]] = {
                NUMPY: partial(NumpySearch, vectors),
                "int8 scan": partial(ScanSearch, vectors, threads=threads),
                "faiss IVF": partial(_approximate, vectors, tuning, right, threads, settings.seed),
            }
            found = _measure(ways, vectors, queries, settings, bandwidth)
            for row in found:
                record.add({"items": size, "real_items": min(size, len(items)), "threads": threads, **row})


def _approximate(vectors: Vectors, tuning: Vectors, right: list[Rows], threads: int, seed: int) -> Search:
    search = FaissSearch(vectors, threads=threads, seed=seed)
    search.tune(tuning, right, K)
    return search


def encode(bundle: Bundle, texts: Sequence[str], *, engine: str, threads: int) -> Vectors:
    """(texts, width) fp32: what an encoder engine makes of cleaned texts."""
    tokenizer = bundle.tokenizer(engine)
    session = OnnxEngine(bundle.engine_path(ENCODER.name, engine), ENCODER, SessionOptions(threads))
    parts = list(batches(tokenizer.tokenise(texts), tokenizer))
    rows, vectors = [], []
    with progress("encoding texts", len(texts)) as advance:
        for part in parts:
            inputs = {INPUT_IDS.name: part.input_ids, ATTENTION_MASK.name: part.attention_mask}
            vectors.append(session.run(inputs)[INTEREST_VECTOR.name])
            rows.append(part.rows)
            advance(len(part.rows))
    order: NDArray[np.int64] = np.argsort(np.concatenate(rows))
    joined: Vectors = np.concatenate(vectors).astype(np.float32)[order]
    return joined


def catalogue(real: Vectors, size: int, path: Path, *, seed: int) -> Vectors:
    """(size, width) fp32, mapped from ``path``: the real vectors, and beyond their number new ones near them."""
    vectors = np.memmap(path, np.float32, "w+", shape=(size, real.shape[1]))
    random = np.random.default_rng(seed)
    vectors[: len(real)] = real[:size]
    for start in range(len(real), size, ROWS):
        near, one = random.integers(0, len(real), (2, min(ROWS, size - start)))
        other = (one + random.integers(1, len(real), len(one))) % len(real)  # never the same
        made = real[near] + np.float32(SPREAD) * (real[one] - real[other])
        made *= np.linalg.norm(real[near], axis=1, keepdims=True) / np.linalg.norm(made, axis=1, keepdims=True)
        vectors[start : start + len(made)] = made
    vectors.flush()
    return np.asarray(vectors)


def _measure(
    ways: Mapping[str, Callable[[], Search]], vectors: Vectors, queries: Vectors, settings: ScaleSettings, bandwidth: Bandwidth
) -> list[dict[str, Any]]:
    """Build each, then ask all in turns of ``TURN`` queries.

    Before its turn each way is asked once more, unmeasured: it finds the caches full of what another way read, and the cores
    taken by threads of BLAS or OpenMP that spin for a while after their work.
    """
    searches: dict[str, Search] = {}
    built: dict[str, dict[str, float]] = {}
    for name, build in ways.items():
        gc.collect()
        before, began = private_bytes(), time.perf_counter()
        searches[name] = build()
        build_s = time.perf_counter() - began
        gc.collect()
        built[name] = {"build_s": build_s, "private_bytes": max(0, private_bytes() - before)}
    seconds: dict[str, list[float]] = {name: [] for name in searches}
    found: dict[str, list[Rows]] = {}
    with progress("searching", (settings.rounds + 1) * len(queries)) as advance:
        for turn in range(-1, settings.rounds):  # the first turn warms up, and is not kept
            found = {name: [] for name in searches}
            for start in range(0, len(queries), TURN):
                names, asked = list(searches), queries[start : start + TURN]
                for name in names if start // TURN % 2 else reversed(names):
                    searches[name].top(asked[-1], K)
                    for query in asked:
                        began = time.perf_counter()
                        rows = searches[name].top(query, K)
                        if turn >= 0:
                            seconds[name].append(time.perf_counter() - began)
                        found[name].append(rows)
                advance(len(asked))
    best = found[NUMPY]
    return [
        {
            "way": name,
            "latency_ms": dict(zip(("p25", "p50", "p75", "p99"), _percentiles_ms(seconds[name]), strict=True)),
            "recall_at_10": recall(found[name], best),
            "identical": sum(identical(vectors, query, *two) for query, *two in zip(queries, found[name], best, strict=True)),
            "queries": len(queries),
            **built[name],
            "needs_bytes": max(search.detail["held_bytes"], built[name]["private_bytes"]),
            **_scanning(search, float(np.median(seconds[name])), bandwidth),
            "detail": search.detail,
            "samples_ms": [round(1e3 * one, 4) for one in seconds[name]],
        }
        for name, search in searches.items()
    ]


def identical(vectors: Vectors, query: Vectors, mine: Rows, right: Rows) -> bool:
    """Whether both name the same items in the same order, but for items whose scores fp32 cannot tell apart."""
    if len(mine) != len(right):
        return False
    got, wanted = (vectors[rows].astype(np.float64) @ query.astype(np.float64) for rows in (mine, right))
    return bool(np.abs(got - wanted).max() <= TIE * np.abs(wanted).max())


def private_bytes() -> int:
    """Memory of this process that no file backs, as the kernel counts it."""
    found = re.search(r"RssAnon:\s+(\d+) kB", Path("/proc/self/status").read_text(encoding="utf-8"))
    assert found is not None
    return int(found[1]) * 1024


def _scanning(search: Search, seconds: float, bandwidth: Bandwidth) -> dict[str, float]:
    scanned = search.detail.get("scanned_bytes")
    return {} if scanned is None else bandwidth.against(scanned / seconds / 1e9)


def _percentiles_ms(seconds: Sequence[float]) -> list[float]:
    found: list[float] = (1e3 * np.percentile(seconds, [25, 50, 75, 99])).tolist()
    return found


def growth(rows: Sequence[Mapping[str, Any]]) -> dict[str, float | None]:
    """Way → the exponent of its median latency between the two largest catalogues: 1 is linear, below is better."""
    found: dict[str, float | None] = {}
    for way in {row["way"]: None for row in rows}:
        two = sorted((row["items"], row["latency_ms"]["p50"]) for row in rows if row["way"] == way)[-2:]
        (items, ms), (more, more_ms) = two[0], two[-1]
        found[way] = math.log(more_ms / ms) / math.log(more / items) if more > items else None
    return found


def scale_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """One line for each size and way."""
    table = Table(title="the ten best of a catalogue: cost of one query", title_justify="left")
    for title in (
        "items",
        "way",
        "p50 ms (quartiles)",
        "p99 ms",
        "recall@10",
        "identical",
        "MB",
        "built in s",
        "GB/s (of reading, of a triad)",
    ):
        table.add_column(title, justify="left" if title == "way" else "right")
    for row in rows:
        latency = row["latency_ms"]
        table.add_row(
            f"{row['items']:,}",
            row["way"],
            f"{latency['p50']:.3f} ({latency['p25']:.3f}–{latency['p75']:.3f})",
            shown(latency["p99"], 99, len(row["samples_ms"]), ".3f"),
            f"{row['recall_at_10']:.3f}",
            f"{row['identical']}/{row['queries']}",
            f"{row['needs_bytes'] / 1e6:.0f}",
            f"{row['build_s']:.1f}",
            written_against(row) or "–",
        )
    return table
