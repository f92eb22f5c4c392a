"""What other libraries cost, what Triton adds, what capacity is planned, what breaks, and how good the rankings are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks.batching import summary
from benchmarks.faults.outcome import lateness
from benchmarks.peers.page import target_rows
from benchmarks.percentiles import cells_ms, shown
from benchmarks.report.drawing import COLOURS, drawing
from benchmarks.report.engines import pareto_plot
from benchmarks.report.parts import NOTHING, Content, Grid, Plot, Section, origin_of
from export.chart import Panel, Point

END_TO_END, ENCODER_ONLY = "total", "encode"
OURS = " *"
"""Behind the names of bertrec's engines."""
CHECKED = ("requests/s", "requests", "p50 measured, ms", "predicted", "p99 measured, ms", "predicted")
PLANNED = ("requests/s", "instances", "with a spare", "cores", "used", "p99, ms", "instance-hours a million", "cost a million")
RANKED = ("recall_at_1", "recall_at_10", "recall_at_50", "ndcg_at_10", "coverage_at_10")


_MARKS = "Ours are marked *, a student of the run † (other weights than its encoder's). docs/peers.md has the method."


def peers(content: Content, title: str) -> Section:
    """Other libraries with the same run: speed and quality, what was to be reached, and what could not be measured."""
    speeds, quality, told = (content.get(name, {}) for name in ("speeds", "quality", "peers"))
    origin = origin_of(content)
    points = [
        Point(name, speeds[name]["wish"][END_TO_END]["p50_ms"], quality[name]["ndcg_at_10"], True)
        for name in speeds
        if name in quality and END_TO_END in speeds[name].get("wish", {})
    ]
    panel = Panel("median latency of one wish, ms: text to ten items", points)
    plots = [pareto_plot("peers", panel, "One run in every library", origin)] if points else []
    grids = [_same_network(content)] if content.get("same_network") else []
    if reached := target_rows(content):
        grids.append(Grid("What was to be reached", ("", "wanted", "measured (95%)", "bertrec", "best peer", ""), reached))
    for way, name in ((END_TO_END, "Text to ten items"), (ENCODER_ONLY, "Encoder only")):
        if rows := speed_rows(content, way):
            heads = ("", "texts/s offline (slowest–fastest round)", "wish p50, ms", "review p50, ms", "NDCG@10", "of fp32's")
            grids.append(Grid(name, heads, rows))
    failed = [[name, one["failed"]["stage"], one["failed"]["reason"]] for name, one in told.items() if "failed" in one]
    if failed:
        grids.append(Grid("What could not be measured", ("", "stage", "reason"), failed))
    return Section("peers", title, origin, (_MARKS,), plots, grids)


def speed_rows(content: Content, way: str) -> list[list[str]]:
    """Library, the fastest first, ours marked: texts a second, p50 of a wish and of a review, NDCG@10, and its share of fp32's.

    The fused pipelines rank by other signals too, so no share is theirs.
    """
    speeds, quality, told = (content.get(name, {}) for name in ("speeds", "quality", "peers"))
    there = [name for name in speeds if way in speeds[name].get("offline", {})]
    rows = []
    for name in sorted(there, key=lambda name: -float(speeds[name]["offline"][way]["texts_per_s"][0])):
        single = [speeds[name].get(workload, {}).get(way) for workload in ("wish", "review")]
        good = quality.get(name)
        rows.append(
            [
                name + (" †" if told.get(name, {}).get("student") else "") + (OURS if told.get(name, {}).get("ours") else ""),
                "{:,.0f} ({:,.0f}–{:,.0f})".format(*speeds[name]["offline"][way]["texts_per_s"]),
                *(NOTHING if one is None else f"{one['p50_ms']:.2f}" for one in single),
                NOTHING if good is None else f"{good['ndcg_at_10']:.4f}",
                NOTHING if good is None or told.get(name, {}).get("fused") else f"{good['kept']:.1%}",
            ]
        )
    return rows


def _same_network(content: Content) -> Grid:
    rows = [
        [
            one["network"] or "the run's encoder",
            one["figure"],
            _ratio(one),
            str(one["ours"] or NOTHING),
            str(one["peer"] or NOTHING),
            one["standing"],
        ]
        for one in content["same_network"]
    ]
    heads = ("network", "", "measured (95%)", "bertrec", "best peer", "bertrec is")
    return Grid("The same weights on both sides", heads, rows)


