"""Latency and throughput of each engine, in-process: text in, ranked items out, tokenisation included.

Engines take turns within a round, so that a slow spell of the machine hits all of them; the same texts and the same thread
budget for all. Medians over rounds with their spread; every sample goes into the JSON.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.record import Record
from benchmarks.throughput import interval
from bertrec.answers import DEFAULT_K, Options
from bertrec.bundle import REFERENCE_ENGINE, Bundle
from bertrec.errors import InvalidInput
from bertrec.session_options import Device, SessionOptions
from bertrec.text import TextTokenizer
from client.backends.edge import EdgeBackend
from train.clothing import load_clothing
from train.data import split_interactions
from train.progress import progress

TIMEOUT_S = 60.0
BATCHES, FIXED_TOKENS = (1, 8, 32), (16, 64, 128)
WISH_WORDS = 12
"""A wish is the beginning of a review: so many words."""


@dataclass(frozen=True)
class Workload:
    """What is asked: ``texts`` in requests of ``batch``."""

    name: str
    batch: int
    texts: tuple[str, ...]


@dataclass
class Samples:
    """Seconds of each request of one engine under one workload, round by round."""

    engine: str
    workload: str
    batch: int
    rounds_s: list[list[float]] = field(default_factory=list)

    @property
    def seconds(self) -> list[float]:
        """All samples."""
        return [sample for row in self.rounds_s for sample in row]

    def percentile_ms(self, percent: float) -> float:
        """A percentile of the latency over all samples, in milliseconds."""
        return float(np.percentile(self.seconds, percent)) * 1e3

    @property
    def texts_per_second(self) -> tuple[float, float, float]:
        """Throughput of the slowest, the median and the fastest round."""
        rates = sorted(len(row) * self.batch / sum(row) for row in self.rounds_s)
        return rates[0], float(np.median(rates)), rates[-1]


@dataclass(frozen=True)
class LatencySettings:
    """rounds: turns that each engine gets. texts: how many are asked for a turn. threads: intra-op threads of every engine.

    grid: every batch size at every length, instead of wishes and reviews. device: cpu, or gpu with onnxruntime-gpu.
    """

    rounds: int = 5
    texts: int = 64
    threads: int = 0
    warm_up: int = 2
    grid: bool = False
    device: str = Device.CPU.value

    def __post_init__(self) -> None:
        for name in ("rounds", "texts"):
            if getattr(self, name) < 1:
                raise InvalidInput(f"{name} is {getattr(self, name)}; accepted is 1 or more")


def workloads(reviews: Sequence[str], settings: LatencySettings) -> list[Workload]:
    """Short wishes and whole reviews one at a time, and reviews 32 at a time, for throughput."""
    chosen = tuple(reviews[: settings.texts])
    wishes = tuple(" ".join(review.split()[:WISH_WORDS]) for review in chosen)
    return [Workload("wish", 1, wishes), Workload("review", 1, chosen), Workload("reviews", 32, chosen)]


def grid(reviews: Sequence[str], settings: LatencySettings, count: Callable[[str], int], *, longest: int) -> list[Workload]:
    """Reviews as they are, and texts of every fixed length, at every batch size; lengths beyond ``longest`` are left out.

    count: text → its tokens. A fixed length is reached from below, to within a word; the encoder pads it to that length.
    """
    chosen = tuple(reviews[: settings.texts])
    works = [Workload("real lengths", batch, chosen) for batch in BATCHES]
    for tokens in (one for one in FIXED_TOKENS if one <= longest):
        texts = tuple(of_length(reviews[start:], tokens, count) for start in range(len(chosen)))
        works += [Workload(f"{tokens} tokens", batch, texts) for batch in BATCHES]
    return works


def of_length(reviews: Sequence[str], tokens: int, count: Callable[[str], int]) -> str:
    """As many words of the reviews, read on from the first and over again, as make no more than ``tokens``."""
    words = " ".join(reviews).split()
    words = list(itertools.islice(itertools.cycle(words), tokens))  # a word is at least one token
    fewest, most = 1, len(words)
    while fewest < most:
        middle = (fewest + most + 1) // 2
        fewest, most = (middle, most) if count(" ".join(words[:middle])) <= tokens else (fewest, middle - 1)
    return " ".join(words[:fewest])


def ratios(samples: Sequence[Samples]) -> list[dict[str, Any]]:
    """How many times faster than fp32 each engine was: the median over rounds of medians' ratios, and a 95% interval."""
    reference = {(row.workload, row.batch): row for row in samples if row.engine == REFERENCE_ENGINE}
    found = []
    for row in (row for row in samples if (row.workload, row.batch) in reference):
        slower = reference[row.workload, row.batch].rounds_s
        both = zip(slower, row.rounds_s, strict=False)  # an interrupted engine lacks its last round
        each = [float(np.median(one) / np.median(mine)) for one, mine in both]
        middle = {"ratio": float(np.median(each)), "interval": interval(each)}
        found.append({"engine": row.engine, "workload": row.workload, "batch": row.batch, **middle})
    return found


def _token_count(tokenizer: TextTokenizer, text: str) -> int:
    """Tokens of a text, as many as the encoder reads at most; more where it was cut."""
    (tokens,) = tokenizer.tokenise([text])
    return len(tokens.ids) + tokens.truncated


def held_out_reviews() -> list[str]:
    """The test texts of the bundled reviews, in the order of their split."""
    dataset = load_clothing()
    return [dataset.interactions[row].text for row in split_interactions(dataset, seed=0).test]


def measure_latency(bundle: Bundle, reviews: Sequence[str], settings: LatencySettings, record: Record) -> list[Samples]:
    """Time every encoder engine of the bundle under every workload; ``record`` has the samples after each turn of all engines."""
    names = bundle.ort_engines
    backends = {
        name: EdgeBackend(bundle.folder, engine=name, session=SessionOptions(settings.threads, settings.device)) for name in names
    }
    longest = bundle.manifest.max_tokens
    count = partial(_token_count, bundle.tokenizer(bundle.default_engine))
    asked = grid(reviews, settings, count, longest=longest) if settings.grid else workloads(reviews, settings)
    samples = {(name, work.name, work.batch): Samples(name, work.name, work.batch) for work in asked for name in names}
    with progress("measuring latency", (settings.rounds + 1) * len(samples)) as advance:
        for turn in range(-1, settings.rounds):  # the first turn warms up, and is not kept
            for work in asked:
                for name, backend in reversed(backends.items()) if turn % 2 else backends.items():
                    seconds = _time(backend, work, settings.warm_up if turn < 0 else len(work.texts))
                    if turn >= 0:
                        samples[name, work.name, work.batch].rounds_s.append(seconds)
                    advance()
                if turn >= 0:
                    record.note(samples=[asdict(row) for row in samples.values() if row.rounds_s])
    return list(samples.values())


def read_texts(path: Path) -> list[str]:
    """One text a line. Raises InvalidInput where there is none."""
    try:
        texts = [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(f"--texts {path} cannot be read: {error}; accepted is a UTF-8 file with one text a line") from None
    if not texts:
        raise InvalidInput(f"--texts {path} holds no text; accepted is one text a line")
    return texts


def _time(backend: EdgeBackend, work: Workload, texts: int) -> list[float]:
    """Seconds of each request."""
    seconds = []
    for start in range(0, min(texts, len(work.texts)), work.batch):
        part = work.texts[start : start + work.batch]
        began = time.perf_counter()
        backend.answer(part, Options(k=DEFAULT_K), timeout_s=TIMEOUT_S)
        seconds.append(time.perf_counter() - began)
    return seconds
