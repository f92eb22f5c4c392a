"""What a page is made of: sections with tables and plots, each with the command, machine, commit and date of its figures."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bertrec.errors import InvalidInput

Content = Mapping[str, Any]
"""What a JSON file of results holds."""
NOTHING = "–"


@dataclass(frozen=True)
class Expected:
    """A file of results that a page has a section for. command: what writes it, after ``python -m``."""

    name: str
    title: str
    command: str


EXPECTED = (
    Expected("peers", "Beside other libraries and servers", "benchmarks peers --run runs/NAME --bundle bundles/NAME"),
    Expected("latency", "Latency in this process", "benchmarks latency --bundle bundles/NAME --grid"),
    Expected("throughput", "Throughput, offline", "benchmarks throughput --bundle bundles/NAME"),
    Expected("load", "Servers under load", "benchmarks load --bundle bundles/NAME"),
    Expected("overhead", "Where the time goes", "benchmarks overhead --bundle bundles/NAME"),
    Expected("bls", "Business logic scripting or an ensemble", "benchmarks bls --bundle bundles/NAME"),
    Expected("batching", "Queue delay, instances and threads of Triton", "benchmarks batching --bundle bundles/NAME"),
    Expected("scale", "Catalogues of growing size", "benchmarks scale --bundle bundles/NAME"),
    Expected("roofline", "How near to the machine's bound", "benchmarks roofline --bundle bundles/NAME"),
    Expected("startup", "Start, memory, disk", "benchmarks startup --bundle bundles/NAME"),
    Expected("perf-analyzer", "Two load generators", "benchmarks perf-analyzer --bundle bundles/NAME"),
    Expected("ranker", "What the other signals cost", "benchmarks ranker"),
    Expected("edge", "A bundle in a process of its own", "benchmarks edge --bundle bundles/NAME"),
    Expected("engines", "Engines that the export built", "benchmarks engines --run runs/NAME"),
    Expected("plan", "Capacity", "benchmarks plan --help"),
    Expected("faults", "While servers break", "benchmarks faults --bundle bundles/NAME"),
    Expected("quality", "Quality of the rankings", "benchmarks quality"),
    Expected("tools", "Tools of transfer learning", "benchmarks tools"),
    Expected("labels", "Quality by share of the labels", "benchmarks labels"),
)
"""In the order of the page."""


@dataclass(frozen=True)
class Grid:
    """A table. rows: as many cells each as there are heads; the first column is text, the others are figures. note: below it."""

    title: str
    heads: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""


@dataclass(frozen=True)
class Plot:
    """A picture. name: of its file, without an ending. told: what it shows, in words. svg: a whole document."""

    name: str
    told: str
    svg: str


@dataclass(frozen=True)
class Section:
    """What one file of results says. origin: command, machine, commit and date. notes: sentences before the figures."""

    name: str
    title: str
    origin: str
    notes: Sequence[str] = ()
    plots: Sequence[Plot] = ()
    grids: Sequence[Grid] = ()


def read_results(folder: Path) -> dict[str, Content]:
    """Name → content, of the files of ``EXPECTED`` that are there. Raises InvalidInput for a file that cannot be read."""
    if not folder.is_dir():
        raise InvalidInput(f"--results {folder} is not a folder; accepted is where the benchmarks wrote their JSON files")
    found: dict[str, Content] = {}
    for path in (folder / f"{one.name}.json" for one in EXPECTED):
        if not path.exists():
            continue
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise InvalidInput(f"{path} cannot be read as JSON: {error}; measure it anew, or remove it") from None
        if not isinstance(content, dict):
            raise InvalidInput(f"{path} holds a {type(content).__name__}; accepted is the object that a benchmark writes")
        found[path.stem] = content
    return found


def origin_of(content: Content) -> str:
    """Command, machine, commit and date of the figures, and the other commands that its rows or what they stand on are of."""
    origin = next(_origins(content), None)
    if origin is None:
        return "the file does not say where it was measured"
    every = [f"{command}, commit {commit[:10]}" for command, commit in dict.fromkeys(_measured_by(content))]
    others = [one for one in every if one != f"{origin['command']}, commit {str(origin['commit'])[:10]}"]
    runtime = origin.get("versions", {}).get("onnxruntime")
    return "; ".join(
        [
            str(origin["command"]),
            machine_of(content),
            *([f"onnxruntime {runtime}"] if runtime else []),
            f"commit {str(origin['commit'])[:10]}{' and uncommitted changes' if origin.get('uncommitted') else ''}",
            str(origin["measured"])[:10],
            *[f"also {one}" for one in others],
        ]
    )


def machine_of(content: Content) -> str:
    """The processor, its cores, and the instructions that decide which kernels run: two machines may have one name."""
    origin = next(_origins(content), None)
    if origin is None:
        return "an unknown machine"
    flags = f" ({' '.join(origin['cpu_flags'])})" if origin.get("cpu_flags") else ""
    return f"{origin['cpu']}, {origin['cores']} cores{flags}"


def commit_of(content: Content) -> str:
    """Commit and date of the figures."""
    origin = next(_origins(content), None)
    return "an unknown commit" if origin is None else f"commit {str(origin['commit'])[:10]}, {str(origin['measured'])[:10]}"


def engine_of(content: Content) -> str:
    """The encoder engine that answered; in files that do not say, what is known of it."""
    engines = dict.fromkeys(str(row["engine"]) for row in content.get("rows", ()) if row.get("engine"))
    named = ", ".join(engines) or content.get("engine") or content.get("settings", {}).get("engine")
    return f"engine {named}" if named else f"the engine that the export chose for bundle {content.get('bundle', 'unknown')[:12]}"


def is_whole(content: Content) -> bool:
    """Whether its command ended by itself; files that do not say are."""
    return bool(content.get("complete", True))


def _measured_by(content: object) -> Iterator[tuple[str, str]]:
    """Command and commit of the file, and of every part and row of it that names its own."""
    if isinstance(content, dict):
        if isinstance(content.get("command"), str) and isinstance(content.get("commit"), str):
            yield content["command"], content["commit"]
        for value in content.values():
            yield from _measured_by(value)
    elif isinstance(content, list):
        for value in content:
            yield from _measured_by(value)


def _origins(content: object) -> Iterator[Mapping[str, Any]]:
    if isinstance(content, dict):
        origin = content.get("provenance")
        if isinstance(origin, dict) and {"command", "cpu", "cores", "commit", "measured"} <= set(origin):
            yield origin
        for value in content.values():
            yield from _origins(value)