def _ratio(one: Content) -> str:
    return NOTHING if one["ratio"] is None else "{:.2f}× ({:.2f}–{:.2f})".format(one["ratio"], *one["interval"])


def beside(content: Content, title: str, *, name: str, note: str) -> Section:
    """Ways to get the same answers, beside each other (overhead, bls): latency in turns, then 16 texts at a time."""
    rows, origin = content["rows"], origin_of(content)
    latencies: dict[tuple[str, str], list[float]] = {}
    loads: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for row in rows:
        if row["kind"] == "latency":
            for way, seconds in row["seconds"].items():
                latencies.setdefault((row["engine"], way), []).extend(seconds)
        else:
            loads.setdefault((row["engine"], row["way"]), []).append(row)
    single = [
        [f"{engine}, {way}", f"{len(seconds):,}", *cells_ms(seconds, (50, 95, 99))]
        for (engine, way), seconds in latencies.items()
    ]
    loaded = []
    for (engine, way), windows in loads.items():
        rates = [one["answered"] / one["seconds"] for one in windows]
        cpu = [1e3 * (one["client_cpu_s"] + one["server_cpu_s"]) / max(one["answered"], 1) for one in windows]
        spread = f"{np.median(rates):.1f} ({min(rates):.1f}–{max(rates):.1f})"
        loaded.append([f"{engine}, {way}", str(len(windows)), spread, f"{np.median(cpu):.2f}"])
    grids = [
        Grid("One text at a time", ("engine, way", "requests", "p50, ms", "p95, ms", "p99, ms"), single),
        Grid("16 at a time", ("engine, way", "windows", "texts/s (slowest–fastest)", "CPU, s for 1,000 answers"), loaded),
    ]
    plots = [_bars(name, title, latencies, origin)] if latencies else []
    return Section(name, title, origin, (note,), plots, [grid for grid in grids if grid.rows])


def _bars(name: str, title: str, latencies: Mapping[tuple[str, str], Sequence[float]], origin: str) -> Plot:
    told = f"{title}: median latency of one text, with the 5th to 95th percentile, for each engine and way."
    with drawing(name, told, origin, height=0.9 + 0.32 * len(latencies)) as drawn:
        (axis,) = drawn.axes
        for place, seconds in enumerate(reversed(list(latencies.values()))):
            low, middle, high = 1e3 * np.percentile(seconds, [5, 50, 95])
            axis.barh(place, middle, color=COLOURS[0], height=0.6)
            axis.plot([low, high], [place, place], color="black", linewidth=1.5, marker="|")
        axis.set_yticks(range(len(latencies)), [f"{engine}, {way}" for engine, way in reversed(list(latencies))])
        axis.grid(False, axis="y")
        axis.set_xlim(left=0)
        axis.set_xlabel("latency of one text, ms (median; line: 5th to 95th percentile)")
    return drawn.plot


def batching(content: Content, title: str) -> Section:
    """Triton's settings beside those as shipped."""
    rows = []
    for row in summary(content["rows"]):
        ratio = NOTHING if row["ratio"] is None else f"{row['ratio']:.2f} ({row['low']:.2f}–{row['high']:.2f})"
        rate, p50, p99 = (NOTHING if row[key] is None else f"{row[key]:.1f}" for key in ("requests_per_s", "p50_ms", "p99_ms"))
        rows.append([row["variant"], str(row["clients"]), rate, ratio, p50, p99, str(row["errors"])])
    heads = ("setting", "clients", "requests/s", "of as shipped (least–greatest round)", "p50, ms", "p99, ms", "errors")
    notes = ("docs/decisions/batching.md has the method.",)
    return Section("batching", title, origin_of(content), notes, (), (Grid("Medians over the rounds", heads, rows),))


