"""What the engines cost in this process: latency with quality beside it, its distribution, throughput, and the bound."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks.latency import Samples, ratios
from benchmarks.percentiles import cells_ms
from benchmarks.ranker import MOST_RATIO
from benchmarks.report.drawing import COLOURS, DASHES, MARKS, decades, drawing, own_ids
from benchmarks.report.parts import NOTHING, Content, Grid, Plot, Section, origin_of
from benchmarks.throughput import summary
from bertrec.bundle import REFERENCE_ENGINE
from export.chart import Panel, Point, draw
from export.verdict import IS_REFERENCE, PASSED

HATCHES = ("", "//", "..", "xx", "--")
QUALITY = "ndcg_at_10"
ACCEPTED = (IS_REFERENCE, PASSED)
NOTE_CHARACTERS = 185
ONE_TEXT = ("real lengths", "review", "reviews")
"""Workloads of real texts, the one to show first."""


def latency(content: Content, title: str) -> Section:
    """Samples of every engine, workload and batch size."""
    samples = [Samples(row["engine"], row["workload"], row["batch"], row["rounds_s"]) for row in content["samples"]]
    origin = origin_of(content)
    plots = [*_pareto(content, samples, origin), *_distributions(samples, origin), *_stages(content, origin)]
    note = "From text to ten items, tokenisation and all signals included. NDCG@10 is that of the export, on held-out texts."
    return Section("latency", title, origin, (note,), plots, (_latency_grid(content, samples),))


def _pareto(content: Content, samples: Sequence[Samples], origin: str) -> list[Plot]:
    workload = next((name for name in ONE_TEXT if any(row.workload == name and row.batch == 1 for row in samples)), None)
    qualities = {name: one for name, one in content["engines"].items() if QUALITY in one}
    reference = qualities.get(REFERENCE_ENGINE, {}).get(QUALITY)
    points = [
        point_of(row.engine, row.percentile_ms(50), qualities[row.engine], reference)
        for row in samples
        if (row.workload, row.batch) == (workload, 1) and row.engine in qualities
    ]
    if not points:
        return []
    panel = Panel(f"median latency of one text ({workload}), ms: text to ten items", points, reference)
    return [pareto_plot("pareto", panel, "Quality against latency, end to end", origin)]


def point_of(name: str, cost: float, quality: Mapping[str, float], reference: float | None, *, passed: bool = True) -> Point:
    """An engine with the 95% interval of its difference to the reference, where that was measured."""
    ends = [quality.get(f"ndcg_difference_{end}") for end in ("low", "high")]
    low, high = (None if reference is None or end is None else reference + end for end in ends)
    return Point(name, cost, quality[QUALITY], passed, low, high)


def pareto_plot(name: str, panel: Panel, title: str, origin: str) -> Plot:
    """Quality against one cost, drawn as the export draws it."""
    svg = draw([panel], title=title, quality="NDCG@10", note="\n".join(textwrap.wrap(origin, NOTE_CHARACTERS)))["svg"].decode()
    return Plot(name, f"{title}: NDCG@10 of each engine, and the Pareto front", own_ids(svg, name))


def _distributions(samples: Sequence[Samples], origin: str) -> list[Plot]:
    """The share of requests that was answered within a time, a panel for each workload of single texts."""
    names = list(dict.fromkeys(row.workload for row in samples if row.batch == 1))
    engines = list(dict.fromkeys(row.engine for row in samples))
    if not names:
        return []
    told = "Share of single-text requests answered within a time, for each engine and length of text."
    with drawing("latency-cdf", told, origin, panels=len(names)) as drawn:
        for axis, name in zip(drawn.axes, names, strict=True):
            every = []
            for row in (row for row in samples if (row.workload, row.batch) == (name, 1)):
                number = engines.index(row.engine)
                values = np.sort([1e3 * one for turn in row.rounds_s for one in turn])
                shares = 100.0 * np.arange(1, len(values) + 1) / len(values)
                dash = DASHES[number % len(DASHES)]
                axis.step(values, shares, where="post", label=row.engine, color=COLOURS[number % len(COLOURS)], linestyle=dash)
                every += [float(values[0]), float(values[-1])]
            decades(axis, "x", every)
            axis.set_title(name, fontsize=9)
            axis.set_xlabel("latency, ms")
            axis.set_ylim(0, 101)
        drawn.axes[0].set_ylabel("requests answered within it, %")
    return [drawn.plot]


def _stages(content: Content, origin: str) -> list[Plot]:
    """Where the median of one text goes, a bar for each engine."""
    stages = content.get("stages", {})
    if not stages:
        return []
    told = "Median milliseconds of each stage of one text, for each engine."
    with drawing("stages", told, origin, height=0.9 + 0.35 * len(stages)) as drawn:
        (axis,) = drawn.axes
        for place, found in enumerate(reversed(stages.values())):
            left = 0.0
            for number, (stage, seconds) in enumerate(found.items()):
                middle = 1e3 * float(np.median(seconds))
                axis.barh(
                    place,
                    middle,
                    left=left,
                    height=0.6,
                    color=COLOURS[number % len(COLOURS)],
                    hatch=HATCHES[number % len(HATCHES)],
                    edgecolor="white",
                    label=stage,
                )
                left += middle
            axis.annotate(f"{left:.2f}", (left, place), xytext=(6, 0), textcoords="offset points", va="center", fontsize=8)
        axis.set_yticks(range(len(stages)), list(reversed(stages)))
        axis.grid(False, axis="y")
        axis.margins(x=0.1)
        axis.set_xlim(left=0)
        axis.set_xlabel("one text, ms: medians of the stages")
    return [drawn.plot]


def _latency_grid(content: Content, samples: Sequence[Samples]) -> Grid:
    times = {(row["engine"], row["workload"], row["batch"]): row for row in ratios(samples)}
    rows = []
    for row in samples:
        slowest, median, fastest = row.texts_per_second
        ratio = times.get((row.engine, row.workload, row.batch))
        quality = content["engines"].get(row.engine, {}).get(QUALITY)
        rows.append(
            [
                row.engine,
                NOTHING if quality is None else f"{quality:.4f}",
                f"{row.batch} × {row.workload}",
                f"{len(row.seconds):,}",
                *cells_ms(row.seconds, (50, 95, 99)),
                f"{median:.0f} ({slowest:.0f}–{fastest:.0f})",
                NOTHING if ratio is None else "{:.2f} ({:.2f}–{:.2f})".format(ratio["ratio"], *ratio["interval"]),
            ]
        )
    heads = ("engine", "NDCG@10", "asked", "requests", "p50, ms", "p95, ms", "p99, ms")
    return Grid("Latency of a request", (*heads, "texts/s (slowest–fastest round)", "times fp32 (95%)"), rows)


def ranker(content: Content, title: str) -> Section:
    """All signals beside the text alone, in the ranker."""
    rows = [
        [
            str(row["batch"]),
            f"{len(row['text']):,}",
            *(f"{1e3 * float(np.median(row[name])):.3f}" for name in ("text", "all_signals")),
            "{1:.2f} ({0:.2f}–{2:.2f})".format(*row["ratio_quartiles"]),
        ]
        for row in content["samples"]
    ]
    heads = ("texts together", "pairs", "text alone, ms", "all signals, ms", "ratio (quartiles)")
    grid = Grid(f"Ranking {content['settings']['items']:,} items", heads, rows)
    note = f"All signals may cost {MOST_RATIO:g} times the text alone."
    return Section("ranker", title, origin_of(content), (note,), (), (grid,))


def throughput(content: Content, title: str) -> Section:
    """Texts a second of every engine."""
    found, origin = summary(content["rows"]), origin_of(content)
    names = sorted(found, key=lambda name: rates_of(found[name])[1])
    plots = [_throughput_plot(found, names, origin)] if names else []
    rows = [
        [
            name,
            str(sum(row["engine"] == name for row in content["rows"])),
            "{1:,.1f} ({0:,.1f}–{2:,.1f})".format(*rates_of(found[name])),
            _times(found[name]),
        ]
        for name in found
    ]
    note = "From text to interest vector, tokenisation included, in batches of 32 texts of similar length."
    grid = Grid("Texts a second", ("engine", "windows", "texts/s (slowest–fastest)", "times fp32 (95%)"), rows)
    return Section("throughput", title, origin, (note,), plots, (grid,))


def _throughput_plot(found: Mapping[str, Mapping[str, Any]], names: Sequence[str], origin: str) -> Plot:
    told = "Texts that each engine reads a second, offline"
    with drawing("throughput", told, origin, height=0.8 + 0.35 * len(names)) as drawn:
        (axis,) = drawn.axes
        for place, name in enumerate(names):
            low, median, high = rates_of(found[name])
            axis.barh(place, median, color=COLOURS[0], height=0.6)
            axis.plot([low, high], [place, place], color="black", linewidth=1.5, marker="|")
            axis.annotate(f"{median:,.0f}", (high, place), xytext=(6, 0), textcoords="offset points", va="center", fontsize=8)
        axis.set_yticks(range(len(names)), names)
        axis.grid(False, axis="y")
        axis.margins(x=0.1)
        axis.set_xlim(left=0)
        axis.set_xlabel("texts a second, median over windows (line: slowest to fastest window)")
    return drawn.plot


def rates_of(found: Mapping[str, Any]) -> list[float]:
    """Texts a second of the slowest, the median and the fastest window."""
    rates: list[float] = found["texts_per_s"]
    return rates


def _times(found: Mapping[str, Any]) -> str:
    return NOTHING if found["ratio"] is None else "{:.2f} ({:.2f}–{:.2f})".format(found["ratio"], *found["ratio_interval"])


def roofline(content: Content, title: str) -> Section:
    """Operations a second against operations for each byte of weights, below the machine's measured ceilings."""
    rows, origin = content["rows"], origin_of(content)
    peaks, bandwidth = content.get("peak_gflops", {}), content.get("bandwidth", {}).get("best")
    shown = [row for row in rows if row["flops"] and row["weight_bytes"]]
    plots = [_roofline_plot(shown, peaks, bandwidth, origin)] if shown and peaks and bandwidth else []
    heads = ("engine", "batch × tokens", "GFLOP", "weights, MB", "p50, ms", "GFLOP/s", "bound", "of its bound")
    cells = [
        [
            row["engine"],
            f"{row['batch']} × {row['tokens']}",
            f"{row['flops'] / 1e9:.2f}",
            f"{row['weight_bytes'] / 1e6:.1f}",
            f"{1e3 * float(np.median(row['seconds'])):.2f}",
            f"{row['gflops']:.1f}",
            row["bound"],
            f"{row['of_bound']:.0%}",
        ]
        for row in rows
    ]
    ceilings = "; ".join([*(f"{kind} {peak:.0f} GFLOP/s" for kind, peak in peaks.items()), f"memory {bandwidth or 0:.1f} GB/s"])
    note = f"Measured in the same run: {ceilings}. Norms, embeddings and activation functions are not counted as work."
    return Section("roofline", title, origin, (note,), plots, (Grid("Engines at their bound", heads, cells),))


