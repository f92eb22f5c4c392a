"""docs/overheads.md, from what ``python -m benchmarks overhead`` measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.beside import TURN, Middle
from benchmarks.overhead import CLIENTS, GRPC, HERE, LOCAL, PROTOCOLS, Found, found
from bertrec.bundle import REFERENCE_ENGINE

MOST_MORE_MS = 3.0
"""What Triton may add to the median of one text."""
LEAST_PART = 0.80
"""Of the throughput that the engine in-process reaches at its best, what Triton must reach at 16 clients."""

METHOD = f"""\
{TURN} texts at a time are asked of each way, then of the next, each way being first as often as the others; the first of a
turn is not kept, since it finds the caches full of what another way read. p50 and p95 are taken within a round, the differences
too, and the figures are medians over rounds with a 95% interval of them (bootstrap). Under load the ways
take turns, window by window: Triton has {CLIENTS} clients that ask one text at a time; in-process {CLIENTS} texts at a time
are put to the engine in every way that seemed good, and Triton is held against the best of them. Every way ends with the same
Python objects. The client's policies (retries, deadlines, the breaker) would stand before either and are left out.

**The budget**: the client, tritonserver and its Python processes are held to the same cores (affinity, read back for every
process), and the encoder has a thread for each (read back from the running server; in-process, counted as the engines opened).
Triton's ranker has one thread, as it is configured; in-process it has the encoder's number. Triton's encoder threads spin
while they wait for the next operator ([what that is worth](decisions/batching.md)). In-process both is measured, threads that
sleep, as the edge is shipped, and threads that spin; Triton is held against the better in each round.
What Triton and the client need besides comes out of the same cores. CPU seconds are those of tritonserver's whole process
group and, apart from it, of the client; user and system."""


@dataclass(frozen=True)
class Goal:
    """One thing that was to be reached, and what was. at_most: whether less is better."""

    name: str
    wanted: float
    measured: Middle
    at_most: bool
    percent: bool = False

    @property
    def verdict(self) -> str:
        """``reached`` or ``missed by …``; and whether the interval leaves it open."""
        good = self._good(self.measured.value)
        verdict = "reached" if good else f"missed by {self._distance}"
        sure = self._good(self.measured.low) == self._good(self.measured.high)
        return verdict if sure else f"{verdict}; the interval holds the limit"

    @property
    def cells(self) -> tuple[str, str, str, str]:
        """The goal, its limit, what was measured with its interval, and the verdict."""
        figures = [self._figure(value) for value in (self.measured.value, self.measured.low, self.measured.high)]
        limit = f"{'≤' if self.at_most else '≥'} {self._figure(self.wanted)}"
        return self.name, limit, f"{figures[0]} ({figures[1]}…{figures[2]})", self.verdict

    @property
    def _distance(self) -> str:
        apart = abs(self.measured.value - self.wanted)
        return f"{100 * apart:.1f} percentage points" if self.percent else self._figure(apart)

    def _good(self, value: float) -> bool:
        return value <= self.wanted if self.at_most else value >= self.wanted

    def _figure(self, value: float) -> str:
        return f"{value:.1%}" if self.percent else f"{value:.2f} ms"


def goals(figures: Found) -> list[Goal]:
    """What was to be reached, for an engine, by each protocol."""
    return [
        *(
            Goal(f"{way}: p50 of one text over that in-process", MOST_MORE_MS, figures.latency[way].more_p50_ms, True)
            for way in PROTOCOLS
        ),
        *(
            Goal(
                f"{way}: texts a second at {CLIENTS} clients, of the best in-process",
                LEAST_PART,
                figures.load[way].part,
                False,
                True,
            )
            for way in PROTOCOLS
        ),
    ]


def overhead_page(content: Mapping[str, Any]) -> str:
    """The page, in Markdown. content: what the JSON holds."""
    engines = found(content["rows"])
    parts = [
        "# What Triton adds",
        "A real tritonserver on the loopback interface beside the same engine in the client's process, on the same cores. "
        "Written by `python -m benchmarks overhead`; every sample is in its JSON.",
        *_against_goals(engines),
        *(_about(engine, figures, content) for engine, figures in engines.items()),
        "## How it was measured",
        METHOD,
        _origin(content),
    ]
    return "\n\n".join(parts) + "\n"


def _against_goals(engines: Mapping[str, Found]) -> list[str]:
    title = f"## What was to be reached, with {REFERENCE_ENGINE}"
    if REFERENCE_ENGINE not in engines:
        return [
            title,
            f"Not measured: the goals are for {REFERENCE_ENGINE}, and this run asked {', '.join(engines) or 'nothing'}.",
        ]
    wanted = goals(engines[REFERENCE_ENGINE])
    reached = sum(goal.verdict.startswith("reached") for goal in wanted)
    return [
        title,
        table(("", "wanted", "measured (95%)", ""), [goal.cells for goal in wanted]),
        f"{reached} of {len(wanted)} reached.",
    ]


def _about(engine: str, figures: Found, content: Mapping[str, Any]) -> str:
    roles = {"the reference": engine == REFERENCE_ENGINE, "the bundle's fastest engine": engine == content["fastest"]}
    of = " and ".join(role for role, has in roles.items() if has) or "an engine of the bundle"
    lone = figures.latency
    requests = lone[HERE].requests
    return "\n\n".join(
        [
            f"## {engine}: {of}",
            f"One text at a time, {requests:,} requests of each way:",
            table(
                ("", "p50 ms", "p95 ms", "p50 more, ms (95%)", "p95 more, ms (95%)"),
                [
                    (
                        way,
                        f"{one.p50_ms.value:.2f}",
                        one.p95_cells[0],
                        *(("–", "–") if way in LOCAL else (one.more_p50_ms.written(), one.p95_cells[1])),
                    )
                    for way, one in lone.items()
                ],
            ),
            f"{CLIENTS} texts at a time:",
            table(
                ("", "texts/s", "of the best in-process (95%)", "CPU s for 1,000: client", "server", "cores busy"),
                [
                    (
                        way,
                        f"{load.rate.value:.1f}",
                        "the best" if way == figures.best else load.part.written(),
                        f"{load.client_cpu_s.value:.2f}",
                        f"{load.server_cpu_s.value:.2f}" if way in PROTOCOLS else "–",
                        f"{load.cores_used.value:.2f}",
                    )
                    for way, load in figures.load.items()
                ],
            ),
            _said(figures),
        ]
    )


def _said(figures: Found) -> str:
    """In a sentence, over gRPC."""
    lone, load, best = figures.latency[GRPC], figures.load[GRPC], figures.load[figures.best]
    local_ms = min(figures.latency[way].p50_ms.value for way in LOCAL if way in figures.latency)
    cpu_s = load.client_cpu_s.value + load.server_cpu_s.value
    return (
        f"Over gRPC Triton adds {lone.more_p50_ms.value:.2f} ms to the median of one text "
        f"({local_ms:.2f} ms in-process), and gives {load.part.value:.1%} of the best throughput "
        f"in-process, for {cpu_s:.2f} CPU seconds a thousand texts instead of {best.client_cpu_s.value:.2f}."
    )


def _origin(content: Mapping[str, Any]) -> str:
    return origin_line(content, f"{len(content['budgets'])} engines in turn" if len(content["budgets"]) > 1 else "one engine")


def origin_line(content: Mapping[str, Any], what: str) -> str:
    """Machine, versions, settings and budget, for the foot of a page."""
    origin, settings = content["provenance"], content["settings"]
    budgets: Sequence[Mapping[str, Any]] = list(content["budgets"].values())
    held = f"{len(budgets[0]['cores'])} cores, {budgets[0]['encoder_threads']} threads an encoder" if budgets else "no budget"
    versions = origin["versions"]
    cpu = f"{origin['cpu']}, {origin['cores']} cores ({' '.join(origin['cpu_flags'])})"
    return (
        f"{cpu}; {held}; {what}, {settings['rounds']} rounds with windows of {settings['seconds']:g} s; tritonserver of "
        f"nvidia-pytriton {versions.get('nvidia-pytriton', 'unknown')} with the stand-in for its onnxruntime backend "
        f"(docs/decisions/pip-triton.md), onnxruntime {versions.get('onnxruntime')}, Python {origin['python']}; bundle "
        f"{content['bundle']}; {origin['measured'][:10]}, commit {origin['commit'][:12]}, "
        f"`{origin['command']}`."
    )


def table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of Markdown; all columns but the first lean right."""
    lines = [titles, ["---", *["---:"] * (len(titles) - 1)], *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
