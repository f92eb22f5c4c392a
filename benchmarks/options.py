"""What the commands that write a benchmarks.record.Record have in common: their options, and how those are read."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from benchmarks.latency import held_out_reviews, read_texts
from bertrec.errors import InvalidInput

Value = TypeVar("Value", int, float, str)


def add_common(parser: argparse.ArgumentParser, name: str, *, run: Callable[[argparse.Namespace], int]) -> None:
    """What every such command takes: a bundle, texts, and where its JSON goes."""
    parser.add_argument("--bundle", required=True, type=Path, metavar="bundles/NAME")
    parser.add_argument("--output", type=Path, default=Path(f"results/{name}.json"))
    parser.add_argument("--texts", type=Path, help="one text a line; otherwise held-out reviews of the bundled data")
    parser.set_defaults(run_recorded=run)


def texts_of(given: argparse.Namespace) -> list[str]:
    """Those of --texts, or the held-out reviews."""
    return read_texts(given.texts) if given.texts else held_out_reviews()


def joined(given: tuple[Any, ...]) -> str:
    """The values with commas between, as options take them."""
    return ",".join(str(value) for value in given)


def values(given: str, kind: type[Value]) -> tuple[Value, ...]:
    """What stands between the commas. Raises InvalidInput for what is not of that kind."""
    try:
        return tuple(kind(value.strip()) for value in given.split(",") if value.strip())
    except ValueError:
        raise InvalidInput(f"{given!r} is not a list of {kind.__name__}; accepted are such values with commas between") from None
