"""The report as one HTML file that needs nothing else, and as Markdown with its plots beside it."""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Protocol

from benchmarks.report import engines, others, servers
from benchmarks.report.parts import EXPECTED, Content, Expected, Grid, Plot, Section, is_whole
from benchmarks.report.summary import measured_by, what_was_reached

TITLE = "What was measured"
LEAD = (
    "Made from the benchmarks' JSON files alone by python -m benchmarks report. Below every plot stand the command that measured "
    "it, the machine, the commit and the date."
)
CUT_SHORT = "The measurement was interrupted: what follows is what there was by then."


class _Reader(Protocol):
    def __call__(self, content: Content, title: str) -> Section: ...


READERS: Mapping[str, _Reader] = {
    "peers": others.peers,
    "latency": engines.latency,
    "throughput": engines.throughput,
    "load": servers.load,
    "overhead": partial(
        others.beside,
        name="overhead",
        note="The same engine in this process and behind Triton, text by text in turns, client and server on the same cores.",
    ),
    "bls": partial(
        others.beside,
        name="bls",
        note="One Python model that asks the others (BLS), beside Triton's ensemble of the same function, in the same server.",
    ),
    "batching": others.batching,
    "scale": servers.scale,
    "roofline": engines.roofline,
    "startup": servers.startup,
    "perf-analyzer": servers.generators,
    "ranker": engines.ranker,
    "edge": servers.edge,
    "engines": engines.engines,
    "plan": others.plan,
    "faults": others.faults,
    "quality": others.quality,
    "tools": others.tools,
    "labels": others.labels,
}


def sections(results: Mapping[str, Content]) -> tuple[list[Section], list[Expected]]:
    """What the results say, in the order of the page, and what is not there."""
    found, missing = [], []
    for one in EXPECTED:
        if one.name not in results:
            missing.append(one)
            continue
        found.append(READERS[one.name](results[one.name], one.title))
    return found, missing


def notes_of(section: Section, results: Mapping[str, Content]) -> list[str]:
    """The section's sentences, and whether its measurement was cut short."""
    return [*([] if is_whole(results[section.name]) else [CUT_SHORT]), *section.notes]


def html_page(results: Mapping[str, Content]) -> str:
    """A whole document: plots inline, nothing loaded from anywhere."""
    found, missing = sections(results)
    reached = what_was_reached(results)
    contents = "".join(f'<li><a href="#{one.name}">{html.escape(one.title)}</a></li>' for one in found)
    body = [
        f"<h1>{TITLE}</h1>",
        f"<p>{html.escape(LEAD)}</p>",
        f'<section id="targets"><h2>{html.escape(reached.title)}</h2>{_html_grid(replace(reached, title=""))}'
        f'<p class="origin">{html.escape(measured_by(results))}</p></section>',
        f'<nav><ul>{contents}<li><a href="#missing">Missing</a></li></ul></nav>',
    ]
    for section in found:
        body.append(f'<section id="{section.name}"><h2>{html.escape(section.title)}</h2>')
        body += [f"<p>{html.escape(note)}</p>" for note in notes_of(section, results) if note]
        body += [_html_plot(plot, section.origin) for plot in section.plots]
        body += [_html_grid(grid) for grid in section.grids]
        body.append(f'<p class="origin">{html.escape(section.origin)}</p></section>')
    body.append('<section id="missing"><h2>What is missing</h2>')
    if missing:
        told = "".join(f"<li>{html.escape(one.title)}: <code>python -m {html.escape(one.command)}</code></li>" for one in missing)
        body.append(f"<p>There are no results of these; the commands measure them.</p><ul>{told}</ul>")
    else:
        body.append("<p>Nothing: there are results of every benchmark.</p>")
    body.append("</section>")
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1"><title>{TITLE}</title>'
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head>{head}<style>{CSS}</style></head><body>\n'
        + "\n".join(body)
        + "\n</body></html>\n"
    )


