"""A chart of engines: how well each ranks, against what it costs, with the Pareto front marked. Needs no display.

Loads matplotlib, and so only where something is drawn; raises MissingDependency without it.
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bertrec.errors import MissingDependency

try:
    import matplotlib.style
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.text import Text
    from matplotlib.ticker import FuncFormatter, NullFormatter
except ImportError:
    raise MissingDependency("matplotlib", "export") from None

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.backends.backend_agg import RendererAgg
    from matplotlib.text import Annotation

WIDTH_INCHES, HEIGHT_INCHES, DOTS_PER_INCH = 12.0, 5.6, 120
WIDE_RANGE = 8.0
"""Costs whose extremes differ by a greater factor are drawn on a logarithmic axis."""
MARGIN = 0.15
FRONT, OTHER, REJECTED = "#0b5fa5", "#444444", "#b3402a"
STYLE = {
    "svg.hashsalt": "bertrec",  # or element ids would be drawn at random
    "font.family": "DejaVu Sans",  # comes with matplotlib
    "font.size": 9.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
}
_NEAR = [(7, 4, "left"), (-7, 4, "right"), (7, -11, "left"), (-7, -11, "right"), (0, 9, "center"), (0, -16, "center")]
_FAR = [(x, y, "left" if x > 0 else "right") for y in (18, -25, 32, -39, 46, -53, 60, -67) for x in (9, -9)]
PLACES = [*_NEAR, *_FAR]
"""Where a label may stand beside its point, in points, the first that is free; and which end of it is at the point."""


@dataclass(frozen=True)
class Point:
    """One engine in a panel. low, high: the 95% interval of its quality beside the reference's; passed: or is the reference."""

    name: str
    cost: float
    quality: float
    passed: bool
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Panel:
    """Quality against one cost, which is better the smaller it is. reference: the quality that others are held against."""

    title: str
    points: Sequence[Point]
    reference: float | None = None


def pareto_front(points: Sequence[Point]) -> list[Point]:
    """Those that passed and that no other that passed beats in cost or quality without losing in the other; cheapest first."""
    passed = [point for point in points if point.passed]
    front = [
        point
        for point in passed
        if not any(
            other.cost <= point.cost
            and other.quality >= point.quality
            and (other.cost, other.quality) != (point.cost, point.quality)
            for other in passed
        )
    ]
    return sorted(front, key=lambda point: (point.cost, point.name))


def draw(panels: Sequence[Panel], *, title: str, quality: str, note: str = "") -> dict[str, bytes]:
    """File ending (``png``, ``svg``) → the chart, panels side by side; equal input gives equal bytes.

    quality: what the vertical axis says. note: small print below the legend.
    """
    with matplotlib.style.context(["default", STYLE]):
        figure = Figure(figsize=(WIDTH_INCHES, HEIGHT_INCHES), dpi=DOTS_PER_INCH)
        canvas = FigureCanvasAgg(figure)
        axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
        figure.subplots_adjust(left=0.07, right=0.985, top=0.9, bottom=0.2, wspace=0.08)
        figure.suptitle(title, x=0.07, ha="left", fontsize=10.5)
        axes[0].set_ylabel(quality)
        for axis, panel in zip(axes, panels, strict=True):
            _marks(axis, panel)
        for axis, panel in zip(axes, panels, strict=True):  # when all marks have set the shared scale
            _labels(axis, panel, canvas.get_renderer())
        figure.legend(*_legend(axes), loc="lower center", ncol=5, frameon=False, bbox_to_anchor=(0.5, 0.05) if note else None)
        figure.text(0.07, 0.015, note, fontsize=7.5, color=OTHER)
        return {
            "png": _saved(figure, "png", {"Software": "bertrec"}),
            "svg": _saved(figure, "svg", {"Date": None, "Creator": "bertrec"}),
        }


def _marks(axis: Axes, panel: Panel) -> None:
    """The points, their intervals, the front and the reference's quality."""
    axis.set_xlabel(panel.title)
    axis.grid(alpha=0.25, linewidth=0.6)
    if not panel.points:
        axis.text(0.5, 0.5, "not measured", transform=axis.transAxes, ha="center", color=OTHER)
        axis.set_xticks([])
        return
    _scale(axis, [point.cost for point in panel.points])
    if panel.reference is not None:
        axis.axhline(panel.reference, color=OTHER, linewidth=0.8, linestyle=":", label="the reference's quality")
    for point in panel.points:
        if point.low is not None and point.high is not None:
            axis.plot([point.cost] * 2, [point.low, point.high], color="#999999", linewidth=0.8, zorder=1, label="95% interval")
    front = pareto_front(panel.points)
    axis.plot(
        [point.cost for point in front], [point.quality for point in front], color=FRONT, linewidth=1.2, drawstyle="steps-post"
    )
    for point in panel.points:
        kind = _kind(point, front)
        axis.plot(
            [point.cost],
            [point.quality],
            linestyle="",
            marker="x" if kind == "rejected" else "o",
            markersize=7,
            markeredgecolor=REJECTED if kind == "rejected" else OTHER,
            color=FRONT if kind == "Pareto front" else "white",
            zorder=3,
            label=kind,
        )


