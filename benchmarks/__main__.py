"""python -m benchmarks: latency, quality, ranker, engines, labels, tools, compare, production.py, commands.py, capacity.py."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from benchmarks.capacity import add_capacity
from benchmarks.commands import add_commands
from benchmarks.compare import change_table, compare_results
from benchmarks.everything import add_all
from benchmarks.latency_command import add_latency
from benchmarks.peers.command import add_peers
from benchmarks.production import add_production
from benchmarks.ranker import WIDTHS, RankerSettings, measure_ranker, ranker_table, samples_of
from benchmarks.record import KEPT, Record
from benchmarks.report import add_report
from bertrec.errors import InvalidInput
from train.command import run_command
from train.progress import say, show
from train.sources import BUNDLED, FETCHED

PRESETS = ("quick", "full")
"""The values of train.settings.Preset, which only loads with torch: no latency is measured in a process that has it."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    given = _parser().parse_args(arguments)
    if "run_recorded" in given:
        return run_command(lambda: int(given.run_recorded(given)), interrupted=KEPT)
    command = {
        "quality": _quality,
        "labels": _labels,
        "tools": _tools,
        "compare": _compare,
    }[given.command]
    left = "nothing was written" if given.command == "compare" else "what is finished is kept, the same command continues"
    return run_command(lambda: command(given), interrupted=f"interrupted; {left}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Measure what recommendations are worth and cost.")
    commands = parser.add_subparsers(dest="command", required=True)
    quality = commands.add_parser("quality", help="train, evaluate and study every data set with several seeds")
    quality.add_argument("--preset", choices=PRESETS, default=PRESETS[0])
    quality.add_argument("--data", metavar="DIR|NAME,…", help=f"default: {', '.join([*BUNDLED, *FETCHED])}, where fetched")
    quality.add_argument("--seeds", default="0,1,2", metavar="SEED,…")
    quality.add_argument("--runs", type=Path, default=Path("runs/quality"), help="where runs are kept, and reused")
    quality.add_argument("--backbone", help="a BERT for all data, instead of that which suits each")
    quality.add_argument("--transfer", action="store_true", help="also carry the encoder from clothes over to applications")
    quality.add_argument("--output", type=Path, default=Path("benchmarks/results/quality.json"))
    quality.add_argument("--page", type=Path, default=Path("docs/quality.md"))
    ranker = commands.add_parser("ranker", help="what all signals cost beside the text alone, in the ranker")
    ranker.add_argument("--items", type=int, default=RankerSettings.items, help="size of the catalogue")
    ranker.add_argument("--pairs", type=int, default=RankerSettings.pairs, help="requests that each ranker gets per batch size")
    ranker.add_argument("--output", type=Path, default=Path("results/ranker.json"))
    ranker.set_defaults(run_recorded=_ranker)
    engines = commands.add_parser("engines", help="build a run's engines for every target, against what was to be reached")
    engines.add_argument("--run", required=True, type=Path, metavar="runs/NAME")
    engines.add_argument("--once", action="store_true", help="leave out the second export, which is compared with the first")
    engines.add_argument("--bundles", type=Path, default=Path("bundles/engines"), help="where to build; must be empty")
    engines.add_argument("--output", type=Path, default=Path("benchmarks/results/engines.json"))
    engines.add_argument("--page", type=Path, default=Path("docs/engines.md"))
    engines.set_defaults(run_recorded=_engines)
    labels = commands.add_parser("labels", help="quality with 1, 10 and 100 percent of the labels, and what unlabelled texts add")
    labels.add_argument("--data", default=next(iter(BUNDLED)), metavar="DIR|NAME")
    labels.add_argument("--shares", default="0.01,0.1,1", metavar="SHARE,…")
    labels.add_argument("--max-minutes", type=float, help="of each run")
    labels.add_argument("--seed", type=int, default=0)
    labels.add_argument("--runs", type=Path, default=Path("runs/labels"), help="where runs are kept, and reused")
    labels.add_argument("--output", type=Path, default=Path("benchmarks/results/labels.json"))
    labels.add_argument("--page", type=Path, default=Path("docs/labels.md"))
    tools = commands.add_parser("tools", help="what each tool of transfer learning gains and costs, a fit for each")
    tools.add_argument("--data", default="clothing", metavar="DIR|NAME")
    tools.add_argument("--seed", type=int, default=0)
    tools.add_argument("--tools", type=_names, metavar="NAME,…", help="default: all")
    tools.add_argument("--runs", type=Path, default=Path("runs/tools"), help="where runs are kept, and reused")
    tools.add_argument("--output", type=Path, default=Path("benchmarks/results/tools.json"))
    tools.add_argument("--page", type=Path, default=Path("docs/transfer.md"))
    tools.add_argument(
        "--run", type=Path, nargs="+", metavar="runs/NAME", help="put what was made of these finished runs on the page, too"
    )
    tools.add_argument("--page-only", action="store_true", help="write the page from what --output holds, and measure nothing")
    compare = commands.add_parser(
        "compare", help="what changed between two results beyond noise; ends with 1 if for the worse or missing"
    )
    compare.add_argument("old", type=Path, metavar="old.json")
    compare.add_argument("new", type=Path, metavar="new.json")
    add_all(commands)
    add_latency(commands)
    add_commands(commands)
    add_capacity(commands)
    add_report(commands)
    add_production(commands)
    add_peers(commands)
    return parser