def _roofline_plot(rows: Sequence[Mapping[str, Any]], peaks: Mapping[str, float], bandwidth: float, origin: str) -> Plot:
    told = "Roofline: operations a second of each engine below the measured peaks and the memory's bandwidth."
    with drawing("roofline", told, origin, height=3.8) as drawn:
        (axis,) = drawn.axes
        intensities = [row["flops"] / row["weight_bytes"] for row in rows]
        knees = [peak / bandwidth for peak in peaks.values()]
        ends = np.array([min(*intensities, *knees) / 4, max(*intensities, *knees) * 4])
        for number, (kind, peak) in enumerate(peaks.items()):
            line = np.geomspace(ends[0], ends[1], 200)
            label = f"{kind} peak {peak:,.0f} GFLOP/s, memory {bandwidth:.1f} GB/s"
            dash = DASHES[number % len(DASHES)]
            axis.plot(line, np.minimum(peak, line * bandwidth), color="#555555", linestyle=dash, label=label)
        for number, (row, intensity) in enumerate(zip(rows, intensities, strict=True)):
            axis.plot(
                intensity,
                row["gflops"],
                color=COLOURS[number % len(COLOURS)],
                marker=MARKS[number % len(MARKS)],
                linestyle="",
                markersize=8,
                label=f"{row['engine']} ({row['of_bound']:.0%} of {row['bound']})",
            )
        decades(axis, "x", ends.tolist())
        decades(axis, "y", [min(ends[0] * bandwidth, *(row["gflops"] for row in rows)), *peaks.values()])
        axis.set_xlabel("operations for each byte of weights, FLOP/B")
        axis.set_ylabel("GFLOP/s")
    return drawn.plot


