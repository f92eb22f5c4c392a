"""python -m export: build a bundle from a run."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.logging import RichHandler
from rich.table import Table

from bertrec.bundle import Bundle
from bertrec.errors import InvalidInput
from bertrec.tensors import ENCODER
from export.build import DEFAULT_ENGINES, EngineName, build_bundle
from export.catalogue import extend_catalogue
from train.command import run_command
from train.progress import console, say, show
from train.run import open_run


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    logging.getLogger("root").addFilter(lambda record: "pre-processing before quantization" not in record.getMessage())
    logging.basicConfig(level=logging.WARNING, format="%(message)s", handlers=[RichHandler(console=console, show_path=False)])
    given = _parser().parse_args(arguments)
    command = {"build": _build, "catalogue": _catalogue}[given.command]
    return run_command(lambda: command(given), interrupted="interrupted; nothing was written")


def _build(given: argparse.Namespace) -> int:
    bundle = build_bundle(open_run(given.run), given.output, _engines(given.engines), rules=given.rules)
    show(_table(bundle))
    for record in bundle.manifest.engines:
        if record.why:
            say(f"{record.name} {record.verdict}: {record.why}")
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
    build = commands.add_parser("build", help="export, quantise, measure, and seal a bundle")
    build.add_argument("--run", required=True, type=Path, metavar="runs/NAME")
    build.add_argument("--output", required=True, type=Path, metavar="bundles/NAME")
    default = ",".join(engine.value for engine in DEFAULT_ENGINES)
    build.add_argument(
        "--engines", default=default, help="encoder engines: fp32, int8, plain (for TensorRT); default %(default)s"
    )
    build.add_argument("--rules", type=Path, metavar="FILE", help="rules and a blocklist (JSON) for every request")
    catalogue = commands.add_parser("catalogue", help="add items that nobody has chosen yet, without training")
    catalogue.add_argument("--bundle", required=True, type=Path, metavar="bundles/NAME")
    catalogue.add_argument(
        "--items", required=True, type=Path, metavar="FILE", help="items as in a data set: .jsonl, .csv or .parquet"
    )
    catalogue.add_argument("--output", required=True, type=Path, metavar="bundles/OTHER")
    return parser


def _engines(names: str) -> list[EngineName]:
    known = [engine.value for engine in EngineName]
    if unknown := [name for name in names.split(",") if name not in known]:
        raise InvalidInput(f"engine {unknown[0]!r} is unknown; accepted are {', '.join(known)}")
    return [EngineName(name) for name in names.split(",")]


def _table(bundle: Bundle) -> Table:
    table = Table(title="encoder engines, measured on held-out texts through the served code")
    for title in ("engine", "MB", "NDCG@10", "R@10", "top-10 overlap", "cosine to torch", "same in any batch", "verdict"):
        table.add_column(title, justify="left" if title in ("engine", "verdict") else "right")
    for record in bundle.manifest.engines:
        if record.model == ENCODER.name:
            table.add_row(
                record.name,
                f"{bundle.manifest.files[record.file].size_bytes / 1e6:.1f}",
                f"{record.quality['ndcg_at_10']:.4f}",
                f"{record.quality['recall_at_10']:.4f}",
                f"{record.parity['top10_overlap']:.3f}",
                f"{record.parity['cosine_to_torch_mean']:.5f}",
                "yes" if record.batch_invariant else f"no, ±{record.parity['batch_difference_max']:.3f}",
                record.verdict,
            )
    return table


if __name__ == "__main__":
    sys.exit(main())
