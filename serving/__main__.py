"""``python -m serving``: assemble a Triton repository, or bring one up on this machine until Ctrl-C."""

from __future__ import annotations

import argparse
import logging
import shlex
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from bertrec.errors import BertrecError
from serving.assemble import Target, assemble, describe
from serving.triton import LOOPBACK, TritonServer

BAD_USAGE = 2  # argparse's own code for it
SERVER_DIED = 1
POLL_S = 0.2
EXAMPLE_TEXT = "a warm coat that is not bulky"


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit code: 0, 1 if the server died, 2 if what was asked cannot be done."""
    given = _parser().parse_args(arguments)
    logging.basicConfig(format="%(message)s")
    try:
        return _assemble(given) if given.command == "assemble" else _up(given)
    except (BertrecError, OSError) as error:  # OSError: a folder that cannot be written, a full disk
        print(f"error: {error}", file=sys.stderr)
        return BAD_USAGE


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m serving", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)

    assembling = commands.add_parser("assemble", help="write the folder that Triton serves, from a bundle")
    assembling.add_argument("--target", required=True, choices=[target.value for target in Target])
    assembling.add_argument("--output", required=True, type=Path, metavar="DIR")
    assembling.add_argument("--version", default=1, type=int, metavar="N", help="the models' version (default: 1)")

    up = commands.add_parser("up", help="serve a bundle with the pip-installed Triton until Ctrl-C")
    for name, port in (("grpc", 8001), ("http", 8000), ("metrics", 8002)):
        up.add_argument(f"--{name}-port", default=port, type=int, metavar="N", help=f"default: {port}; 0: a free one")
    up.add_argument("--address", default=LOOPBACK, help=f"default: {LOOPBACK}, this machine alone; 0.0.0.0: every network")
    up.add_argument("--log", type=Path, metavar="FILE", help="where Triton's own log goes")

    for command in (assembling, up):
        command.add_argument("--bundle", required=True, type=Path, metavar="BUNDLE")
        command.add_argument("--engine", metavar="NAME", help="the bundle's encoder engine (default: the export's choice)")
    return parser


def _assemble(given: argparse.Namespace) -> int:
    logging.getLogger("serving.assemble").setLevel(logging.INFO)  # tells whether the folder was written or is reused
    output = assemble(given.bundle, given.output, target=Target(given.target), engine=given.engine, version=given.version)
    print(f"To serve it, in {output}:")
    for command in describe(output).commands.values():
        print(f"    {command}")
    return 0


def _up(given: argparse.Namespace) -> int:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)
    print(f"starting Triton on {given.bundle} …", flush=True)
    try:
        with tempfile.TemporaryDirectory(prefix="bertrec-repository-") as folder:
            repository = assemble(given.bundle, Path(folder, "repository"), target=Target.CPU, engine=given.engine)
            ports = {"grpc_port": given.grpc_port, "http_port": given.http_port, "metrics_port": given.metrics_port}
            with TritonServer(repository, **ports, address=given.address, log_path=given.log) as server:
                _tell(server)
                while server.is_alive():
                    time.sleep(POLL_S)
            print("error: Triton ended by itself" + (f"; see {given.log}" if given.log else ""), file=sys.stderr)
            return SERVER_DIED
    except KeyboardInterrupt:
        print("stopped")
        return 0


def _interrupt(*_: object) -> None:
    """Ctrl-C, or a polite kill. A second one must not disturb the stopping."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


def _tell(server: TritonServer) -> None:
    print(f"gRPC     {server.grpc_url}")
    print(f"HTTP     {server.http_url}")
    print(f"metrics  {server.metrics_url}")
    print(f"try      python -m client recommend {shlex.quote(EXAMPLE_TEXT)} --url {server.grpc_url}")
    print("Ctrl-C stops it", flush=True)


if __name__ == "__main__":
    sys.exit(main())