def engines(content: Content, title: str) -> Section:
    """Every engine that the export built for each target: quality against the latency of one text, in the encoder alone."""
    origin, plots, grids = origin_of(content), [], []
    for target, build in content["builds"].items():
        found = [one for one in build.get("engines", []) if one["model"] == "encoder" and QUALITY in one["quality"]]
        timed = [one for one in found if "single_ms_median" in one["latency"]]
        if not timed:
            continue
        reference = next((one["quality"][QUALITY] for one in timed if one["verdict"] == IS_REFERENCE), None)
        points = [
            point_of(
                one["name"], one["latency"]["single_ms_median"], one["quality"], reference, passed=one["verdict"] in ACCEPTED
            )
            for one in timed
        ]
        panel = Panel("median latency of one text in the encoder, ms", points, reference)
        name = "engines-" + "".join(one if one.isalnum() else "-" for one in target)
        plots.append(pareto_plot(name, panel, f"Engines built for {target}", origin))
        heads = ("engine", "verdict", "MB", "NDCG@10", "one text, ms", "texts/s", "times fp32")
        rows = [
            [
                one["name"],
                one["verdict"],
                f"{one['size_bytes'] / 1e6:.1f}",
                f"{one['quality'][QUALITY]:.4f}",
                f"{one['latency']['single_ms_median']:.2f}",
                f"{one['latency']['texts_per_s_median']:,.0f}",
                f"{one['latency']['latency_ratio']:.2f}",
            ]
            for one in timed
        ]
        grids.append(Grid(f"Built for {target}", heads, rows))
    return Section(
        "engines", title, origin, ("The encoder alone; what was rejected lost more quality than accepted.",), plots, grids
    )
