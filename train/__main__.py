"""python -m train: fit, tune, distil, matcher, heads, evaluate, compare, fairness, card."""

from __future__ import annotations

import argparse
import dataclasses
import logging
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import transformers
from rich.logging import RichHandler

from bertrec.errors import InvalidInput
from train.adaptation.kinds import Adaptation
from train.adapters import Tuning
from train.backbones import FAMILIES
from train.baselines import BASELINES
from train.card import card
from train.command import run_command
from train.compare import COMPARED, compare
from train.data import SPLITS, TEST
from train.evaluate import DEFAULT_BASELINES, evaluate
from train.fairness import FAIRNESS_FILE, fairness, fairness_tables, write_fairness
from train.fit import fit
from train.fit_options import add_options, chosen
from train.heads import heads_table, train_heads
from train.matcher import MatcherSettings, fit_matcher
from train.matcher.report import matcher_table
from train.multi_task import HeadsKind
from train.precision import Precision
from train.progress import console, say, show
from train.queries import KINDS
from train.rankers import FUSED
from train.report import AS_WRITTEN, comparison_table, kinds_table, main_table, read_evaluation
from train.run import METRICS_FILE, open_run
from train.settings import PRESETS, Preset
from train.students import distil
from train.students.contract import DEFAULTS
from train.team import Team, team_of_torchrun
from train.threshold import THRESHOLD_FILE, find_threshold
from train.threshold_page import threshold_page, threshold_table
from train.tracking import Tracking
from train.tune import STUDY_FILE, TuneSettings, tune, tuned_table
from train.tune_page import tune_page

