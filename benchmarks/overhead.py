"""What a real tritonserver adds over the engine in this process: latency of one text, throughput at 16 clients, CPU time.

All of it, the client too, runs on the same cores (benchmarks/budget.py), and every engine has a thread for each of them. The ways
take turns within one run: text by text for the latency, window by window for the throughput.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np
from rich.table import Table

from benchmarks.beside import (
    LATENCY,
    THROUGHPUT,
    Ask,
    Asked,
    Middle,
    Window,
    asker,
    cpu_s_per_1000,
    in_turns,
    local_window,
    percentile_ms,
    served_window,
)
from benchmarks.budget import Budget, budget, started_threads
from benchmarks.percentiles import NOT_SHOWN, carries
from benchmarks.record import Record
from benchmarks.servers import Served, triton
from bertrec.bundle import REFERENCE_ENGINE, Bundle, fastest
from bertrec.checks import number
from bertrec.errors import InvalidInput
from bertrec.session_options import SessionOptions
from bertrec.tensors import ENCODER
from bertrec.text import clean
from client.backends import connect
from client.backends.edge import EdgeBackend
from train.progress import Advance, progress

CLIENTS = 16
HERE, SPINNING, GRPC, HTTP = "in-process", "in-process, threads spin", "Triton, gRPC", "Triton, HTTP"
LOCAL = (HERE, SPINNING)
"""Ways in-process to ask one text: threads that sleep while they wait, as the edge is shipped, and that spin, as Triton's do."""
ONE_THREAD = "one thread"
PROTOCOLS = {GRPC: "grpc", HTTP: "http"}


@dataclass(frozen=True)
class OverheadSettings:
    """seconds: of each window. rounds: windows that each way gets. threads: cores for everything; 0 is all of them.

    engines: encoder engines; none for fp32 and the fastest of the bundle. texts: how many different ones are asked.
    Raises InvalidInput for what makes no measurement.
    """

    engines: tuple[str, ...] = ()
    seconds: float = 3.0
    rounds: int = 7
    threads: int = 0
    texts: int = 1_000
    seed: int = 0

    def __post_init__(self) -> None:
        number("seconds", self.seconds, 0.01, 1e6)
        number("rounds", self.rounds, 1, 1_000)
        number("texts", self.texts, 1, 1_000_000)


def chosen_engines(bundle: Bundle, wanted: Sequence[str]) -> tuple[str, ...]:
    """Those wanted; otherwise fp32 and the fastest that Triton serves, where the bundle has them.

    Raises InvalidInput for one that the bundle has not.
    """
    there = bundle.ort_engines
    if unknown := set(wanted) - set(there):
        raise InvalidInput(f"engine names {', '.join(sorted(unknown))}; accepted are {', '.join(there)}")
    quick = fastest(bundle.manifest.engines, ENCODER.name) or bundle.default_engine
    return tuple(wanted) or tuple(dict.fromkeys(name for name in (REFERENCE_ENGINE, quick) if name in there))


def asked_texts(texts: Sequence[str], most: int, *, seed: int) -> list[str]:
    """Cleaned texts in an order without a trend."""
    chosen = [clean(text) for text in texts]
    random.Random(seed).shuffle(chosen)
    return chosen[:most]


def measure_overhead(bundle: Bundle, texts: Sequence[str], settings: OverheadSettings, record: Record) -> None:
    """Rows of ``record``: for each engine and round one of latencies, and one for each way under load.

    Raises ServerFailed where a budget is not held, InvalidInput for an engine that the bundle has not.
    """
    names, chosen = chosen_engines(bundle, settings.engines), asked_texts(texts, settings.texts, seed=settings.seed)
    record.note(engines=list(names), fastest=fastest(bundle.manifest.engines, ENCODER.name), budgets={})
    with budget(settings.threads) as held:
        total = len(names) * settings.rounds * (1 + len(PROTOCOLS) + len(_local_ways(held.threads)))
        with progress("overhead", total) as advance:
            for name in names:
                with triton(bundle.folder, engine=name, threads=held.threads) as served:
                    _measure(bundle, name, chosen, settings, record, served, held, advance)


