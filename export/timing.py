"""What each encoder engine of a bundle costs on this machine: one text at a time, and many.

From text to interest vector: tokenisation is included, since engines have tokenizers of their own; the other signals and the
ranker are left out, since they are the same for all. Engines take turns within every round, so that a slow spell of the machine
hits all of them; every engine gets the same texts and as many threads. Between machines and days only the ratios compare.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from bertrec.bundle import Bundle
from bertrec.checks import number
from bertrec.engine import OnnxEngine
from bertrec.errors import InvalidInput
from bertrec.session_options import Device, SessionOptions
from bertrec.tensors import ATTENTION_MASK, ENCODER, INPUT_IDS
from bertrec.text import TextTokenizer, batches
from train.progress import progress

Key = TypeVar("Key", bound=Hashable)
T = TypeVar("T")
Turn = Callable[[bool], list[float]]
"""Does one subject's share of a round, and gives the seconds of each request; given True it only warms up."""

MIN_ROUNDS = 3
"""Fewer have no spread to speak of."""
MAX_THREADS = 256
WARM_UP = 4
"""Every fourth request is enough to bring each length into the caches."""


@dataclass(frozen=True)
class TimingSettings:
    """How much is measured. Raises InvalidInput for what makes no measurement.

    single_texts: asked one at a time in a round. batched_texts: asked ``batch`` at a time, of similar length. Both are drawn
    evenly over the lengths of the texts that are given. threads: of every engine; 0 is one for each core. max_seconds: after
    so many no further round begins, once there are MIN_ROUNDS.
    """

    rounds: int = 5
    single_texts: int = 24
    batched_texts: int = 96
    batch: int = 32
    threads: int = 0
    max_seconds: float = 60.0

    def __post_init__(self) -> None:
        number("rounds", self.rounds, MIN_ROUNDS, 1_000)
        for name in ("single_texts", "batched_texts", "batch"):
            number(name, getattr(self, name), 1, 1_000_000)
        number("threads", self.threads, 0, MAX_THREADS)


DEFAULT_TIMING = TimingSettings()


@dataclass(frozen=True)
class EngineTimes:
    """What one engine took.

    single_ms: milliseconds of one text asked alone, over all samples. texts_per_s: in batches; of the median, the slowest and
    the fastest round. latency_ratio, throughput_ratio: how many times faster than the reference; medians of the ratios that were
    taken within each round. single_texts, batched_texts: how many were asked in a round, the latter ``batch`` at a time.
    """

    single_ms_median: float
    single_ms_p95: float
    texts_per_s_median: float
    texts_per_s_low: float
    texts_per_s_high: float
    latency_ratio: float
    throughput_ratio: float
    single_texts: int
    batched_texts: int
    batch: int
    rounds: int
    threads: int

    def as_latency(self) -> dict[str, float]:
        """The numbers, as EngineRecord.latency holds them."""
        return asdict(self)


def time_engines(
    bundle: Bundle, texts: Sequence[str], names: Sequence[str], *, reference: str, settings: TimingSettings = DEFAULT_TIMING
) -> dict[str, EngineTimes]:
    """Name → times of some encoder engines of the bundle, all of which ONNX Runtime must load; ``reference`` is among them.

    texts: cleaned; their lengths stand for those of real requests. Raises InvalidInput without texts, or without the reference.
    """
    if not texts or reference not in names:
        missing = "texts" if not texts else f"the reference {reference} among {', '.join(names) or 'no engines'}"
        raise InvalidInput(f"engines cannot be timed without {missing}")
    threads = settings.threads or len(os.sched_getaffinity(0))
    readers = {name: EngineReader(bundle, name, threads).read for name in names}
    return time_readers(readers, texts, reference=reference, length=len, settings=settings)