def _scale(axis: Axes, costs: Sequence[float]) -> None:
    """A logarithmic axis where costs differ much, and room for labels at both ends."""
    low, high = min(costs), max(costs)
    if low > 0 and high / low > WIDE_RANGE:
        axis.set_xscale("log")
        room = (high / low) ** MARGIN
        axis.set_xlim(low / room, high * room)
        axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axis.xaxis.set_minor_formatter(NullFormatter())
    else:
        room = MARGIN * ((high - low) or high or 1.0)
        axis.set_xlim(max(low - room, 0.0), high + room)
    axis.margins(y=MARGIN)


def _labels(axis: Axes, panel: Panel, renderer: RendererAgg) -> None:
    """A name beside each point, where it covers neither a point nor another name and is nearest to its own point."""
    front = pareto_front(panel.points)
    marks = {point: _around(*axis.transData.transform((point.cost, point.quality))) for point in panel.points}
    extent = axis.get_window_extent(renderer)
    inside = _Box(extent.x0, extent.y0, extent.x1, extent.y1)
    taken = list(marks.values())
    for point in sorted(panel.points, key=lambda point: (point.cost, point.quality, point.name)):
        label = axis.annotate(
            point.name,
            (point.cost, point.quality),
            xytext=(0, 0),
            textcoords="offset points",
            fontweight="bold" if point in front else "normal",
            color=OTHER if point.passed else REJECTED,
            bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.75, "pad": 0.5},  # over lines, which it would be lost in
            arrowprops={"arrowstyle": "-", "color": "#888888", "linewidth": 0.7, "shrinkA": 0, "shrinkB": 4},
        )
        _place(label, marks[point], list(marks.values()), taken=taken, inside=inside, renderer=renderer)
        taken.append(_extent(label, renderer))


def _place(
    label: Annotation,
    own: _Box,
    marks: Sequence[_Box],
    *,
    taken: Sequence[_Box],
    inside: _Box,
    renderer: RendererAgg,
) -> None:
    """Put a label where it covers least, could be taken for the fewest other points', and is as near as then can be."""
    ratings = []
    for place in range(len(PLACES)):
        _put(label, place, renderer)
        box = _extent(label, renderer)
        covered = sum(box.shared(other) for other in taken) + box.area - box.shared(inside)
        nearer = sum(box.distance(other) < box.distance(own) for other in marks)
        ratings.append((round(covered, 3), nearer, place))
    _put(label, min(ratings)[2], renderer)


@dataclass(frozen=True)
class _Box:
    """A rectangle of the picture, in dots."""

    left: float
    bottom: float
    right: float
    top: float

    @property
    def area(self) -> float:
        return max(self.right - self.left, 0.0) * max(self.top - self.bottom, 0.0)

    def shared(self, other: _Box) -> float:
        """The area of what both cover."""
        left, bottom = max(self.left, other.left), max(self.bottom, other.bottom)
        return _Box(left, bottom, min(self.right, other.right), min(self.top, other.top)).area

    def distance(self, other: _Box) -> float:
        """To the middle of the other one."""
        x, y = (other.left + other.right) / 2, (other.bottom + other.top) / 2
        return math.hypot(max(self.left - x, x - self.right, 0.0), max(self.bottom - y, y - self.top, 0.0))


def _put(label: Annotation, place: int, renderer: RendererAgg) -> None:
    """Move a label to one of the ``PLACES``; far ones have a line to their point."""
    x, y, end = PLACES[place]
    label.set_position((x, y))
    label.set_horizontalalignment(end)  # type: ignore[arg-type]  # one of the three words in PLACES
    label.update_positions(renderer)
    if label.arrow_patch is not None:
        label.arrow_patch.set_visible(place >= len(_NEAR))


def _extent(label: Annotation, renderer: RendererAgg) -> _Box:
    """What a label's words cover."""
    extent = Text.get_window_extent(label, renderer)
    return _Box(extent.x0, extent.y0, extent.x1, extent.y1)


def _around(x: float, y: float) -> _Box:
    """What a point's mark covers."""
    half = 4.5 / 72 * DOTS_PER_INCH
    return _Box(x - half, y - half, x + half, y + half)


def _kind(point: Point, front: Sequence[Point]) -> str:
    if not point.passed:
        return "rejected"
    return "Pareto front" if point in front else "passed"


def _legend(axes: Sequence[Axes]) -> tuple[list[Any], list[str]]:
    """Every kind of mark once."""
    marks = {label: mark for axis in axes for mark, label in zip(*axis.get_legend_handles_labels(), strict=True)}
    names = sorted(marks)
    return [marks[name] for name in names], names


def _saved(figure: Figure, kind: str, metadata: dict[str, str | None]) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format=kind, metadata=metadata)
    return buffer.getvalue()