def _measure(
    bundle: Bundle,
    engine: str,
    texts: Sequence[str],
    settings: OverheadSettings,
    record: Record,
    served: Served,
    held: Budget,
    advance: Advance,
) -> None:
    """All rounds of one engine."""
    with ExitStack() as closing:
        opened = partial(EdgeBackend, bundle.folder, engine=engine)
        here, started = started_threads(partial(opened, session=SessionOptions(held.threads)))
        spinning = opened(session=SessionOptions(held.threads, allow_spinning=True))
        engines = 2 + sum(one is not None for one in (bundle.matcher_engine, bundle.heads_engine))  # the edge opens all
        verified = {**held.verified(served), "encoder_threads_in_process": 1 + started / engines}
        record.note(budgets={**record.noted("budgets"), engine: verified})
        local = {HERE: here, SPINNING: spinning, ONE_THREAD: opened(session=SessionOptions(1))}
        servers = {way: connect(served.urls[protocol]) for way, protocol in PROTOCOLS.items()}
        for backend in servers.values():
            closing.callback(backend.close)
        asked: dict[str, Ask] = {way: asker(one) for way, one in (*((way, local[way]) for way in LOCAL), *servers.items())}
        loads = {
            **{
                name: partial(local_window, local[which], callers=callers, batch=batch)
                for name, (callers, batch, which) in _local_ways(held.threads).items()
            },
            **{
                way: partial(served_window, Asked(served.urls[protocol], served.pid), clients=CLIENTS)
                for way, protocol in PROTOCOLS.items()
            },
        }
        in_turns(asked, texts, min(1.0, settings.seconds))  # not kept: the first requests allocate
        for turn in range(settings.rounds):
            found = in_turns(asked, texts[turn % len(texts) :], settings.seconds)
            record.add({"kind": LATENCY, "engine": engine, "round": turn, "seconds": found})
            advance(note=f"{engine}: {np.median(found[HERE]) * 1e3:.1f} ms, {np.median(found[GRPC]) * 1e3:.1f} ms by gRPC")
            for way in reversed(loads) if turn % 2 else loads:
                window: Window = loads[way](texts, seconds=settings.seconds)
                record.add({"kind": THROUGHPUT, "engine": engine, "round": turn, "way": way, **asdict(window)})
                advance(note=f"{engine}, {way}: {window.rate:.0f} texts/s")