def _labels(given: argparse.Namespace) -> int:
    import dataclasses

    from benchmarks.labels import LabelSettings, labels_page, labels_table, measure_labels

    try:
        shares = tuple(float(share) for share in _names(given.shares))
    except ValueError:
        raise InvalidInput(f"--shares is {given.shares!r}; accepted are numbers with commas between them") from None
    base = dataclasses.replace(LabelSettings().base, seed=given.seed)
    settings = LabelSettings(base, shares, given.max_minutes)
    record = Record(given.output, {"source": given.data})
    try:
        measure_labels(given.data, settings, given.runs, record)
        record.finish()
    finally:
        show(labels_table(record.content))
    given.page.write_text(labels_page(record.content), encoding="utf-8")
    say(f"written to {given.output} and {given.page}")
    return 0


def _compare(given: argparse.Namespace) -> int:
    comparison = compare_results(given.old, given.new)
    show(change_table(comparison))
    for note in comparison.notes:
        say(note)
    return int(comparison.is_worse)


def _tools(given: argparse.Namespace) -> int:
    from benchmarks.finished import finished_tools
    from benchmarks.tools import TOOLS, ToolSettings, measure_tools, read_tools, tools_page
    from train.records import write_json
    from train.run import open_run

    named = tuple(given.tools) if given.tools is not None else tuple(TOOLS)
    settings = ToolSettings(given.data, seed=given.seed, tools=named, runs=given.runs)
    content = read_tools(given.output) if given.page_only else measure_tools(settings, given.output)
    if given.run is not None:
        content["finished"] = [finished_tools(open_run(folder)) for folder in given.run]
        write_json(given.output, content)
    given.page.write_text(tools_page(content), encoding="utf-8")
    say(f"written to {given.page}, from {given.output}")
    return 0


def _engines(given: argparse.Namespace) -> int:
    from benchmarks.engines import measure_engines
    from benchmarks.engines_page import engines_page

    record = Record(given.output, {"run": given.run.name}, name="builds")
    measure_engines(given.run, given.bundles, given.page.with_suffix(""), record, once=given.once)
    record.finish()
    given.page.write_text(engines_page(record.content), encoding="utf-8")
    say(f"written to {given.output} and {given.page}")
    return 0


def _quality(given: argparse.Namespace) -> int:
    import transformers

    from benchmarks.quality import DATA, QualitySettings, measure_quality
    from benchmarks.quality_page import quality_page
    from train.settings import Preset

    transformers.logging.set_verbosity_error()
    settings = QualitySettings(
        preset=Preset(given.preset),
        data=tuple(_names(given.data)) if given.data is not None else DATA,
        seeds=tuple(_whole_number(seed) for seed in _names(given.seeds)),
        runs=given.runs,
        backbone=given.backbone,
        transfer=given.transfer,
    )
    content = measure_quality(settings, given.output)
    given.page.parent.mkdir(parents=True, exist_ok=True)
    given.page.write_text(quality_page(content), encoding="utf-8")
    say(f"written to {given.output} and {given.page}")
    return 0


def _names(joined: str) -> list[str]:
    return [name.strip() for name in joined.split(",") if name.strip()]


def _whole_number(given: str) -> int:
    try:
        return int(given)
    except ValueError:
        raise InvalidInput(f"--seeds names {given!r}; accepted are whole numbers with commas between them") from None


def _ranker(given: argparse.Namespace) -> int:
    settings = RankerSettings(items=given.items, pairs=given.pairs)
    record = Record(given.output, {"settings": asdict(settings), "widths": WIDTHS}, name="samples")
    try:
        measure_ranker(settings, record)
        record.finish()
    finally:
        show(ranker_table(samples_of(record.rows), settings))
    origin = record.content["provenance"]
    versions, flags = origin["versions"], " ".join(origin["cpu_flags"])
    print(f"{origin['cpu']}, {origin['cores']} cores ({flags}), onnxruntime {versions.get('onnxruntime')}.")
    say(f"written to {given.output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
