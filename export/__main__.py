"""python -m export: build a bundle from a run, compile it, report on it, extend its catalogue."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.logging import RichHandler

from bertrec.bundle import Bundle
from export import onefile, report
from export.build import PARTS, BuildSettings, build_bundle
from export.catalogue import extend_catalogue
from export.choose import Objective, Target
from export.recipes import Precision
from export.tensorrt import command as tensorrt
from export.verdict import Budgets
from train.command import run_command
from train.progress import console, say, show
from train.run import open_run


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s", handlers=[RichHandler(console=console, show_path=False)])
    given = _parser().parse_args(arguments)
    commands = {
        "build": _build,
        "catalogue": _catalogue,
        "report": report.run,
        "onefile": onefile.run,
        "tensorrt": tensorrt.run,
    }
    return run_command(lambda: commands[given.command](given), interrupted="interrupted; nothing was written")


def _build(given: argparse.Namespace) -> int:
    settings = BuildSettings(
        engines=given.engines,
        target=Target(given.target) if given.target else None,
        objective=Objective(given.objective),
        budgets=Budgets(ndcg_loss=given.max_loss / 100),
        allow_batch_variant=given.allow_batch_variant,
        max_bytes=round(given.max_mb * 1e6),
        rules=given.rules,
        without=tuple(name for name in given.without.split(",") if name),
    )
    bundle = build_bundle(open_run(given.run), given.output, settings)
    show(report.engine_table(bundle))
    for record in bundle.manifest.engines:
        if record.why:
            say(f"{report.name_of(record)} {record.verdict}: {record.why}")
    if choice := bundle.manifest.choice:
        say(f"for {choice['target']}, {choice['objective']}: {choice['engine']}, {choice['why']}")
    say(f"written to {bundle.folder}, fingerprint {bundle.fingerprint}")
    return 0


def _catalogue(given: argparse.Namespace) -> int:
    bundle = extend_catalogue(Bundle.open(given.bundle), given.items, given.output)
    say(f"{bundle.manifest.data['items_added']} items added, {bundle.manifest.data['items']:,} in all")
    say(f"written to {bundle.folder}, fingerprint {bundle.fingerprint}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m export", description="Turn a training run into a bundle of engines.")
    commands = parser.add_subparsers(dest="command", required=True)
    _add_build(commands)
    catalogue = commands.add_parser("catalogue", help="add items that nobody has chosen yet, without training")
    catalogue.add_argument("--bundle", required=True, type=Path, metavar="bundles/NAME")
    catalogue.add_argument(
        "--items", required=True, type=Path, metavar="FILE", help="items as in a data set: .jsonl, .csv or .parquet"
    )
    catalogue.add_argument("--output", required=True, type=Path, metavar="bundles/OTHER")
    for command in (report, onefile, tensorrt):
        command.add_parser(commands)
    return parser


def _add_build(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    build = commands.add_parser("build", help="export, quantise, measure, choose, and seal a bundle")
    build.add_argument("--run", required=True, type=Path, metavar="runs/NAME")
    build.add_argument("--output", required=True, type=Path, metavar="bundles/NAME")
    precisions = ", ".join(precision.value for precision in Precision)
    build.add_argument(
        "--engines",
        default="",
        metavar="NAME,…",
        help=f"encoder engines: {precisions}; with a student's name before them, such as layers-2-int8, and 'trimmed-' before "
        "that for a smaller vocabulary (default: fp32,int8, or what the target is chosen from)",
    )
    build.add_argument("--target", choices=[one.value for one in Target], help="measure every engine that suits, keep the best")
    build.add_argument("--objective", choices=[one.value for one in Objective], default=BuildSettings.objective.value)
    build.add_argument(
        "--max-loss", type=float, default=100 * Budgets.ndcg_loss, metavar="PERCENT", help="of NDCG@10 (default: %(default)g)"
    )
    build.add_argument(
        "--max-mb",
        type=float,
        default=BuildSettings.max_bytes / 1e6,
        help="of an edge bundle, spelling apart (default: %(default)g)",
    )
    build.add_argument(
        "--allow-batch-variant", action="store_true", help="for cpu: also engines whose answers depend on the texts beside them"
    )
    build.add_argument(
        "--without", default="", metavar="PART,…", help=f"leave out, though the run has it: {', '.join(PARTS)} (default: none)"
    )
    build.add_argument("--rules", type=Path, metavar="FILE", help="rules and a blocklist (JSON) for every request")


if __name__ == "__main__":
    sys.exit(main())
