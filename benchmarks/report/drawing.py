"""How the report's plots look: matplotlib's SVG; colours that the colour-blind tell apart, with a mark or a dash for each.

Loads matplotlib; raises MissingDependency without it.
"""

from __future__ import annotations

import io
import re
import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.report.parts import Plot
from bertrec.errors import MissingDependency

try:
    import matplotlib.style
    from matplotlib.figure import Figure
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullFormatter, NullLocator
except ImportError:
    raise MissingDependency("matplotlib", "bench") from None

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Okabe and Ito, "Color Universal Design" (2008), without the yellow, which paper swallows."""
MARKS, DASHES = ("o", "s", "^", "D", "v", "P", "X"), ("-", "--", "-.", ":")
WIDTH_INCHES, PANEL_INCHES = 9.6, 3.3
TITLE_INCHES, LEGEND_INCHES, ORIGIN_INCHES, PAD_INCHES = 0.18, 0.2, 0.13, 0.08
"""Heights of a line, and the space between."""
TITLE_CHARACTERS, ORIGIN_CHARACTERS, LEGEND_CHARACTERS, LEGEND_COLUMNS = 125, 190, 140, 4
STYLE = {
    "svg.hashsalt": "bertrec",  # or element ids would be drawn at random
    "svg.fonttype": "path",  # looks the same wherever it is read
    "font.family": "DejaVu Sans",  # comes with matplotlib
    "font.size": 9.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.3,
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.6,
    "lines.markersize": 5.0,
    "legend.frameon": False,
}


@dataclass
class Drawing:
    """A row of panels that is being drawn; ``plot`` is the finished picture when the block of ``drawing`` has ended."""

    axes: Sequence[Axes]
    plots: list[Plot] = field(default_factory=list)

    @property
    def plot(self) -> Plot:
        """The picture."""
        return self.plots[0]


@contextmanager
def drawing(name: str, told: str, origin: str, *, panels: int = 1, height: float = PANEL_INCHES) -> Iterator[Drawing]:
    """A figure of so many panels side by side: what it shows above them, below one legend for all and the figures' origin.

    height: of the panels with their axes' words, in inches.
    """
    with matplotlib.style.context(["default", STYLE]):
        figure = Figure(layout="constrained")
        drawn = Drawing(list(figure.subplots(1, panels, squeeze=False)[0]))
        yield drawn
        marks = {label: mark for axis in drawn.axes for mark, label in zip(*axis.get_legend_handles_labels(), strict=True)}
        title, lines = textwrap.wrap(told, TITLE_CHARACTERS), textwrap.wrap(origin, ORIGIN_CHARACTERS)
        columns = max(
            1, min(len(marks), LEGEND_COLUMNS, LEGEND_CHARACTERS // max((len(label) + 6 for label in marks), default=1))
        )
        above = TITLE_INCHES * len(title) + PAD_INCHES
        legend = LEGEND_INCHES * -(-len(marks) // columns) + PAD_INCHES if marks else 0.0
        below = legend + ORIGIN_INCHES * len(lines) + 2 * PAD_INCHES
        whole = above + height + below
        figure.set_size_inches(WIDTH_INCHES, whole)
        figure.get_layout_engine().set(rect=(0.01, below / whole, 0.98, height / whole), wspace=0.05)  # type: ignore[union-attr,call-arg]
        figure.text(0.01, 1 - PAD_INCHES / whole, "\n".join(title), fontsize=9.5, va="top")
        if marks:
            place = (0.5, (below - 0.01) / whole)
            figure.legend(marks.values(), marks, loc="upper center", bbox_to_anchor=place, ncol=columns, fontsize=8)
        figure.text(0.01, PAD_INCHES / whole, "\n".join(lines), fontsize=6.5, color="#444444", va="bottom")
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": "bertrec"})
    drawn.plots.append(Plot(name, told, own_ids(buffer.getvalue(), name)))


def own_ids(svg: str, name: str) -> str:
    """The drawing with ids that no other drawing on the page has, and without the prologue that HTML does not know.

    Ids are numbered: some of matplotlib's are memory addresses, and the same figures are to give the same file.
    """
    svg = svg[svg.index("<svg") :]
    numbers = {one: f"{name}-{number}" for number, one in enumerate(dict.fromkeys(re.findall(r'\bid="([^"]+)"', svg)))}
    used = re.compile(r'(\bid="|href="#|url\(#)([^")]+)')
    return used.sub(lambda found: found[1] + numbers.get(found[2], found[2]), svg)


def look(number: int) -> dict[str, Any]:
    """Colour and mark of the so-manieth line; lines beyond the colours have another dash."""
    again = number // len(COLOURS)
    return {
        "color": COLOURS[number % len(COLOURS)],
        "marker": MARKS[number % len(MARKS)],
        "linestyle": DASHES[again % len(DASHES)],
    }


def decades(axis: Axes, which: str, values: Sequence[float], *, at: Sequence[float] | None = None) -> None:
    """A logarithmic axis with plain numbers: at 1, 2, 5, 10 … that ``values`` reach, or ``at`` given ones."""
    scale = axis.xaxis if which == "x" else axis.yaxis
    (axis.set_xscale if which == "x" else axis.set_yscale)("log")
    positive = [value for value in values if value > 0]
    if at is None and positive:
        low, high = (int(np.floor(np.log10(end))) for end in (min(positive), max(positive)))
        steps = (1, 2, 5) if high - low <= 2 else (1,)
        at = [step * 10.0**power for power in range(low, high + 2) for step in steps]
    scale.set_major_locator(FixedLocator(list(at or [])))
    scale.set_minor_locator(NullLocator())
    scale.set_major_formatter(FuncFormatter(lambda value, _: _plain(value)))
    scale.set_minor_formatter(NullFormatter())
    if positive:
        room = (max(positive) / min(positive)) ** 0.06 * 1.05
        limits = (min(positive) / room, max(positive) * room)
        (axis.set_xlim if which == "x" else axis.set_ylim)(*limits)


def _plain(value: float) -> str:
    for size, unit in ((1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:g}{unit}"
    return f"{value:g}"
