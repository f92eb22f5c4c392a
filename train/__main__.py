"""python -m train: fit, distil, matcher, heads, evaluate, compare."""

from __future__ import annotations

import argparse
import dataclasses
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

import transformers
from rich.logging import RichHandler

from train.baselines import BASELINES
from train.command import run_command
from train.compare import COMPARED, compare
from train.data import SPLITS, TEST
from train.evaluate import DEFAULT_BASELINES, evaluate
from train.fit import fit
from train.fit_options import add_options, chosen
from train.heads import heads_table, train_heads
from train.matcher import MatcherSettings, fit_matcher
from train.matcher.report import matcher_table
from train.precision import Precision
from train.progress import console, say, show
from train.queries import KINDS
from train.rankers import FUSED
from train.report import AS_WRITTEN, comparison_table, kinds_table, main_table
from train.run import METRICS_FILE, open_run
from train.settings import PRESETS, Preset
from train.students import distil
from train.students.contract import DEFAULTS


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", handlers=[RichHandler(console=console, show_path=False)])
    transformers.logging.set_verbosity_error()
    given = _parser().parse_args(arguments)
    commands = {"fit": _fit, "distil": _distil, "matcher": _matcher, "heads": _heads, "evaluate": _evaluate, "compare": _compare}
    command = commands[given.command]
    return run_command(lambda: command(given), interrupted="interrupted; the same command continues")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m train", description="Fine-tune a BERT recommender, and measure it.")
    commands = parser.add_subparsers(dest="command", required=True)
    fit_parser = commands.add_parser("fit", help="train a recommender into a run folder")
    fit_parser.add_argument("--data", required=True, metavar="DIR|clothing|movielens|apps", help="a folder, or a known data set")
    fit_parser.add_argument("--preset", choices=[preset.value for preset in Preset], default=Preset.QUICK.value)
    fit_parser.add_argument("--seed", type=int, default=0)
    fit_parser.add_argument("--output", required=True, type=Path, metavar="runs/NAME")
    fit_parser.add_argument("--max-minutes", type=float, help="stop training after so long (quick: 5)")
    fit_parser.add_argument("--backbone", help="a BERT by name or folder, as transformers loads it")
    add_options(fit_parser)
    distil_parser = commands.add_parser("distil", help="train a smaller network that imitates a run's encoder")
    distil_parser.add_argument("--run", required=True, type=Path, metavar="runs/NAME")
    distil_parser.add_argument(
        "--student", required=True, metavar="static|layers-N|pruned-P", help="N layers kept, P percent removed"
    )
    distil_parser.add_argument("--epochs", type=int, help="passes over the texts")
    distil_parser.add_argument("--seed", type=int, default=0)
    distil_parser.add_argument("--max-minutes", type=float, help="stop training after so long")
    matcher_parser = commands.add_parser("matcher", help="train a cross-encoder that says whether an item fits a text")
    matcher_parser.add_argument("--run", required=True, type=Path, metavar="runs/NAME")
    matcher_parser.add_argument("--epochs", type=int, help="passes over the texts")
    matcher_parser.add_argument("--seed", type=int, default=0)
    matcher_parser.add_argument("--precision", choices=[one.value for one in Precision], help="of the matrix products (auto)")
    matcher_parser.add_argument("--max-minutes", type=float, help="stop training after so long")
    heads_parser = commands.add_parser("heads", help="train sentiment and topic heads on a run's frozen encoder")
    heads_parser.add_argument("--run", required=True, type=Path, metavar="runs/NAME")
    heads_parser.add_argument("--seed", type=int, default=0)
    evaluate_parser = commands.add_parser("evaluate", help="measure a run on held-out texts, beside the baselines")
    evaluate_parser.add_argument("--run", required=True, type=Path, metavar="runs/NAME")
    evaluate_parser.add_argument("--split", choices=SPLITS, default=TEST)
    evaluate_parser.add_argument(
        "--queries", type=_names, default=[AS_WRITTEN], metavar="all|NAME,…", help=f"ways of asking: {', '.join(KINDS)}"
    )
    evaluate_parser.add_argument(
        "--baselines",
        type=_names,
        default=list(DEFAULT_BASELINES),
        metavar="all|none|NAME,…",
        help=f"{', '.join(BASELINES)} (default: {', '.join(DEFAULT_BASELINES)})",
    )
    evaluate_parser.add_argument("--attribute", help="what tells classes apart for class@1 (default: class, category or genre)")
    compare_parser = commands.add_parser("compare", help="say which of two evaluated runs ranks better, and how surely")
    compare_parser.add_argument("--run", required=True, type=Path, metavar="runs/NAME")
    compare_parser.add_argument("--with", required=True, type=Path, metavar="runs/OTHER", dest="other")
    compare_parser.add_argument("--metric", choices=COMPARED, default="ndcg_at_10")
    compare_parser.add_argument("--ranker", default=FUSED, help=f"a ranker of both runs (default: {FUSED})")
    return parser


def _names(joined: str) -> list[str]:
    return [name.strip() for name in joined.split(",") if name.strip()]


def _fit(given: argparse.Namespace) -> int:
    wanted = {"seed": given.seed, "max_minutes": given.max_minutes, "backbone": given.backbone}
    settings = dataclasses.replace(
        PRESETS[Preset(given.preset)], **{name: value for name, value in wanted.items() if value is not None}
    )
    fit(given.data, dataclasses.replace(settings, **chosen(given)), given.output)
    return 0


def _distil(given: argparse.Namespace) -> int:
    wanted = {"name": given.student, "seed": given.seed, "epochs": given.epochs, "max_minutes": given.max_minutes}
    default = DEFAULTS.get(given.student.partition("-")[0], DEFAULTS["layers"])
    distil(
        open_run(given.run), dataclasses.replace(default, **{name: value for name, value in wanted.items() if value is not None})
    )
    return 0


def _matcher(given: argparse.Namespace) -> int:
    wanted = {name: getattr(given, name) for name in ("seed", "epochs", "precision", "max_minutes")}
    settings = MatcherSettings(**{name: value for name, value in wanted.items() if value is not None})
    record = fit_matcher(open_run(given.run), settings)
    show(matcher_table(record))
    return 0


def _heads(given: argparse.Namespace) -> int:
    trained = train_heads(open_run(given.run), seed=given.seed)
    show(heads_table(trained))
    say(f"written to {trained.folder}")
    return 0


def _evaluate(given: argparse.Namespace) -> int:
    run = open_run(given.run)
    evaluation = evaluate(run, given.split, queries=given.queries, baselines=given.baselines, attribute=given.attribute)
    show(main_table(evaluation))
    if len(evaluation.kinds) > 1:
        show(kinds_table(evaluation))
    say(f"written to {run.folder / METRICS_FILE}")
    return 0


def _compare(given: argparse.Namespace) -> int:
    comparisons = compare(open_run(given.run), open_run(given.other), metric=given.metric, ranker=given.ranker)
    show(comparison_table(comparisons, given.metric, given.ranker))
    return 0


if __name__ == "__main__":
    sys.exit(main())
