"""The commands ``plan`` and ``perf-analyzer`` of ``python -m benchmarks``: what is needed, and whether the load test is right."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.table import Table

from benchmarks.options import add_common, joined, texts_of, values
from benchmarks.perf_analyzer import ComparisonSettings, agreement, agreement_table, measure_agreement
from benchmarks.plan import PlanSettings, floors, make_plans
from benchmarks.plan_page import plan_page
from benchmarks.record import Record
from bertrec.bundle import Bundle
from bertrec.errors import InvalidInput
from train.progress import say, show

Commands = argparse._SubParsersAction  # of argparse.ArgumentParser; its name has no public form
LOAD_KEYS, THROUGHPUT_KEYS = ("provenance", "settings", "rows"), ("provenance", "engines")


def add_capacity(commands: Commands[argparse.ArgumentParser]) -> None:
    """The two commands' options; each sets ``run_recorded``."""
    plan = commands.add_parser("plan", help="how many instances keep the 99th percentile under an objective, and what they cost")
    plan.add_argument("--load", required=True, type=Path, metavar="results/load.json", help="of load, with one client too")
    plan.add_argument("--throughput", type=Path, metavar="results/throughput.json", help="adds the floor of each engine")
    plan.add_argument("--objective-ms", type=float, default=PlanSettings.objective_ms, help="for the 99th percentile")
    plan.add_argument("--rates", default=",".join(f"{rate:g}" for rate in PlanSettings.rates), metavar="R,…", help="requests/s")
    plan.add_argument("--price-per-hour", type=float, help="of one instance, in any currency")
    plan.add_argument("--cores", type=int, help="of one instance (default: those of the load result's machine)")
    plan.add_argument("--gpus", type=int, default=PlanSettings.gpus, help="of one instance")
    plan.add_argument("--output", type=Path, default=Path("results/plan.json"))
    plan.add_argument("--page", type=Path, metavar="docs/capacity.md", help="also write a page")
    plan.set_defaults(run_recorded=_plan)
    compared = commands.add_parser(
        "perf-analyzer", help="whether NVIDIA's load generator measures what ours does, in closed loops"
    )
    add_common(compared, "perf-analyzer", run=_perf_analyzer)
    compared.add_argument("--binary", type=Path, metavar="FILE", help="the program (default: perf_analyzer on the PATH)")
    clients = joined(ComparisonSettings.clients)
    compared.add_argument("--clients", default=clients, metavar="N,…", help="default: %(default)s")
    compared.add_argument("--rounds", type=int, default=ComparisonSettings.rounds, help="of each generator, in turns")
    compared.add_argument("--seconds", type=float, default=ComparisonSettings.seconds, help="of each closed loop")
    compared.add_argument("--warm-up-s", type=float, default=ComparisonSettings.warm_up_s, help="before each number of clients")
    compared.add_argument("--engines", metavar="NAME,…", help="encoder engines (default: fp32 and the bundle's fastest)")


def _plan(given: argparse.Namespace) -> int:
    load = _result(given.load, "load", LOAD_KEYS)
    throughput = None if given.throughput is None else _result(given.throughput, "throughput", THROUGHPUT_KEYS)
    settings = PlanSettings(
        objective_ms=given.objective_ms,
        rates=values(given.rates, float),
        price_per_hour=given.price_per_hour,
        cores=load["provenance"]["cores"] if given.cores is None else given.cores,
        gpus=given.gpus,
    )
    about = {"load": {name: load.get(name) for name in ("provenance", "settings", "bundle", "complete")}}
    record = Record(given.output, {**about, "settings": asdict(settings)})
    make_plans(load, settings, record)
    record.finish(throughput=None if throughput is None else floors(throughput, settings.rates))
    content = json.loads(given.output.read_text(encoding="utf-8"))
    for route in content["rows"]:
        show(_table(route))
    if given.page is not None:
        given.page.parent.mkdir(parents=True, exist_ok=True)
        given.page.write_text(plan_page(content), encoding="utf-8")
    say(f"written to {given.output}{'' if given.page is None else f' and {given.page}'}")
    return 0


def _perf_analyzer(given: argparse.Namespace) -> int:
    settings = ComparisonSettings(
        clients=values(given.clients, int),
        rounds=given.rounds,
        seconds=given.seconds,
        warm_up_s=given.warm_up_s,
        engines=values(given.engines or "", str),
    )
    bundle, texts = Bundle.open(given.bundle), texts_of(given)
    record = Record(given.output, {"bundle": bundle.fingerprint, "settings": asdict(settings)})
    try:
        measure_agreement(bundle, texts, settings, given.binary, record)
        record.finish(agreement=agreement(record.rows))
    finally:
        if record.rows:
            show(agreement_table(record.rows))
    say(f"written to {given.output}")
    return 0


def _result(path: Path, command: str, keys: Sequence[str]) -> dict[str, Any]:
    """A benchmark's result. Raises InvalidInput for a file that is none of this command."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InvalidInput(f"{path} cannot be read ({error}); accepted is a result of python -m benchmarks {command}") from error
    missing = [name for name in keys if not isinstance(content, dict) or name not in content]
    if missing or (command == "load" and not all("loop" in row for row in content["rows"])):
        lacks = f"lacks {', '.join(missing)}" if missing else "has rows that are no load"
        raise InvalidInput(f"{path} {lacks}; accepted is a result of python -m benchmarks {command} that came to its end")
    return dict(content)


def _table(route: Mapping[str, Any]) -> Table:
    table = Table(title=f"{route['server']}, {route['protocol']}: on paper", title_justify="left")
    for title in ("requests/s", "instances", "with one to spare", "cores", "used", "p99 ms", "with the spare", "a million"):
        table.add_column(title, justify="right")
    for line in route["plan"]:
        cost = f"{line['instance_hours_per_million']:.3g} instance-hours" if line["cost"] is None else f"{line['cost']:.3g}"
        used = (f"{line['used']:.0%}", *[f"{p99_ms:.1f}" for p99_ms in line["p99_ms"]])
        table.add_row(f"{line['rate']:,.0f}", f"{line['instances']:,}", f"{line['spared']:,}", f"{line['cores']:,}", *used, cost)
    errors = [load["error"] for load in route["check"]["loads"]]
    missed = "; ".join(f"{one['p50']:+.0%} and {one['p99']:+.0%}" for one in errors)
    table.caption = (
        f"error of the predicted p50 and p99 against the open loops: {missed or 'none was measured'}"
        if route["plan"]
        else f"no number of instances: undisturbed, the 99th percentile is {route['undisturbed_p99_ms']:.1f} ms"
    )
    return table
