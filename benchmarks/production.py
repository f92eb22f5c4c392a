"""The commands ``faults`` and ``edge`` of ``python -m benchmarks``: what a bundle does in production."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.edge import EdgeRun, EdgeSettings, edge_table, measure_edge
from benchmarks.faults import SCENARIOS, FaultSettings, faults_page, faults_table, measure_faults
from benchmarks.faults.outcome import Outcome, row_of
from benchmarks.latency import held_out_reviews, read_texts
from benchmarks.record import Record
from bertrec.bundle import Bundle
from train.progress import say, show

NOT_AS_IT_SHOULD_BE = 1


def add_production(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """The two commands' options."""
    faults = commands.add_parser("faults", help="break real servers under load, and hold every answer against the right one")
    faults.add_argument("--bundle", required=True, type=Path, metavar="bundles/NAME")
    faults.add_argument(
        "--only", default="", metavar="NAME,…", help=f"of {', '.join(SCENARIOS)}; the others stay as measured (default: all)"
    )
    faults.add_argument("--minutes", type=float, default=FaultSettings.minutes, help="of full load (default: %(default)g)")
    faults.add_argument("--overload-s", type=float, default=FaultSettings.overload_s, help="default: %(default)g")
    faults.add_argument("--output", type=Path, default=Path("benchmarks/results/faults.json"))
    faults.add_argument("--page", type=Path, default=Path("docs/faults.md"))
    faults.set_defaults(run_recorded=_faults)
    edge = commands.add_parser("edge", help="opening time, memory and latency of a bundle in a process of its own")
    edge.add_argument("--bundle", required=True, type=Path, metavar="bundles/NAME")
    edge.add_argument("--texts", type=Path, help="one text a line; otherwise held-out reviews of the bundled data")
    edge.add_argument("--engine", help="encoder engine (default: the export's choice)")
    edge.add_argument("--repetitions", type=int, default=EdgeSettings.repetitions, help="processes (default: %(default)s)")
    edge.add_argument("--queries", type=int, default=EdgeSettings.queries, help="wishes of each process (default: %(default)s)")
    edge.add_argument("--threads", type=int, default=EdgeSettings.threads, help="of each engine; 0: one for each core")
    edge.add_argument("--output", type=Path, default=Path("results/edge.json"))
    edge.set_defaults(run_recorded=_edge)


def _faults(given: argparse.Namespace) -> int:
    """Returns 1 where something was not as it should be."""
    only = tuple(name.strip() for name in given.only.split(",") if name.strip())
    settings = FaultSettings(only=only, minutes=given.minutes, overload_s=given.overload_s)
    fingerprint = Bundle.open(given.bundle).fingerprint
    rows = _earlier(given.output, fingerprint) if only else {}
    record = Record(given.output, {"bundle": fingerprint, "settings": asdict(settings)}, name="scenarios")
    origin, outcomes = record.content["provenance"], list[Outcome]()
    try:
        for one in measure_faults(given.bundle, settings):
            outcomes.append(one)
            rows[one.name] = row_of(one, command=origin["command"], commit=origin["commit"])
            record.note(scenarios=[rows[name] for name in SCENARIOS if name in rows])
        record.finish()
    finally:
        if outcomes:
            show(faults_table(outcomes))
    given.page.parent.mkdir(parents=True, exist_ok=True)
    given.page.write_text(faults_page(record.content), encoding="utf-8")
    say(f"written to {given.output} and {given.page}")
    return NOT_AS_IT_SHOULD_BE if any(outcome.complaints for outcome in outcomes) else 0


def _earlier(path: Path, bundle: str) -> dict[str, dict[str, Any]]:
    """Scenario → its row in a result of the same bundle; none where there is no such result."""
    if not path.is_file():
        return {}
    content = json.loads(path.read_text(encoding="utf-8"))
    origin = {name: content["provenance"][name] for name in ("command", "commit")}
    return {row["name"]: {**origin, **row} for row in content["scenarios"] if content["bundle"] == bundle}


def _edge(given: argparse.Namespace) -> int:
    """Write every sample, process by process, and print the table."""
    settings = EdgeSettings(repetitions=given.repetitions, queries=given.queries, threads=given.threads, engine=given.engine)
    texts = read_texts(given.texts) if given.texts else held_out_reviews()
    bundle = Bundle.open(given.bundle)
    record = Record(given.output, {"bundle": bundle.fingerprint, "settings": asdict(settings)}, name="runs")
    try:
        measure_edge(given.bundle, texts, settings, record)
        record.finish()
    finally:
        if record.rows:
            show(edge_table([EdgeRun(**run) for run in record.rows]))
    say(f"written to {given.output}")
    return 0
