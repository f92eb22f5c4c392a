"""``python -m benchmarks all``: the commands that need nothing but a bundle, one after the other, each in a process of its own.

Each has a share of half an hour. A command that its share does not suffice for is interrupted as by Ctrl-C: its file then holds
what it found, and says that it is not complete.
"""

from __future__ import annotations

import argparse
import json
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

from benchmarks.children import child, interrupt
from bertrec.bundle import Bundle
from bertrec.errors import InvalidInput
from train.command import INTERRUPTED
from train.progress import say, show
from train.records import source_changes, source_commit

STOPPED = (INTERRUPTED, -signal.SIGINT)
"""Exit statuses of an interrupted command. One that somebody else killed (-SIGKILL, as where memory runs out) has failed."""
FINISHED, KEPT, SHORT, FAILED = "measured", "had been measured", "not complete", "failed"


@dataclass(frozen=True)
class Share:
    """One command of the run. minutes: what it gets at most. arguments: chosen so that two engines on two cores keep within it.

    short: arguments that only show that the command works, in seconds.
    """

    name: str
    minutes: float
    arguments: tuple[str, ...]
    short: tuple[str, ...]

    def command(self, bundle: Path, output: Path, *, short: bool) -> list[str]:
        """What follows ``python -m benchmarks``."""
        chosen = self.short if short else self.arguments
        return [self.name, "--bundle", str(bundle), "--output", str(output / f"{self.name}.json"), *chosen]


SHARES = (
    Share("roofline", 1.5, (), ("--repeats", "2", "--side", "256")),
    Share("latency", 3.5, ("--grid",), ("--grid", "--rounds", "1")),
    Share("throughput", 3.0, (), ("--seconds", "0.5", "--rounds", "1")),
    Share("edge", 1.0, (), ("--repetitions", "2", "--queries", "20")),
    Share("startup", 2.0, ("--rounds", "3"), ("--rounds", "1", "--ways", "edge")),
    Share("scale", 7.0, (), ("--sizes", "1000,5000", "--queries", "20", "--rounds", "1", "--texts-used", "300")),
    Share(
        "load",
        12.0,
        ("--servers", "triton,triton-cached,edge", "--seconds", "6", "--warm-up-s", "1"),
        ("--servers", "edge", "--clients", "1,2", "--rates", "5", "--seconds", "0.5", "--warm-up-s", "0.1"),
    ),
)
"""In the order they are run, the quickest to say something first. Their minutes add up to 30."""


@dataclass(frozen=True)
class Ran:
    """What became of one command."""

    share: Share
    verdict: str
    minutes: float


def add_all(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command's options."""
    names = ", ".join(f"{share.name} {share.minutes:g}" for share in SHARES)
    everything = commands.add_parser("all", help=f"one after the other, within minutes: {names}")
    everything.add_argument("--bundle", required=True, type=Path, metavar="bundles/NAME")
    everything.add_argument("--output", type=Path, default=Path("results"), metavar="DIR")
    everything.add_argument("--only", default="", metavar="NAME,…", help="default: all of them")
    everything.add_argument("--again", action="store_true", help="measure also what is finished")
    everything.add_argument("--short", action="store_true", help="seconds instead of minutes: the figures are worth nothing")
    everything.set_defaults(run_recorded=_all)


def _all(given: argparse.Namespace) -> int:
    """Returns 1 where a command failed or did not finish within its share."""
    ran: list[Ran] = []
    try:
        run_all(given.bundle, given.output, ran, only=_chosen(given.only), again=given.again, short=given.short)
    finally:
        show(ran_table(ran))
    return int(any(one.verdict in (SHORT, FAILED) for one in ran))


def run_all(
    bundle: Path, output: Path, ran: list[Ran], *, only: Sequence[Share] = SHARES, again: bool = False, short: bool = False
) -> None:
    """Run the commands of ``only``; ``ran`` gets what became of each. Raises InvalidBundle, and KeyboardInterrupt after Ctrl-C.

    Skipped is what ``output`` holds complete, of the same bundle, code and arguments.
    """
    fingerprint = Bundle.open(bundle).fingerprint
    for number, share in enumerate(only, 1):
        command = share.command(bundle, output, short=short)
        if not again and is_finished(output / f"{share.name}.json", command, fingerprint):
            ran.append(Ran(share, KEPT, 0.0))
            continue
        say(f"{number} of {len(only)}, {share.minutes:g} minutes at most: python -m benchmarks {shlex.join(command)}")
        began, status = time.monotonic(), INTERRUPTED
        try:
            status = _run(command, share.minutes * 60.0)
        finally:
            verdict = FINISHED if status == 0 else SHORT if status in STOPPED else FAILED
            ran.append(Ran(share, verdict, (time.monotonic() - began) / 60.0))


def is_finished(file: Path, command: Sequence[str], fingerprint: str) -> bool:
    """Whether ``file`` is the whole result of this command, of this bundle and of the code as it is, committed or not."""
    try:
        content: Mapping[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    origin = content.get("provenance", {})
    return (
        bool(content.get("complete"))
        and content.get("bundle") == fingerprint
        and origin.get("commit") == source_commit()
        and origin.get("uncommitted", "") == source_changes()
        and origin.get("command") == " ".join(["python", "-m", "benchmarks", *command])
    )


def _run(command: Sequence[str], limit_s: float) -> int:
    """The exit status of a command that is interrupted after ``limit_s``, and when this process is."""
    called = [sys.executable, "-m", "benchmarks", *command]
    with child(called) as process:
        try:
            return process.wait(limit_s)
        except subprocess.TimeoutExpired:
            say(f"{command[0]} has used up its share of {limit_s / 60.0:g} minutes, and is interrupted")
            return interrupt(process)


def _chosen(names: str) -> list[Share]:
    """The shares so named, all for none. Raises InvalidInput for a name that is none of theirs."""
    wanted = [name.strip() for name in names.split(",") if name.strip()]
    known = [share.name for share in SHARES]
    if unknown := set(wanted) - set(known):
        raise InvalidInput(f"--only names {', '.join(sorted(unknown))}; accepted are {', '.join(known)}")
    return [share for share in SHARES if not wanted or share.name in wanted]


def ran_table(ran: Sequence[Ran]) -> Table:
    """One line for each command."""
    table = Table(title="what was run; the same command continues", title_justify="left")
    for title in ("command", "verdict", "minutes", "of at most"):
        table.add_column(title, justify="left" if title in ("command", "verdict") else "right")
    for one in ran:
        table.add_row(one.share.name, one.verdict, f"{one.minutes:.1f}", f"{one.share.minutes:g}")
    table.add_section()
    table.add_row("in all", "", f"{sum(one.minutes for one in ran):.1f}", f"{sum(share.minutes for share in SHARES):g}")
    return table