def _local_ways(threads: int) -> dict[str, tuple[int, int, str]]:
    """How 16 texts at a time can be put to the engine in this process: callers, texts a call, and which of its openings."""
    ways = {f"{HERE}, {CLIENTS} callers": (CLIENTS, 1, HERE)}
    ways |= {f"{which}, batches of {CLIENTS}": (1, CLIENTS, which) for which in LOCAL}
    if threads > 1:
        batch = max(1, CLIENTS // threads)
        ways[f"{HERE}, {threads} callers with batches of {batch}, each with one thread"] = (threads, batch, ONE_THREAD)
    return ways


@dataclass(frozen=True)
class Latency:
    """One way at batch 1, over rounds.

    more_p50_ms, more_p95_ms: by how much it exceeds the better of the ways in-process, within rounds. fewest: requests
    of a round.
    """

    p50_ms: Middle
    p95_ms: Middle
    more_p50_ms: Middle
    more_p95_ms: Middle
    requests: int
    fewest: int

    @property
    def p95_cells(self) -> tuple[str, str]:
        """The p95 and by how much it is more, dashes where a round is too short for one."""
        enough = carries(self.fewest, 95)
        return (f"{self.p95_ms.value:.2f}", self.more_p95_ms.written()) if enough else (NOT_SHOWN, NOT_SHOWN)


@dataclass(frozen=True)
class Load:
    """One way at 16 texts at a time. part: its rate over that of the best way in-process, within rounds."""

    rate: Middle
    part: Middle
    client_cpu_s: Middle  # for 1,000 answers
    server_cpu_s: Middle
    cores_used: Middle


@dataclass(frozen=True)
class Found:
    """What came out for one engine. best: the way in-process with the highest median rate."""

    latency: Mapping[str, Latency]
    load: Mapping[str, Load]
    best: str


def found(rows: Sequence[Mapping[str, Any]]) -> dict[str, Found]:
    """Engine → its figures. Differences and ratios are taken within rounds; those of a round that was cut short are left out."""
    engines = dict.fromkeys(row["engine"] for row in rows)
    return {engine: one for engine in engines if (one := _found([row for row in rows if row["engine"] == engine]))}


def _found(rows: Sequence[Mapping[str, Any]]) -> Found | None:
    turns = [row for row in rows if row["kind"] == LATENCY]
    windows: dict[str, dict[int, Mapping[str, Any]]] = {}
    for row in (row for row in rows if row["kind"] == THROUGHPUT):
        windows.setdefault(row["way"], {})[row["round"]] = row
    whole = [turn["round"] for turn in turns if all(turn["round"] in one for one in windows.values())] if windows else []
    if not whole:
        return None
    rates = {way: {turn: one[turn]["answered"] / one[turn]["seconds"] for turn in whole} for way, one in windows.items()}
    best = max((way for way in rates if way not in PROTOCOLS), key=lambda way: float(np.median(list(rates[way].values()))))
    return Found(
        {way: _latency(turns, way) for way in turns[0]["seconds"]},
        {way: _load([windows[way][turn] for turn in whole], rates[way], rates[best]) for way in windows},
        best,
    )


def _latency(turns: Sequence[Mapping[str, Any]], way: str) -> Latency:
    p50, p95, more_p50, more_p95 = (
        Middle.of([percentile_ms(turn, way, percent) - (_least_ms(turn, percent) if less else 0.0) for turn in turns])
        for less, percent in ((False, 50), (False, 95), (True, 50), (True, 95))
    )
    requests = [len(turn["seconds"][way]) for turn in turns]
    return Latency(p50, p95, more_p50, more_p95, sum(requests), min(requests))


def _least_ms(turn: Mapping[str, Any], percent: float) -> float:
    """A percentile of the way in-process whose is the least, in this round."""
    return min(percentile_ms(turn, way, percent) for way in LOCAL if way in turn["seconds"])


def _load(rows: Sequence[Mapping[str, Any]], mine: Mapping[int, float], best: Mapping[int, float]) -> Load:
    return Load(
        rate=Middle.of(list(mine.values())),
        part=Middle.of([rate / best[turn] for turn, rate in mine.items()]),
        client_cpu_s=Middle.of([cpu_s_per_1000(row, "client_cpu_s") for row in rows]),
        server_cpu_s=Middle.of([cpu_s_per_1000(row, "server_cpu_s") for row in rows]),
        cores_used=Middle.of([(row["client_cpu_s"] + row["server_cpu_s"]) / row["seconds"] for row in rows]),
    )


def overhead_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """A line for each engine and way: latency of one text, then 16 at a time."""
    table = Table(title="Triton beside the engine in this process", title_justify="left")
    for title in ("engine", "way"):
        table.add_column(title)
    for title in ("p50 ms", "p95 ms", "p50 more, ms (95%)", "texts/s", "of the best (95%)", "CPU s/1,000: client", "server"):
        table.add_column(title, justify="right")
    for engine, one in found(rows).items():
        for way, lone in one.latency.items():
            times = (f"{lone.p50_ms.value:.2f}", lone.p95_cells[0], "–" if way in LOCAL else lone.more_p50_ms.written())
            table.add_row(engine, f"{way}, one at a time", *times, "–", "–", "–", "–")
        for way, load in one.load.items():
            cpu = (f"{load.client_cpu_s.value:.2f}", f"{load.server_cpu_s.value:.2f}")
            part = "–" if way == one.best else load.part.written()
            table.add_row(engine, way, "–", "–", "–", f"{load.rate.value:.1f}", part, *cpu)
    return table