Commands = Any
"""argparse's action of subcommands, whose type is private."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", handlers=[RichHandler(console=console, show_path=False)])
    transformers.logging.set_verbosity_error()
    given = _parser().parse_args(arguments)
    with team_of_torchrun() as team:
        console.quiet = not team.leads
        return _run(given, team)


def _run(given: argparse.Namespace, team: Team) -> int:
    commands: dict[str, Callable[[argparse.Namespace], int]] = {
        "fit": partial(_fit, team=team),
        "distil": _distil,
        "matcher": _matcher,
        "heads": _heads,
        "evaluate": _evaluate,
        "threshold": _threshold,
        "compare": _compare,
        "tune": _tune,
        "fairness": _fairness,
        "card": _card,
    }
    command = commands[given.command]
    if team.size > 1 and given.command != "fit":
        command = _refuse
    return run_command(lambda: command(given), interrupted="interrupted; the same command continues")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m train", description="Fine-tune a BERT recommender, and measure it.")
    commands = parser.add_subparsers(dest="command", required=True)
    fit_parser = commands.add_parser("fit", help="train a recommender into a run folder")
    _add_source(fit_parser)
    fit_parser.add_argument("--preset", choices=[preset.value for preset in Preset], default=Preset.QUICK.value)
    fit_parser.add_argument("--seed", type=int, default=0)
    fit_parser.add_argument("--output", required=True, type=Path, metavar="runs/NAME")
    fit_parser.add_argument("--max-minutes", type=float, help="stop training after so long (quick: 5)")
    fit_parser.add_argument("--tuning", choices=[one.value for one in Tuning], help="which weights move (full)")
    fit_parser.add_argument("--rank", type=int, help="of lora and adalora (8)")
    fit_parser.add_argument("--alpha", type=float, help="lora and adalora are scaled by alpha / rank (16)")
    fit_parser.add_argument("--bottleneck", type=int, help="units of the adapter (32)")
    fit_parser.add_argument("--adapt", choices=[one.value for one in Adaptation], help="learn first from texts without labels")
    fit_parser.add_argument("--adapt-epochs", type=int, help="passes of it over the texts (1)")
    fit_parser.add_argument("--adapt-minutes", type=float, help="stop it after so long")
    fit_parser.add_argument("--labels", type=float, metavar="SHARE", help="keep so many of the training texts' items (1)")
    fit_parser.add_argument("--self-train", action="store_true", default=None, help="guess the items of the other texts")
    fit_parser.add_argument("--confidence", type=float, help="of a guess that counts (0.9)")
    add_options(fit_parser)
    fit_parser.add_argument(
        "--track", choices=[one.value for one in Tracking], default=Tracking.TENSORBOARD.value, help="who keeps the curves"
    )
    _add_networks(commands)
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
    _add_threshold(commands)
    _add_tune(commands)
    _add_fairness(commands)
    _add_card(commands)
    return parser


def _add_source(parser: argparse.ArgumentParser) -> None:
    """What fit and tune learn from."""
    parser.add_argument("--data", required=True, metavar="DIR|clothing|movielens|apps|faq", help="a folder, or a known data set")
    parser.add_argument("--backbone", help=f"by name or folder, as transformers loads it: {', '.join(FAMILIES)}")


def _add_threshold(commands: Commands) -> None:
    threshold_parser = commands.add_parser("threshold", help='find below what sureness to say "no good answer"')
    threshold_parser.add_argument("--run", required=True, type=Path, metavar="runs/NAME")
    threshold_parser.add_argument(
        "--unanswerable", required=True, type=Path, metavar="FILE", help="questions without an answer: text and, if wanted, kind"
    )
    threshold_parser.add_argument("--page", type=Path, metavar="FILE.md", help="also write a page")


def _add_tune(commands: Commands) -> None:
    parser = commands.add_parser("tune", help="search over the settings of training; the same command continues")
    _add_source(parser)
    parser.add_argument("--preset", choices=[preset.value for preset in Preset], default=Preset.QUICK.value)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", required=True, type=Path, metavar="runs/tune-NAME")
    parser.add_argument("--trials", type=int, default=20, help="finished trials, those of earlier sittings counted (20)")
    parser.add_argument("--max-minutes-a-trial", type=float, help="stop a trial's training after so long (quick: 5)")
    parser.add_argument("--page", type=Path, metavar="FILE.md", help="also write a page")


def _add_fairness(commands: Commands) -> None:
    parser = commands.add_parser("fairness", help="compare quality and exposure of groups, and count refused harmful requests")
    parser.add_argument("--run", required=True, type=Path, metavar="runs/NAME")
    parser.add_argument("--split", choices=SPLITS, default=TEST)
    parser.add_argument("--attribute", help="what groups the items (default: one that groups the queries too)")
    parser.add_argument("--output", type=Path, metavar="FILE", help=f"default: {FAIRNESS_FILE} in the run")


def _add_card(commands: Commands) -> None:
    parser = commands.add_parser("card", help="write a model card from a run's own records")
    parser.add_argument("--run", required=True, type=Path, metavar="runs/NAME")
    parser.add_argument("--fairness", type=Path, metavar="FILE", help=f"default: {FAIRNESS_FILE} in the run, if it is there")
    parser.add_argument("--output", required=True, type=Path, metavar="FILE.md")


def _add_networks(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """The commands that train a network beside a run's encoder."""
    distil_parser = commands.add_parser("distil", help="train a smaller network that imitates a run's encoder")
    distil_parser.add_argument("--run", required=True, type=Path, metavar="runs/NAME")
    distil_parser.add_argument(
        "--student",
        required=True,
        metavar="static|layers-N|pruned-P|layers-N-pruned-P|…-with-static|matched",
        help="N layers kept, P percent of the heads and units removed; with the static student's vectors added",
    )
    distil_parser.add_argument("--margins", type=float, metavar="WEIGHT", help="learn the matcher's margins, too (matched: 0.1)")
    distil_parser.add_argument("--texts", type=Path, metavar="FILE", help="texts without an item to learn from too, one a line")
    distil_parser.add_argument("--epochs", type=int, help="passes over the texts")
    distil_parser.add_argument("--seed", type=int, default=0)
    distil_parser.add_argument("--max-minutes", type=float, help="stop training after so long")
    matcher_parser = commands.add_parser("matcher", help="train a cross-encoder that says whether an item fits a text")
    matcher_parser.add_argument("--run", required=True, type=Path, metavar="runs/NAME")
    matcher_parser.add_argument("--epochs", type=int, help="passes over the texts")
    matcher_parser.add_argument("--seed", type=int, default=0)
    matcher_parser.add_argument("--precision", choices=[one.value for one in Precision], help="of the matrix products (auto)")
    matcher_parser.add_argument("--max-minutes", type=float, help="stop training after so long")
    heads_parser = commands.add_parser("heads", help="train sentiment and topic heads on a run's encoder")
    heads_parser.add_argument("--run", required=True, type=Path, metavar="runs/NAME")
    heads_parser.add_argument("--seed", type=int, default=0)
    heads_parser.add_argument(
        "--heads",
        choices=[one.value for one in HeadsKind],
        default=HeadsKind.FROZEN.value,
        help="learn them now, or take those of fit --heads multi-task (frozen)",
    )


