"""``python -m export tensorrt``, and ``python -m export.tensorrt`` where there is no torch, as in NVIDIA's containers."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path
from typing import TYPE_CHECKING

from bertrec.bundle import Bundle, Runtime
from export.tensorrt.bundles import compile_bundle
from export.tensorrt.compiler import installed_runtime
from export.tensorrt.settings import COMPILERS, RTX_CAPABILITIES, BuildSettings, HardwareCompatibility
from export.tensorrt.stamps import container_tag
from train.progress import say

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]

AUTO = "auto"
MEBIBYTE = 1 << 20


def add_parser(commands: Commands) -> None:
    """Add the command ``tensorrt``."""
    parser = commands.add_parser("tensorrt", help="compile engines of a bundle with TensorRT, or ahead of time for RTX GPUs")
    add_arguments(parser)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the command takes."""
    parser.add_argument("--bundle", required=True, type=Path, metavar="bundles/NAME")
    parser.add_argument("--output", required=True, type=Path, metavar="bundles/OTHER")
    parser.add_argument(
        "--engine", required=True, action="append", metavar="NAME", help="an encoder engine to compile, such as plain; repeatable"
    )
    runtimes = [AUTO, *(runtime.value for runtime in COMPILERS)]
    parser.add_argument("--runtime", default=AUTO, choices=runtimes, help="auto: what is installed, tensorrt first")
    parser.add_argument(
        "--target-sm", default="", metavar="86,89", help=f"tensorrt_rtx: for these GPUs; of {', '.join(RTX_CAPABILITIES)}"
    )
    parser.add_argument(
        "--hardware-compatibility",
        default=HardwareCompatibility.NONE.value,
        choices=[level.value for level in HardwareCompatibility],
        help="tensorrt: on which other GPUs it shall run (default: %(default)s)",
    )
    parser.add_argument("--version-compatible", action="store_true", help="tensorrt: loads in newer releases of the same major")
    parser.add_argument("--workspace-mib", default=1024, type=int, metavar="N", help="of the GPU's memory (default: %(default)s)")
    parser.add_argument("--timing-cache", type=Path, metavar="FILE", help="tensorrt: keeps kernels' times for the next build")
    parser.add_argument("--tf32", action="store_true", help="faster, less exact products of the encoder's fp32 numbers")
    parser.add_argument("--container", metavar="TAG", help="NVIDIA's container, such as 24.10 (default: the one it runs in)")


def run(given: argparse.Namespace) -> int:
    """Compile what is asked for; returns the exit status."""
    logging.getLogger("export.tensorrt").setLevel(logging.INFO)  # progress
    settings = BuildSettings(
        installed_runtime() if given.runtime == AUTO else Runtime(given.runtime),
        target_sm=tuple(sm for sm in given.target_sm.split(",") if sm),
        hardware_compatibility=HardwareCompatibility(given.hardware_compatibility),
        version_compatible=given.version_compatible,
        workspace_bytes=given.workspace_mib * MEBIBYTE,
        timing_cache=given.timing_cache,
        tf32=given.tf32,
        container=container_tag() if given.container is None else given.container,
    )
    bundle = compile_bundle(Bundle.open(given.bundle), given.output, engines=given.engine, settings=settings)
    for record in bundle.manifest.engines:
        if record.name.endswith(f".{settings.suffix}"):
            say(f"{record.file}: {record.size_bytes / 1e6:.1f} MB, {record.verdict}: {record.why}")
    say(f"written to {bundle.folder}, fingerprint {bundle.fingerprint}")
    return 0
