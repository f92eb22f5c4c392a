"""``python -m export.tensorrt``: the command ``python -m export tensorrt``, which loads here without torch."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence

from rich.logging import RichHandler

from export.tensorrt.command import add_arguments, run
from train.command import run_command
from train.progress import console


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s", handlers=[RichHandler(console=console, show_path=False)])
    parser = argparse.ArgumentParser(prog="python -m export.tensorrt", description="Compile engines of a bundle with TensorRT.")
    add_arguments(parser)
    given = parser.parse_args(arguments)
    return run_command(lambda: run(given), interrupted="interrupted; nothing was written")


if __name__ == "__main__":
    sys.exit(main())