def _names(joined: str) -> list[str]:
    return [name.strip() for name in joined.split(",") if name.strip()]


def _refuse(given: argparse.Namespace) -> int:
    raise InvalidInput(f"{given.command} runs in one process; start it without torchrun. What several processes speed up is fit")


def _fit(given: argparse.Namespace, team: Team) -> int:
    names = ("seed", "max_minutes", "backbone", "rank", "alpha", "bottleneck", "adapt_epochs", "adapt_minutes", "labels")
    wanted = {name: getattr(given, name) for name in (*names, "self_train", "confidence")}
    wanted["tuning"] = Tuning(given.tuning) if given.tuning else None
    wanted["adapt"] = Adaptation(given.adapt) if given.adapt else None
    settings = dataclasses.replace(
        PRESETS[Preset(given.preset)], **{name: value for name, value in wanted.items() if value is not None}
    )
    fit(given.data, dataclasses.replace(settings, **chosen(given)), given.output, track=Tracking(given.track), team=team)
    return 0


def _tune(given: argparse.Namespace) -> int:
    wanted = {"seed": given.seed, "max_minutes": given.max_minutes_a_trial, "backbone": given.backbone}
    base = dataclasses.replace(
        PRESETS[Preset(given.preset)], **{name: value for name, value in wanted.items() if value is not None}
    )
    settings = TuneSettings(base, given.trials)
    tuned = tune(given.data, settings, given.output)
    show(tuned_table(tuned))
    say(f"written to {given.output / STUDY_FILE}")
    if given.page:
        given.page.write_text(tune_page(given.data, settings, tuned, given.output), encoding="utf-8")
        say(f"written to {given.page}")
    return 0


def _distil(given: argparse.Namespace) -> int:
    wanted = {"name": given.student, "seed": given.seed, "epochs": given.epochs, "max_minutes": given.max_minutes}
    wanted["margin_weight"] = given.margins
    default = DEFAULTS.get(given.student.partition("-")[0], DEFAULTS["layers"])
    settings = dataclasses.replace(default, **{name: value for name, value in wanted.items() if value is not None})
    distil(open_run(given.run), settings, texts=given.texts)
    return 0


def _matcher(given: argparse.Namespace) -> int:
    wanted = {name: getattr(given, name) for name in ("seed", "epochs", "precision", "max_minutes")}
    settings = MatcherSettings(**{name: value for name, value in wanted.items() if value is not None})
    record = fit_matcher(open_run(given.run), settings)
    show(matcher_table(record))
    return 0


def _heads(given: argparse.Namespace) -> int:
    trained = train_heads(open_run(given.run), seed=given.seed, kind=HeadsKind(given.heads))
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


def _threshold(given: argparse.Namespace) -> int:
    run = open_run(given.run)
    found = find_threshold(run, given.unanswerable)
    show(threshold_table(found))
    say(f"written to {run.folder / THRESHOLD_FILE}")
    if given.page:
        given.page.write_text(threshold_page(run, found, given.unanswerable, read_evaluation(run)), encoding="utf-8")
        say(f"written to {given.page}")
    return 0


def _compare(given: argparse.Namespace) -> int:
    comparisons = compare(open_run(given.run), open_run(given.other), metric=given.metric, ranker=given.ranker)
    show(comparison_table(comparisons, given.metric, given.ranker))
    return 0


def _fairness(given: argparse.Namespace) -> int:
    run = open_run(given.run)
    found = fairness(run, given.split, attribute=given.attribute)
    path = given.output or run.folder / FAIRNESS_FILE
    write_fairness(found, path)
    for table in fairness_tables(found):
        show(table)
    say(f"written to {path}")
    return 0


def _card(given: argparse.Namespace) -> int:
    given.output.write_text(card(open_run(given.run), fairness=given.fairness), encoding="utf-8")
    say(f"written to {given.output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
