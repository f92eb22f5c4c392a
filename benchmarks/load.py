"""Triton and the edge server under load: how latency grows with clients and with rates, and which rate still meets the objective.

The generator shares the machine with the server, as `lag_ms` of each row shows. Each text is a request of its own.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from rich.table import Table

from benchmarks.drive import PERCENTILES, Driven, Traffic, closed_loop, open_loop
from benchmarks.percentiles import shown
from benchmarks.ramp import climb
from benchmarks.record import Record
from benchmarks.servers import CACHE_MB, Executions, Served, edge, running, triton
from bertrec.checks import number
from bertrec.errors import InvalidInput
from bertrec.text import clean
from client.backends import connect_async
from train.progress import progress

CACHED = "triton-cached"
RUNNING = "running"
"""The name of a server that was started elsewhere."""
SERVERS: dict[str, Callable[..., AbstractContextManager[Served]]] = {
    "triton": triton,
    CACHED: partial(triton, cache_mb=CACHE_MB),
    "edge": edge,
}
"""What can be asked. triton-cached keeps answers, and is asked for every text once before it is measured."""
MOST_ERRORS = 0.01
"""A rate at which more fail than this part does not meet the objective, however fast the others are."""
MOST_CLIENTS, MOST_RATE = 1_024, 100_000.0


@dataclass(frozen=True)
class LoadSettings:
    """What is asked. Raises InvalidInput for what makes no measurement.

    clients: of the closed loop. rates: of the open loop, requests a second, rising; the first that breaks the objective twice is
    the last that is tried. seconds: of each load, after ``warm_up_s``. objective_ms: what the 99th percentile may be. texts: how
    many different ones are asked. threads: of each engine of the edge server; 0 is one for each core. running: addresses of a
    Triton that was started elsewhere, one for each protocol, which is asked instead of ``servers``.
    """

    servers: tuple[str, ...] = ("triton", "edge")
    protocols: tuple[str, ...] = ("grpc", "http")
    clients: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64)
    rates: tuple[float, ...] = (5, 10, 20, 30, 40, 60, 80, 120, 160, 240, 320, 480, 640)
    seconds: float = 10.0
    warm_up_s: float = 2.0
    objective_ms: float = 100.0
    timeout_s: float = 5.0
    texts: int = 1_000
    engine: str | None = None
    threads: int = 0
    seed: int = 0
    running: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name, given, accepted in (("servers", self.servers, SERVERS), ("protocols", self.protocols, ("grpc", "http"))):
            if not given or set(given) - set(accepted):
                raise InvalidInput(f"{name} is {', '.join(given) or 'empty'}; accepted are {', '.join(accepted)}")
        for one in self.clients:
            number("clients", one, 1, MOST_CLIENTS)
        for rate in self.rates:
            number("rates", rate, 0.1, MOST_RATE)
        for name in ("seconds", "objective_ms", "timeout_s"):
            number(name, getattr(self, name), 0.01, 1e6)
        number("warm_up_s", self.warm_up_s, 0.0, 1e6)
        number("texts", self.texts, 1, 1_000_000)


def measure_load(bundle: Path, texts: Sequence[str], settings: LoadSettings, record: Record) -> None:
    """Put every server under every load, each server in a process of its own and alone; a row of ``record`` for each load."""
    chosen = [clean(text) for text in texts]
    random.Random(settings.seed).shuffle(chosen)
    chosen = chosen[: settings.texts]
    for name in (RUNNING,) if settings.running else settings.servers:
        with _served(name, bundle, settings) as served:
            for protocol in (one for one in settings.protocols if one in served.urls):
                label = f"{name}, {protocol}"
                keep = partial(_keep, record, {"server": name, "protocol": protocol})
                asyncio.run(_measure(served, protocol, chosen, settings, label, name == CACHED, keep))


def _served(name: str, bundle: Path, settings: LoadSettings) -> AbstractContextManager[Served]:
    if name == RUNNING:
        return running({urlsplit(url).scheme: url for url in settings.running})
    return SERVERS[name](bundle, engine=settings.engine, threads=settings.threads if name == "edge" else 0)


async def _measure(
    served: Served,
    protocol: str,
    texts: Sequence[str],
    settings: LoadSettings,
    label: str,
    cached: bool,
    keep: Callable[[Mapping[str, Any], Driven, Executions], None],
) -> None:
    """Every load of one server over one protocol."""
    backend = connect_async(served.urls[protocol])
    traffic = Traffic(backend, texts, settings.timeout_s)
    try:
        if cached:
            warming = Driven()
            for text in texts:
                await traffic.ask(text, time.perf_counter(), warming)
        with progress(label, len(settings.clients) + len(settings.rates)) as advance:
            for clients in settings.clients:
                await closed_loop(traffic, clients, settings.warm_up_s)
                before = served.count()
                driven = await closed_loop(traffic, clients, settings.seconds)
                keep({"loop": "closed", "clients": clients}, driven, served.count().since(before))
                advance(note=f"{clients} clients")

            async def asked(rate: float, attempt: int) -> bool:
                await open_loop(traffic, rate, settings.warm_up_s, seed=settings.seed + 1)
                before = served.count()
                driven = await open_loop(traffic, rate, settings.seconds, seed=settings.seed)
                met = meets(driven, settings.objective_ms)
                load = {"loop": "open", "rate": rate, "attempt": attempt, "objective_met": met}
                keep(load, driven, served.count().since(before))
                advance(int(met), note=f"{rate:g} requests/s")
                return met

            advance(len(settings.rates) - await climb(settings.rates, asked))
    finally:
        await backend.close()


def meets(driven: Driven, objective_ms: float) -> bool:
    """Whether the 99th percentile is within the objective, and hardly anything failed."""
    failed, p99_ms = driven.errors.total(), driven.percentile_ms(99.0)
    return p99_ms is not None and p99_ms <= objective_ms and failed <= MOST_ERRORS * (failed + driven.answered)


def _keep(record: Record, who: Mapping[str, Any], load: Mapping[str, Any], driven: Driven, executed: Executions) -> None:
    lag_ms = driven.lag_us.get_value_at_percentile(99.0) / 1e3
    record.add(
        {
            **who,
            **load,
            "engine": ", ".join(sorted(driven.engines)) or None,
            "seconds": driven.elapsed_s,
            "answered": driven.answered,
            "errors": dict(driven.errors),
            "answers_per_s": driven.answered / driven.elapsed_s,
            "latency_ms": {f"p{percent:g}": driven.percentile_ms(percent) for percent in PERCENTILES},
            "lag_ms": {"p99": lag_ms},
            "texts": executed.texts,
            "executions": executed.executions,
            "texts_per_execution": executed.texts / executed.executions if executed.executions else None,
            "batches": {str(size): asdict(one) for size, one in sorted(executed.batches.items())},
            "histogram_us": driven.latencies_us.encode().decode(),
        }
    )


def load_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """One line for each load."""
    table = Table(title="under load: latency of one text, from the moment it was due", title_justify="left")
    for title in ("server", "protocol", "load"):
        table.add_column(title)
    for title in ("answers/s", *[f"p{percent:g} ms" for percent in PERCENTILES], "errors", "texts/run", "lag ms"):
        table.add_column(title, justify="right")
    for row in rows:
        load = f"{row['clients']} clients" if row["loop"] == "closed" else _opened(row)
        joined = row["texts_per_execution"]
        table.add_row(
            row["server"],
            row["protocol"],
            load,
            f"{row['answers_per_s']:.1f}",
            *[shown(row["latency_ms"][f"p{percent:g}"], percent, row["answered"], ".1f") for percent in PERCENTILES],
            str(sum(row["errors"].values())),
            "–" if joined is None else f"{joined:.1f}",
            shown(row["lag_ms"]["p99"], 99, row["answered"] + sum(row["errors"].values()), ".1f"),
        )
    table.caption = (
        "lag: of the generator, 99th percentile; ! the objective was missed at this rate, which is measured again: the second "
        "measurement counts, and where it misses too no higher rate was tried"
    )
    return table


def _opened(row: Mapping[str, Any]) -> str:
    return f"{row['rate']:g}/s{' again' if row['attempt'] > 1 else ''}{'' if row['objective_met'] else ' !'}"
