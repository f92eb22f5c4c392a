"""What servers and processes cost: under load, over catalogues of growing size, at the start, and at the edge."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks.bandwidth import written_against
from benchmarks.edge import EdgeRun, edge_rows
from benchmarks.percentiles import shown
from benchmarks.perf_analyzer import AGREEING, MEASURES
from benchmarks.ramp import counted
from benchmarks.report.drawing import COLOURS, MARKS, decades, drawing, look
from benchmarks.report.parts import NOTHING, Content, Grid, Plot, Section, engine_of, origin_of
from benchmarks.scale import NUMPY

Row = Mapping[str, Any]


def load(content: Content, title: str) -> Section:
    """Closed loop by number of clients, open loop by rate."""
    rows, origin = content["rows"], origin_of(content)
    closed, opened = [row for row in rows if row["loop"] == "closed"], counted(rows)
    plots = [*([_closed(closed, origin)] if closed else []), *([_open(content, opened, origin)] if opened else [])]
    cells = [
        [
            f"{row['server']}, {row['protocol']}",
            f"{row['clients']} clients" if row["loop"] == "closed" else _rate(row),
            f"{row['answers_per_s']:.1f}",
            *(shown(row["latency_ms"][f"p{percent}"], percent, row["answered"], ".1f") for percent in (50, 90, 99)),
            str(sum(row["errors"].values())),
            NOTHING if row["texts_per_execution"] is None else f"{row['texts_per_execution']:.1f}",
            shown(row["lag_ms"]["p99"], 99, row["answered"] + sum(row["errors"].values()), ".1f"),
        ]
        for row in rows
    ]
    heads = ("server", "load", "answers/s", "p50, ms", "p90, ms", "p99, ms", "errors", "texts a run", "generator's lag p99, ms")
    notes = (
        "One text a request. Closed loop: every client asks again when it is answered. Open loop: requests come when they come, "
        "and latency counts from when a request was due. A rate that breaks the objective is measured again; the second counts.",
    )
    return Section("load", title, origin, notes, plots, (Grid(f"Every load: {engine_of(content)}", heads, cells),))


def _rate(row: Row) -> str:
    return f"{row['rate']:g}/s{', again' if row.get('attempt', 1) > 1 else ''}"


def _closed(rows: Sequence[Row], origin: str) -> Plot:
    told = "Closed loop: answers a second, and median and 99th percentile of the latency, against the number of clients."
    with drawing("load-closed", told, origin, panels=2) as drawn:
        counts = sorted({row["clients"] for row in rows})
        for number, (name, mine) in enumerate(_by_server(rows)):
            clients = [row["clients"] for row in mine]
            drawn.axes[0].plot(clients, [row["answers_per_s"] for row in mine], label=name, **look(number))
            _percentiles(drawn.axes[1], clients, mine, number)
        for axis in drawn.axes:
            decades(axis, "x", counts, at=counts)
            axis.set_xlabel("clients")
        decades(drawn.axes[0], "y", [row["answers_per_s"] for row in rows])
        drawn.axes[0].set_ylabel("answers a second")
        decades(drawn.axes[1], "y", _latencies(rows))
        drawn.axes[1].set_ylabel("latency, ms: p50 (full line), p99 (dotted)")
    return drawn.plot


def _open(content: Content, rows: Sequence[Row], origin: str) -> Plot:
    objective_ms = content.get("settings", {}).get("objective_ms")
    told = (
        f"Open loop: median and 99th percentile of the latency against the rate of requests; the objective is {objective_ms} ms."
    )
    with drawing("load-open", told, origin) as drawn:
        (axis,) = drawn.axes
        for number, (name, mine) in enumerate(_by_server(rows)):
            _percentiles(axis, [row["rate"] for row in mine], mine, number, label=name)
        if objective_ms is not None:
            axis.axhline(
                objective_ms, color="#555555", linestyle="--", linewidth=1.0, label=f"objective for p99: {objective_ms:g} ms"
            )
        rates = sorted({row["rate"] for row in rows})
        decades(axis, "x", rates, at=rates)
        decades(axis, "y", [*_latencies(rows), *([objective_ms] if objective_ms else [])])
        axis.set_xlabel("requests a second, as a Poisson process")
        axis.set_ylabel("latency, ms: p50 (full line), p99 (dotted)")
    return drawn.plot


def _percentiles(axis: Any, over: Sequence[float], rows: Sequence[Row], number: int, *, label: str | None = None) -> None:  # noqa: ANN401  # matplotlib's Axes
    about = {"color": COLOURS[number % len(COLOURS)], "marker": MARKS[number % len(MARKS)]}
    for percentile, dash in (("p50", "-"), ("p99", ":")):
        values = [np.nan if row["latency_ms"][percentile] is None else row["latency_ms"][percentile] for row in rows]
        axis.plot(over, values, linestyle=dash, label=label if dash == "-" else None, **about)


def _latencies(rows: Sequence[Row]) -> list[float]:
    return [row["latency_ms"][name] for row in rows for name in ("p50", "p99") if row["latency_ms"][name] is not None]


def _by_server(rows: Sequence[Row]) -> list[tuple[str, list[Row]]]:
    names = list(dict.fromkeys((row["server"], row["protocol"]) for row in rows))
    return [(", ".join(name), [row for row in rows if (row["server"], row["protocol"]) == name]) for name in names]


def scale(content: Content, title: str) -> Section:
    """Latency, memory and time to build against the number of items."""
    rows, origin = content["rows"], origin_of(content)
    plots = [_scale_plot(rows, origin)] if rows else []
    cells = [
        [
            f"{row['items']:,}",
            row["way"],
            "{p50:.3f} ({p25:.3f}–{p75:.3f})".format(**row["latency_ms"]),
            shown(row["latency_ms"]["p99"], 99, len(row["samples_ms"]), ".3f"),
            f"{row['recall_at_10']:.3f}",
            f"{row['identical']} of {row['queries']}",
            f"{row['needs_bytes'] / 1e6:.0f}",
            f"{row['build_s']:.1f}",
            written_against(row) or NOTHING,
        ]
        for row in rows
    ]
    heads = (
        "items",
        "way",
        "p50, ms (quartiles)",
        "p99, ms",
        "recall@10",
        "identical top 10",
        "MB",
        "built in, s",
        "GB/s (of reading, of a triad)",
    )
    growths = {way: one for way, one in content.get("growth", {}).items() if one is not None}
    grown = "; ".join(f"{way} {one:.2f}" for way, one in growths.items())
    notes = ["From vector to ten items. Items beyond the number of real texts are made (docs/benchmarks.md)."]
    if grown:
        notes.append(f"Exponent of the median latency between the two largest catalogues (1 is linear): {grown}.")
    grid = Grid(f"One query: vectors of {engine_of(content)}", heads, cells, memory_note(rows))
    return Section("scale", title, origin, notes, plots, (grid,))


def memory_note(rows: Sequence[Row]) -> str:
    """What the column of megabytes holds, and what it does not."""
    charged = max((row for row in rows if row["way"] == NUMPY), key=lambda row: row["items"], default=None)
    if charged is None:
        return ""
    return (
        f"MB: {NUMPY} is charged with the fp32 vectors themselves ({charged['needs_bytes'] / 1e6:,.0f} MB for "
        f"{charged['items']:,} items). The int8 scan scores its few best again from a mapped file of the same vectors and "
        "size, which is not counted, since the kernel may drop it."
    )


def _scale_plot(rows: Sequence[Row], origin: str) -> Plot:
    told = "Latency of a query, memory and time to build against the number of items, for each way to search."
    panels = (("p50 of a query, ms", "latency"), ("memory, MB", "memory"), ("time to build, s (at least 0.001)", "build"))
    with drawing("scale", told, origin, panels=len(panels)) as drawn:
        ways, sizes = list(dict.fromkeys(row["way"] for row in rows)), sorted({row["items"] for row in rows})
        for axis, (label, kind) in zip(drawn.axes, panels, strict=True):
            every = []
            for number, way in enumerate(ways):
                mine = [row for row in rows if row["way"] == way]
                values = [_cost(row, kind) for row in mine]
                axis.plot([row["items"] for row in mine], values, label=way, **look(number))
                every += values
            decades(axis, "x", sizes, at=sizes)
            decades(axis, "y", every)
            axis.set_xlabel("items")
            axis.set_ylabel(label)
    return drawn.plot


def _cost(row: Row, kind: str) -> float:
    if kind == "latency":
        return float(row["latency_ms"]["p50"])
    return float(
        row["needs_bytes"] / 1e6 if kind == "memory" else max(row["build_s"], 1e-3)
    )  # below a millisecond: nothing is built


def generators(content: Content, title: str) -> Section:
    """NVIDIA's load generator beside ours."""
    heads = ("engine, clients", "", "ours", "perf_analyzer", "ratio (least–greatest round)", f"within {AGREEING:.0%}")
    rows = [
        [
            f"{one.get('engine') or engine_of(content)}, {one['clients']}",
            MEASURES[one["measure"]],
            f"{one['ours']:.1f}",
            f"{one['theirs']:.1f}",
            "{:.3f} ({:.3f}–{:.3f})".format(one["ratio"], *one["range"]),
            "yes" if one["agree"] else "no",
        ]
        for one in content.get("agreement", ())
    ]
    note = "The same closed loops of the same texts by perf_analyzer and by our own generator, in turns."
    grids = (Grid("Medians over the rounds", heads, rows),) if rows else ()
    return Section("perf-analyzer", title, origin_of(content), (note,), (), grids)


