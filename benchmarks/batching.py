"""How Triton should batch on this machine: queue delay, instances and threads, each beside the repository as it is.

All servers run at once, and are asked in turn, round by round, so that whatever the machine does meanwhile concerns all of them.
"""

from __future__ import annotations

import asyncio
import re
import statistics
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

from benchmarks.drive import Driven, Traffic, closed_loop
from benchmarks.percentiles import carries
from benchmarks.record import Record
from bertrec.checks import number
from bertrec.errors import InvalidInput
from bertrec.tensors import ENCODER, RANKER, RECOMMEND
from client.backends import connect_async
from serving.assemble import MODELS_FOLDER, Target, assemble
from serving.triton import TritonServer
from train.progress import progress

SHIPPED = "as shipped"


@dataclass(frozen=True)
class Change:
    """One edit of a model's configuration: what ``pattern`` finds is replaced."""

    model: str
    pattern: str
    replacement: str


def _delay(microseconds: int) -> Change:
    return _policy(RECOMMEND.name, f"max_queue_delay_microseconds: {microseconds}")


def _preferred(size: int) -> Change:
    return Change(RECOMMEND.name, r"dynamic_batching \{", f"dynamic_batching {{ preferred_batch_size: [ {size} ]")


def _instances(model: str, count: int) -> Change:
    return Change(model, r"instance_group \[ \{ count: \d+", f"instance_group [ {{ count: {count}")


def _threads(count: int) -> Change:
    return Change(ENCODER.name, r'(intra_op_thread_count" value: \{ string_value: )"\d+"', rf'\g<1>"{count}"')


def _policy(model: str, fields: str) -> Change:
    """Another batcher for the model: one with these fields."""
    return Change(model, r"dynamic_batching \{ \}\n", f"dynamic_batching {{ {fields} }}\n")


def _unbatched(model: str) -> Change:
    return Change(model, r"dynamic_batching \{ \}\n", "")


def _waiting(*, spin: str, only_in_a_run: str = "0") -> Change:
    """How the encoder's threads wait for work."""
    return Change(
        ENCODER.name,
        r'(parameters \{ key: "session.)intra_op.allow_spinning(" value: \{ string_value: )"1"(.*\n)',
        rf'\g<1>intra_op.allow_spinning\g<2>"{spin}"\g<3>\g<1>force_spinning_stop\g<2>"{only_in_a_run}"\g<3>',
    )


ENGINE_POLICY = "default_queue_policy { max_queue_size: 64 }"
VARIANTS: Mapping[str, tuple[Change, ...]] = {
    SHIPPED: (),
    "delay 2 ms": (_delay(2_000),),
    "delay 5 ms preferring 8": (_delay(5_000), _preferred(8)),
    "two of recommend": (_instances(RECOMMEND.name, 2),),
    "engines without a batcher": (_unbatched(ENCODER.name), _unbatched(RANKER.name)),
    "engines with a queue policy": (_policy(ENCODER.name, ENGINE_POLICY), _policy(RANKER.name, ENGINE_POLICY)),
    "recommend with a queue policy": (_policy(RECOMMEND.name, "default_queue_policy { max_queue_size: 256 }"),),
    "encoder threads that sleep": (_waiting(spin="0"),),
    "encoder threads that spin in a run only": (_waiting(spin="1", only_in_a_run="1"),),
    "two encoders of one thread": (_instances(ENCODER.name, 2), _threads(1)),
}
"""Name → what it changes in the repository for the target cpu."""


@dataclass(frozen=True)
class BatchingSettings:
    """What is asked. clients: of closed loops. seconds: of each load. rounds: how often every variant gets every load.

    variants: names in ``VARIANTS``; as shipped is always among them. texts: how many different ones are asked.
    """

    variants: tuple[str, ...] = tuple(VARIANTS)
    clients: tuple[int, ...] = (1, 4, 16)
    seconds: float = 3.0
    warm_up_s: float = 1.0
    rounds: int = 5
    timeout_s: float = 10.0
    texts: int = 1_000
    engine: str | None = None

    def __post_init__(self) -> None:
        if unknown := [name for name in self.variants if name not in VARIANTS]:
            raise InvalidInput(f"variants names {unknown[0]!r}; accepted are {', '.join(VARIANTS)}")
        for one in self.clients:
            number("clients", one, 1, 1_024)
        for name in ("seconds", "timeout_s"):
            number(name, getattr(self, name), 0.01, 1e6)
        number("warm_up_s", self.warm_up_s, 0.0, 1e6)
        for name in ("rounds", "texts"):
            number(name, getattr(self, name), 1, 1_000_000)


def measure_batching(bundle: Path, texts: Sequence[str], settings: BatchingSettings, record: Record) -> None:
    """A row of ``record`` for every variant, number of clients and round."""
    names = list(dict.fromkeys([SHIPPED, *settings.variants]))
    with tempfile.TemporaryDirectory(prefix="bertrec-batching-") as folder, ExitStack() as servers:
        urls = {}
        for number_of, name in enumerate(names):
            repository = assemble(bundle, Path(folder) / str(number_of), target=Target.CPU, engine=settings.engine)
            apply(VARIANTS[name], repository)
            urls[name] = servers.enter_context(TritonServer(repository)).grpc_url
        asyncio.run(_measure(urls, list(texts[: settings.texts]), settings, record))


