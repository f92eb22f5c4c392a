"""python -m train: fit and evaluate."""

from __future__ import annotations

import argparse
import dataclasses
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

import transformers
from rich.logging import RichHandler
from rich.table import Table

from train.command import run_command
from train.data import SPLITS, TEST
from train.evaluate import Evaluation, evaluate
from train.fit import fit
from train.progress import console, say, show
from train.run import METRICS_FILE, open_run
from train.settings import PRESETS, Preset


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", handlers=[RichHandler(console=console, show_path=False)])
    transformers.logging.set_verbosity_error()
    given = _parser().parse_args(arguments)
    command = {"fit": _fit, "evaluate": _evaluate}[given.command]
    return run_command(lambda: command(given), interrupted="interrupted; the same command continues")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m train", description="Fine-tune a BERT recommender, and measure it.")
    commands = parser.add_subparsers(dest="command", required=True)
    fit_parser = commands.add_parser("fit", help="train a recommender into a run folder")
    fit_parser.add_argument("--data", required=True, metavar="DIR|clothing", help="a folder of your own, or the bundled reviews")
    fit_parser.add_argument("--preset", choices=[preset.value for preset in Preset], default=Preset.QUICK.value)
    fit_parser.add_argument("--seed", type=int, default=0)
    fit_parser.add_argument("--output", required=True, type=Path, metavar="runs/NAME")
    fit_parser.add_argument("--max-minutes", type=float, help="stop training after so long (quick: 5)")
    fit_parser.add_argument("--backbone", help="a BERT by name or folder, as transformers loads it")
    evaluate_parser = commands.add_parser("evaluate", help="measure a run on held-out texts, beside the baselines")
    evaluate_parser.add_argument("--run", required=True, type=Path, metavar="runs/NAME")
    evaluate_parser.add_argument("--split", choices=SPLITS, default=TEST)
    return parser


def _fit(given: argparse.Namespace) -> int:
    wanted = {"seed": given.seed, "max_minutes": given.max_minutes, "backbone": given.backbone}
    settings = dataclasses.replace(
        PRESETS[Preset(given.preset)], **{name: value for name, value in wanted.items() if value is not None}
    )
    fit(given.data, settings, given.output)
    return 0


def _evaluate(given: argparse.Namespace) -> int:
    run = open_run(given.run)
    evaluation = evaluate(run, given.split)
    show(_table(evaluation))
    say(f"written to {run.folder / METRICS_FILE}")
    return 0


def _table(evaluation: Evaluation) -> Table:
    queries = next(iter(evaluation.rankers.values())).queries
    table = Table(title=f"{evaluation.split}: {queries:,} texts, {evaluation.items:,} items ranked")
    columns = {
        "R@1": "recall_at_1",
        "R@10": "recall_at_10",
        "NDCG@10": "ndcg_at_10",
        "MRR@10": "mrr_at_10",
        "coverage@10": "coverage_at_10",
        "diversity@10": "diversity_at_10",
    }
    table.add_column("ranker")
    for title in columns:
        table.add_column(title, justify="right")
    for name, quality in evaluation.rankers.items():
        table.add_row(name, *[f"{getattr(quality, column):.3f}" for column in columns.values()])
    return table


if __name__ == "__main__":
    sys.exit(main())
