"""The README's figures, from the results: a block between two comments is what the JSON files say, and nothing typed.

``<!-- figures: NAME -->`` … ``<!-- end -->``, where NAME is one of ``BLOCKS``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import partial

import numpy as np

from benchmarks.edge import EdgeRun
from benchmarks.latency import Samples
from benchmarks.percentiles import cells_ms, shown
from benchmarks.ramp import kept_rates, told
from benchmarks.report.engines import rates_of
from benchmarks.report.others import END_TO_END, OURS, speed_rows
from benchmarks.report.pages import markdown_table
from benchmarks.report.parts import EXPECTED, Content, engine_of, is_whole, origin_of
from benchmarks.report.servers import memory_note
from benchmarks.report.summary import measured_by, what_was_reached
from benchmarks.throughput import summary
from bertrec.errors import InvalidInput

BLOCK = re.compile(r"(<!-- figures: ([^\n]*?) -->\n)(.*?)(<!-- end -->)", re.DOTALL)
SHOWN_CLIENTS = (1, 8, 64)
SHOWN_OTHERS = 5


def quoted(page: str, results: Mapping[str, Content]) -> str:
    """The page with every block as the results have it. Raises InvalidInput for a block of another name, or without an end."""
    if page.count("<!-- figures:") != len(BLOCK.findall(page)):
        raise InvalidInput("a block of figures has no end; accepted is <!-- figures: NAME --> and, lines later, <!-- end -->")
    return BLOCK.sub(lambda found: f"{found[1]}\n{block(found[2].strip(), results)}\n\n{found[4]}", page)


def block(name: str, results: Mapping[str, Content]) -> str:
    """What one block says; a plain sentence where it was not measured, or not to the end."""
    if name not in BLOCKS:
        raise InvalidInput(f"the page has a block of figures {name!r}; accepted are {', '.join(BLOCKS)}")
    return BLOCKS[name](results)


def _of_file(name: str, reader: Callable[[Content], str], results: Mapping[str, Content]) -> str:
    content = results.get(name)
    if content is None or not is_whole(content):
        command = next(one.command for one in EXPECTED if one.name == name)
        return f"Not measured yet: `python -m {command} --output benchmarks/results/{name}.json`."
    return f"{reader(content)}\n\n({origin_of(content)})"


def _targets(results: Mapping[str, Content]) -> str:
    reached = what_was_reached(results)
    table = markdown_table(reached.heads, reached.rows)
    return f"{reached.title}.\n\n{table}\n\n{reached.note}\n\n({measured_by(results)})"


def _peers(content: Content) -> str:
    rows, others = [], 0
    for name, rate, wish, _, _, kept in speed_rows(content, END_TO_END):
        ours = name.endswith(OURS)
        others += not ours
        if ours or others <= SHOWN_OTHERS:
            rows.append([name, rate, wish, kept])
    heads = ("", "texts/s, offline (slowest–fastest round)", "one wish, p50, ms", "NDCG@10 kept")
    told = (
        f"Text to ten items, from one run: bertrec (*) and the {SHOWN_OTHERS} fastest of the {others} ways of other libraries "
        "that were measured. † has a student's weights, which no library makes by itself. NDCG@10 is by the text alone; "
        "the fused pipelines rank by more:"
    )
    return f"{told}\n\n{markdown_table(heads, rows)}"


def _edge(content: Content) -> str:
    runs = [EdgeRun(**run) for run in content["runs"]]
    p50, p99 = (float(np.median([1e3 * np.percentile(run.seconds, percent) for run in runs])) for percent in (50, 99))
    open_s, rss_mb = np.median([run.open_s for run in runs]), np.median([run.rss_bytes for run in runs]) / 1e6
    counted = f"medians of {len(runs)} processes of {len(runs[0].seconds)} wishes of twelve words"
    return (
        f"In a process of its own (engine {runs[0].engine}; {counted}): opening the bundle takes {open_s:.2f} s, a wish "
        f"{p50:.2f} ms (p99 {shown(p99, 99, len(runs[0].seconds))}), and the process has {rss_mb:.0f} MB."
    )


def _latency(content: Content) -> str:
    samples = [Samples(row["engine"], row["workload"], row["batch"], row["rounds_s"]) for row in content["samples"]]
    rows = [
        [
            row.engine,
            f"{row.batch} × {row.workload}",
            *cells_ms(row.seconds, (50, 95, 99)),
            "{1:.0f} ({0:.0f}–{2:.0f})".format(*row.texts_per_second),
        ]
        for row in samples
        if row.workload in ("real lengths", "wish", "review", "reviews")
    ]
    heads = ("engine", "asked", "p50, ms", "p95, ms", "p99, ms", "texts/s (slowest–fastest round)")
    return "Text to ten items, in this process:\n\n" + markdown_table(heads, rows)


def _throughput(content: Content) -> str:
    rows = []
    for engine, found in summary(content["rows"]).items():
        ratio = "–" if found["ratio"] is None else f"{found['ratio']:.2f}"
        rows.append([engine, "{1:,.0f} ({0:,.0f}–{2:,.0f})".format(*rates_of(found)), ratio])
    return "Texts read a second, offline:\n\n" + markdown_table(
        ("engine", "texts/s (slowest–fastest window)", "times fp32"), rows
    )


def _load(content: Content) -> str:
    closed = [row for row in content["rows"] if row["loop"] == "closed" and row["clients"] in SHOWN_CLIENTS]
    rows = [
        [f"{row['server']}, {row['protocol']}", str(row["clients"]), f"{row['answers_per_s']:.1f}"]
        + [shown(row["latency_ms"][f"p{percent}"], percent, row["answered"], ".1f") for percent in (50, 99)]
        for row in closed
    ]
    found = kept_rates(content["rows"])
    held = "; ".join(f"{' by '.join(route)} {told(kept)}" for route, kept in found.items()) or "no rate was tried"
    objective = f"Open loop, a p99 of {content['settings']['objective_ms']:g} ms is kept up to: {held}."
    return (
        f"Servers, one text a request, answered by {engine_of(content)}:\n\n"
        + markdown_table(("server", "clients", "answers/s", "p50, ms", "p99, ms"), rows)
        + f"\n\n{objective}"
    )


def _scale(content: Content) -> str:
    rows = [
        [
            f"{row['items']:,}",
            row["way"],
            *(shown(row["latency_ms"][f"p{percent}"], percent, len(row["samples_ms"]), ".3f") for percent in (50, 99)),
            f"{row['recall_at_10']:.3f}",
            f"{row['needs_bytes'] / 1e6:,.0f}",
        ]
        for row in content["rows"]
    ]
    table = markdown_table(("items", "way", "p50, ms", "p99, ms", "recall@10", "MB"), rows)
    return f"Vector to the ten best of a catalogue, vectors of {engine_of(content)}:\n\n{table}\n\n{memory_note(content['rows'])}"


READERS: Mapping[str, Callable[[Content], str]] = {
    "edge": _edge,
    "latency": _latency,
    "throughput": _throughput,
    "load": _load,
    "scale": _scale,
    "peers": _peers,
}
"""Name of a file of results → what a block of that name says."""
BLOCKS: Mapping[str, Callable[[Mapping[str, Content]], str]] = {
    **{name: partial(_of_file, name, reader) for name, reader in READERS.items()},
    "targets": _targets,
}
"""Names of blocks."""