def apply(changes: Sequence[Change], repository: Path) -> None:
    """Edit an assembled repository's configurations. Raises InvalidInput where one no longer has what a change replaces."""
    for change in changes:
        path = repository / MODELS_FOLDER / change.model / "configs" / f"{Target.CPU.value}.pbtxt"
        edited, found = re.subn(change.pattern, change.replacement, path.read_text(encoding="utf-8"))
        if found != 1:
            raise InvalidInput(f"{path} holds {change.pattern!r} {found} times; accepted is once")
        path.write_text(edited, encoding="utf-8")


async def _measure(urls: Mapping[str, str], texts: Sequence[str], settings: BatchingSettings, record: Record) -> None:
    backends = {name: connect_async(url) for name, url in urls.items()}
    traffic = {name: Traffic(backend, texts, settings.timeout_s) for name, backend in backends.items()}
    try:
        with progress("batching", settings.rounds * len(settings.clients) * len(urls)) as advance:
            for turn in range(settings.rounds):
                for clients in settings.clients:
                    for name in list(urls)[turn % len(urls) :] + list(urls)[: turn % len(urls)]:
                        await closed_loop(traffic[name], clients, settings.warm_up_s)
                        record.add(_row(name, clients, turn, await closed_loop(traffic[name], clients, settings.seconds)))
                        advance(note=f"{name}, {clients} clients")
    finally:
        for backend in backends.values():
            await backend.close()


def _row(name: str, clients: int, turn: int, driven: Driven) -> dict[str, Any]:
    return {
        "variant": name,
        "clients": clients,
        "round": turn,
        "answered": driven.answered,
        "requests_per_s": driven.answered / driven.elapsed_s,
        "p50_ms": driven.percentile_ms(50.0),
        "p99_ms": driven.percentile_ms(99.0),
        "slowest_ms": driven.percentile_ms(100.0),
        "errors": dict(driven.errors),
    }


def summary(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """A row for each variant and number of clients: medians over the rounds, and of the ratios to as shipped in the same round.

    ``ratio``, ``low``, ``high``: median, least and greatest ratio of the requests per second.
    """
    shipped = {(row["clients"], row["round"]): row["requests_per_s"] for row in rows if row["variant"] == SHIPPED}
    found = []
    for name, clients in dict.fromkeys((row["variant"], row["clients"]) for row in rows):
        mine = [row for row in rows if (row["variant"], row["clients"]) == (name, clients)]
        ratios = [row["requests_per_s"] / shipped[clients, row["round"]] for row in mine if shipped.get((clients, row["round"]))]
        carried = [row if carries(row.get("answered", 100), 99) else {**row, "p99_ms": None} for row in mine]
        medians = {
            key: statistics.median(values) if (values := [row[key] for row in carried if row[key] is not None]) else None
            for key in ("requests_per_s", "p50_ms", "p99_ms")
        }
        found.append(
            {
                "variant": name,
                "clients": clients,
                **medians,
                "slowest_ms": max((row["slowest_ms"] for row in mine if row["slowest_ms"] is not None), default=None),
                "ratio": statistics.median(ratios) if ratios else None,
                "low": min(ratios, default=None),
                "high": max(ratios, default=None),
                "errors": sum(sum(row["errors"].values()) for row in mine),
            }
        )
    return found


def batching_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """What is shown at the end."""
    table = Table("variant", "clients", "requests/s", "of as shipped", "p50 ms", "p99 ms", "slowest ms", "errors")
    for row in summary(rows):
        table.add_row(*_cells(row))
    return table


def _cells(row: Mapping[str, Any]) -> list[str]:
    spread = "–" if row["ratio"] is None else f"{row['ratio']:.2f} ({row['low']:.2f} to {row['high']:.2f})"
    shown = ["–" if row[key] is None else f"{row[key]:.1f}" for key in ("requests_per_s", "p50_ms", "p99_ms", "slowest_ms")]
    return [row["variant"], str(row["clients"]), shown[0], spread, *shown[1:], str(row["errors"])]


def batching_page(content: Mapping[str, Any]) -> str:
    """docs/decisions/batching.md."""
    origin, settings = content["provenance"], content["settings"]
    lines = [
        "# Batching in Triton: queue delay, instances and threads",
        "",
        "Generated by `python -m benchmarks batching`; do not edit. What triton_models/*/configs/cpu.pbtxt says (*as shipped*)",
        "beside other settings of the same files, each a real server; all run at once and are asked in turn over gRPC, one text",
        f"a request, {settings['rounds']} rounds of {settings['seconds']:g} s a load. Medians over the rounds; the ratio is of",
        "the requests a second to as shipped in the same round, with the least and greatest. A setting is better where its whole",
        "range lies above 1.",
        "",
        f"Measured {origin['measured'][:10]} at {origin['commit'][:10]} on {origin['cpu']}, {origin['cores']} cores.",
        "",
        "| setting | clients | requests/s | of as shipped | p50 ms | p99 ms | slowest ms | errors |",
        "|---|---|---|---|---|---|---|---|",
    ]
    rows = summary(content["rows"])
    lines += [f"| {' | '.join(_cells(row))} |" for row in rows]
    better = [row for row in rows if row["variant"] != SHIPPED and row["low"] is not None and row["low"] > 1]
    named = ", ".join(f"{row['variant']} at {row['clients']} clients (×{row['ratio']:.2f})" for row in better)
    lines += ["", f"Better than as shipped beyond the spread of the rounds: {named or 'none'}."]
    return "\n".join(lines) + "\n"