def startup(content: Content, title: str) -> Section:
    """Seconds to the first answer and memory, for each engine and way to serve."""
    rows, origin = content["rows"], origin_of(content)
    both = list(dict.fromkeys((row["way"], row["engine"]) for row in rows))
    cells, plots = [], []
    for way, engine in both:
        mine = [row for row in rows if (row["way"], row["engine"]) == (way, engine)]
        seconds = [row["seconds"] for row in mine]
        spread = f"{np.median(seconds):.2f} ({min(seconds):.2f}–{max(seconds):.2f})"
        memory = float(np.median([row["memory_bytes"] for row in mine])) / 1e6
        cells.append([f"{way}, {engine}", str(len(mine)), spread, f"{memory:.0f}", f"{mine[0]['engine_bytes'] / 1e6:.1f}"])
    if rows:
        told = "Seconds from the start of a process to its first answer, and its memory, for each way to serve and engine."
        with drawing("startup", told, origin, panels=2, height=0.9 + 0.32 * len(both)) as drawn:
            for axis, name, size in zip(drawn.axes, ("seconds", "memory_bytes"), (1.0, 1e6), strict=True):
                for place, (way, engine) in enumerate(reversed(both)):
                    values = [row[name] / size for row in rows if (row["way"], row["engine"]) == (way, engine)]
                    axis.barh(place, float(np.median(values)), color=COLOURS[0], height=0.6)
                    axis.plot([min(values), max(values)], [place, place], color="black", linewidth=1.5, marker="|")
                axis.grid(False, axis="y")
                axis.set_xlim(left=0)
            drawn.axes[0].set_yticks(range(len(both)), [f"{way}, {engine}" for way, engine in reversed(both)])
            drawn.axes[1].set_yticks([])
            drawn.axes[0].set_xlabel("start to first answer, s (median; line: range)")
            drawn.axes[1].set_xlabel("memory (PSS), MB (median; line: range)")
        plots.append(drawn.plot)
    grid = Grid("Starts", ("way and engine", "starts", "median, s (fastest–slowest)", "memory, MB", "engine on disk, MB"), cells)
    return Section("startup", title, origin, (), plots, (grid,))


def edge(content: Content, title: str) -> Section:
    """Opening, memory and latency over processes, beside what was to be reached."""
    runs = [EdgeRun(**run) for run in content["runs"]]
    rows = edge_rows(runs) if runs else []
    heads = ("", "median", "lowest–highest process", "accepted", "")
    note = f"Engine {runs[0].engine}; {len(runs)} processes of {len(runs[0].seconds)} wishes of twelve words." if runs else ""
    return Section("edge", title, origin_of(content), (note,), (), (Grid("A bundle in a process of its own", heads, rows),))
