"""Progress for work that takes over a second: a bar on a terminal, a line every ten seconds in a log."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

SECONDS_BETWEEN_LINES = 10.0
console = Console(stderr=True, highlight=False)


class Advance(Protocol):
    """Tells that ``steps`` more are done, and optionally something to show beside the bar, such as the loss."""

    def __call__(self, steps: int = 1, note: str = "") -> None:
        """Advance by ``steps``."""


@contextmanager
def progress(label: str, total: int) -> Iterator[Advance]:
    """Show the progress of ``total`` steps; the block calls what it is given after each."""
    if not console.is_terminal or console.quiet:
        yield _Lines(label, total)
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, TextColumn("{task.fields[note]}"), console=console) as bar:
        task = bar.add_task(label, total=total, note="")

        def advance(steps: int = 1, note: str = "") -> None:
            bar.update(task, advance=steps, note=note)

        yield advance


def say(message: str) -> None:
    """One line about what happens, beside the bars."""
    console.print(message, markup=False, soft_wrap=True)


def show(table: Table) -> None:
    """A result, on stdout: as wide as the terminal, and 120 columns in a log."""
    Console(width=None if sys.stdout.isatty() else 120).print(table)


class _Lines:
    """Progress for logs."""

    def __init__(self, label: str, total: int) -> None:
        self._label, self._total, self._done = label, total, 0
        self._started = self._said = time.monotonic()

    def __call__(self, steps: int = 1, note: str = "") -> None:
        self._done += steps
        now = time.monotonic()
        finished = self._done >= self._total and now - self._started > 1.0
        if not console.quiet and (finished or now - self._said >= SECONDS_BETWEEN_LINES):
            self._said = now
            elapsed = now - self._started
            left = elapsed / self._done * (self._total - self._done)
            print(  # noqa: T201  # the stage's own output, as the bar is
                f"{self._label}: {self._done}/{self._total}, {elapsed:.0f} s, {left:.0f} s left {note}".rstrip(),
                file=sys.stderr,
                flush=True,
            )