def time_readers(
    readers: Mapping[str, Callable[[Sequence[T]], object]],
    texts: Sequence[T],
    *,
    reference: str,
    length: Callable[[T], int],
    settings: TimingSettings = DEFAULT_TIMING,
) -> dict[str, EngineTimes]:
    """Name → times of whatever reads texts, or anything else that has a length; ``reference`` is one of them."""
    threads = settings.threads or len(os.sched_getaffinity(0))
    singly = [[text] for text in evenly(texts, settings.single_texts, length=length)]
    many = evenly(texts, settings.batched_texts, length=length)
    together = [many[start : start + settings.batch] for start in range(0, len(many), settings.batch)]
    work: dict[tuple[str, str], Turn] = {}
    for name, read in readers.items():
        work[name, "singly"] = partial(timed, read, singly)
        work[name, "together"] = partial(timed, read, together)
    rounds = take_turns(work, settings.rounds, label="timing engines", max_seconds=settings.max_seconds)
    totals = {key: np.asarray([sum(turn) for turn in turns]) for key, turns in rounds.items()}  # (rounds,) seconds

    def faster(name: str, how: str) -> float:
        return float(np.median(totals[reference, how] / totals[name, how]))

    def times(name: str) -> EngineTimes:
        samples_ms = 1e3 * np.asarray(rounds[name, "singly"])  # (rounds, texts)
        rates: NDArray[np.float64] = len(many) / totals[name, "together"]  # (rounds,)
        return EngineTimes(
            single_ms_median=float(np.median(samples_ms)),
            single_ms_p95=float(np.percentile(samples_ms, 95.0)),
            texts_per_s_median=float(np.median(rates)),
            texts_per_s_low=float(rates.min()),
            texts_per_s_high=float(rates.max()),
            latency_ratio=faster(name, "singly"),
            throughput_ratio=faster(name, "together"),
            single_texts=len(singly),
            batched_texts=len(many),
            batch=settings.batch,
            rounds=len(rates),
            threads=threads,
        )

    return {name: times(name) for name in readers}


def take_turns(
    work: Mapping[Key, Turn], rounds: int, *, label: str, max_seconds: float | None = None
) -> dict[Key, list[list[float]]]:
    """Subject → the seconds of each of its requests, round by round.

    A first round warms up and is not kept. Every other round goes through the subjects backwards, so that none always follows
    the same one. After ``max_seconds`` no round begins, once there are MIN_ROUNDS.
    """
    kept: dict[Key, list[list[float]]] = {key: [] for key in work}
    began = time.perf_counter()
    with progress(label, (rounds + 1) * len(work)) as advance:
        for turn in work.values():
            turn(True)
            advance()
        for done in range(rounds):
            late = max_seconds is not None and time.perf_counter() - began > max_seconds
            if late and done >= MIN_ROUNDS:
                advance((rounds - done) * len(work), "stopped: enough rounds for the time given")
                break
            for key in reversed(list(work)) if done % 2 else list(work):
                kept[key].append(work[key](False))
                advance()
    return kept


def timed(ask: Callable[[Sequence[T]], object], requests: Sequence[Sequence[T]], warm_up: bool) -> list[float]:
    """The seconds that each request took; a few requests only where it warms up."""
    seconds = []
    for request in requests[:: WARM_UP if warm_up else 1]:
        began = time.perf_counter()
        ask(request)
        seconds.append(time.perf_counter() - began)
    return seconds


def evenly(texts: Sequence[T], most: int, *, length: Callable[[T], int] = len) -> list[T]:  # type: ignore[assignment]  # of str
    """Up to ``most`` of the texts, evenly over their lengths, in characters where none is given, shortest first."""
    by_length = sorted(texts, key=length)
    rows = np.linspace(0, len(texts) - 1, min(most, len(texts))).round().astype(int)
    return [by_length[row] for row in rows.tolist()]


class EngineReader:
    """One engine with its tokenizer, at so many threads; ``provider`` is ONNX Runtime's that runs it."""

    def __init__(self, bundle: Bundle, engine: str, threads: int, *, device: Device | str = Device.CPU) -> None:
        self._tokenizer: TextTokenizer = bundle.tokenizer(engine)
        self._engine = OnnxEngine(bundle.engine_path(ENCODER.name, engine), ENCODER, SessionOptions(threads, device))
        self.provider = self._engine.provider

    def read(self, texts: Sequence[str]) -> None:
        """Read the texts, in the batches in which the pipeline would have them."""
        # One after another: the tokenizer would take a thread for each core to read many at once, whatever ``threads`` says.
        tokens = [self._tokenizer.tokenise([text])[0] for text in texts]
        for batch in batches(tokens, self._tokenizer):
            self._engine.run({INPUT_IDS.name: batch.input_ids, ATTENTION_MASK.name: batch.attention_mask})