def _html_plot(plot: Plot, origin: str) -> str:
    told = html.escape(plot.told)
    svg = plot.svg.replace("<svg ", f'<svg role="img" aria-label="{told}" ', 1)
    return f"<figure>{svg}<figcaption>{html.escape(origin)}</figcaption></figure>"


def _html_grid(grid: Grid) -> str:
    heads = "".join(f'<th scope="col">{html.escape(head)}</th>' for head in grid.heads)
    rows = "".join(
        f'<tr><th scope="row">{html.escape(row[0])}</th>' + "".join(f"<td>{html.escape(cell)}</td>" for cell in row[1:]) + "</tr>"
        for row in grid.rows
    )
    caption = f"<caption>{html.escape(grid.title)}</caption>" if grid.title else ""
    return f'<div class="wide"><table>{caption}<thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table></div>' + (
        f"<p>{html.escape(grid.note)}</p>" if grid.note else ""
    )


def markdown_page(results: Mapping[str, Content], *, plots: str) -> str:
    """The page, with pictures from the folder ``plots``, which stands beside it."""
    found, missing = sections(results)
    reached = what_was_reached(results)
    parts = [f"# {TITLE}", LEAD, f"## {reached.title}", markdown_table(reached.heads, reached.rows), reached.note]
    parts.append(f"`{_cell(measured_by(results))}`")
    for section in found:
        parts.append(f"## {section.title}")
        parts += [note for note in notes_of(section, results) if note]
        parts += [f"![{_cell(plot.told)}]({plots}/{plot.name}.svg)" for plot in section.plots]
        for grid in section.grids:
            parts += [f"**{grid.title}**", markdown_table(grid.heads, grid.rows), *([grid.note] if grid.note else [])]
        parts.append(f"`{_cell(section.origin)}`")
    parts.append("## What is missing")
    parts.append("\n".join(f"- {one.title}: `python -m {one.command}`" for one in missing) or "Nothing.")
    return "\n\n".join(parts) + "\n"


def markdown_table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table whose first column stands left and the others right."""
    lines = [heads, ["---", *["---:"] * (len(heads) - 1)], *rows]
    return "\n".join("| " + " | ".join(_cell(cell) for cell in line) + " |" for line in lines)


def write_plots(results: Mapping[str, Content], folder: Path) -> None:
    """Every plot as a file of its own. Plots of an earlier report that are not among them are removed."""
    folder.mkdir(parents=True, exist_ok=True)
    drawn = {f"{plot.name}.svg": plot.svg for section in sections(results)[0] for plot in section.plots}
    for old in folder.glob("*.svg"):
        if old.name not in drawn:
            old.unlink()
    for name, svg in drawn.items():
        (folder / name).write_text(svg, encoding="utf-8")


def _cell(text: str) -> str:
    """As it may stand in a cell: no bar, no line break."""
    return " ".join(text.replace("|", "¦").replace("`", "'").split())


CSS = """
body { font: 15px/1.5 system-ui, sans-serif; color: #1a1a1a; background: #fff; max-width: 68rem; margin: 0 auto; padding: 1.5rem }
h1, h2 { line-height: 1.2 } h2 { margin-top: 2.5rem; border-top: 1px solid #ccc; padding-top: 1rem }
nav ul { columns: 3; padding-left: 1.2rem } figure { margin: 1rem 0 } figure svg { width: 100%; height: auto }
figcaption, .origin { font-size: 12px; color: #444; overflow-wrap: anywhere } .wide { overflow-x: auto }
table { border-collapse: collapse; margin: 1rem 0; font-size: 13px; font-variant-numeric: tabular-nums }
caption { text-align: left; font-weight: 600; padding-bottom: .3rem }
th, td { padding: .2rem .6rem; text-align: right; border-bottom: 1px solid #ddd; vertical-align: top }
tbody th { font-weight: 400 }
th:first-child { text-align: left } thead th { border-bottom: 2px solid #888 }
@media print { body { max-width: none; font-size: 10pt; padding: 0 } nav { display: none } .wide { overflow: visible }
  figure, tr { break-inside: avoid } h2, caption { break-after: avoid } table { font-size: 8pt } }
"""