def plan(content: Content, title: str) -> Section:
    """Instances for each rate, and how the model met the measured loads."""
    grids, objective_ms = [], content["settings"]["objective_ms"]
    for row in content["rows"]:
        route = f"{row['server']}, {row['protocol']}"
        checked = [
            [
                f"{load['rate']:g}",
                f"{load['requests']:,}",
                *(
                    cell
                    for percent in (50, 99)
                    for cell in (
                        shown(load["measured"][f"p{percent}"], percent, load["requests"], ".1f"),
                        f"{load['predicted'][f'p{percent}']:.1f}",
                    )
                ),
            ]
            for load in row["check"]["loads"]
        ]
        grids.append(Grid(f"{route}: the model against the load test", CHECKED, checked))
        planned = [
            [
                f"{line['rate']:,.0f}",
                f"{line['instances']:,}",
                f"{line['spared']:,}",
                f"{line['cores']:,}",
                f"{line['used']:.0%}",
                f"{line['p99_ms'][0]:.1f}",
                f"{line['instance_hours_per_million']:.3g}",
                NOTHING if line["cost"] is None else f"{line['cost']:.3g}",
            ]
            for line in row["plan"]
        ]
        told = f"{route}: on paper, for {objective_ms:g} ms, predictions times {row['check']['allowance']:.2f}"
        grids.append(Grid(told, PLANNED, planned))
    notes = (
        f"Instances that keep the 99th percentile under the objective of {objective_ms:g} ms: predicted, not measured, beyond "
        "the load test's rates.",
        "Predicted percentiles of a plan are multiplied by its allowance, which comes from the same open loops that the model is "
        "checked against: no load that it has not seen confirms a plan.",
    )
    return Section("plan", title, origin_of(content), notes, (), [grid for grid in grids if grid.rows])


def faults(content: Content, title: str) -> Section:
    """Every scenario's calls."""
    rows = [
        [
            one["what"],
            f"{one['calls']:,}",
            str(one["wrong"]),
            str(one["lost"]),
            str(one["by_edge"]),
            lateness(one["late_ms"]),
            one["skipped"] or "; ".join(one["complaints"]) or "as it should be",
        ]
        for one in content["scenarios"]
    ]
    heads = ("what breaks", "calls", "wrong", "lost", "by the fallback", "p99.9 beyond the deadline", "")
    return Section("faults", title, origin_of(content), (), (), (Grid("Real servers, broken under load", heads, rows),))


def quality(content: Content, title: str) -> Section:
    """Every ranker on every data set."""
    grids = []
    for data, rankers in content.items():
        if data in ("details", "transfer") or not isinstance(rankers, dict):
            continue
        names = [name for name in RANKED if any(name in one for one in rankers.values())]
        rows = [[ranker, *(_interval(one.get(name)) for name in names)] for ranker, one in rankers.items()]
        grids.append(Grid(data, ("ranker", *(name.replace("_at_", "@") for name in names)), rows))
    notes = ("On test data that no training saw, with 95% intervals; docs/quality.md has the rest.",)
    return Section("quality", title, origin_of(content), notes, (), grids)


def _interval(found: Mapping[str, Any] | None) -> str:
    if found is None or found["value"] is None:
        return NOTHING
    return f"{found['value']:.3f}" + ("" if found["low"] is None else f" ({found['low']:.3f}…{found['high']:.3f})")


def labels(content: Content, title: str) -> Section:
    """What fewer labels cost, and what makes up for them."""
    rows = [
        [
            f"{row['share']:.0%}, {row['method']}, {row['ranker']}",
            f"{row['texts']:,}",
            _interval(row["ndcg_at_10"]),
            f"{row['recall_at_10']['value']:.3f}",
            f"{row['minutes']:.1f}",
        ]
        for row in content["rows"]
    ]
    heads = ("labels, method, ranker", "texts", "NDCG@10 (95%)", "recall@10", "minutes")
    return Section("labels", title, origin_of(content), (), (), (Grid(f"A fit for each, {content['source']}", heads, rows),))


def tools(content: Content, title: str) -> Section:
    """Every tool's gain and cost, a table for each row without a tool that they were held against."""
    heads = ("tool", "NDCG@10, fused", "to none (95%)", "CPU minutes", "parameters trained", "peak, MB")
    grids = [
        Grid(
            f"A fit for each, held against that of {base[:10]}",
            heads,
            [_tool(row) for row in content["rows"] if row["base"] == base],
        )
        for base in dict.fromkeys(row["base"] for row in content["rows"])
    ]
    return Section("tools", title, origin_of(content), (), (), grids)


def _tool(row: Content) -> list[str]:
    fused = row["asked"]["fused"]["as-written"]
    return [
        row["tool"],
        f"{fused['first']:.4f}",
        "{value:+.4f} ({low:+.4f}…{high:+.4f})".format(**fused["difference"]),
        f"{row['cpu_minutes']:.1f}",
        f"{row['cost']['trained_parameters']:,}",
        f"{row['cost']['peak_memory_mb']:,.0f}",
    ]
