"""``python -m client.server``, installed ``bertrec serve``: answer over HTTP from a bundle until Ctrl-C."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence

from bertrec.errors import BertrecError, MissingDependency
from bertrec.session_options import SessionOptions

BAD_INPUT = 2
PORT = 8000


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit status; errors are one line on stderr."""
    parser = argparse.ArgumentParser(prog=f"python -m {__package__}", description=__doc__)
    add_arguments(parser)
    try:
        return run(parser.parse_args(argv))
    except BertrecError as error:
        print(f"error: {error}", file=sys.stderr)
        return BAD_INPUT


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the command, for whichever parser it hangs on."""
    parser.add_argument("--bundle", required=True, metavar="FOLDER", help="a bundle that python -m export build wrote")
    parser.add_argument("--engine", help="encoder engine of the bundle (default: the export's choice)")
    parser.add_argument("--threads", type=int, default=0, help="threads per engine (default: one per core)")
    parser.add_argument(
        "--device",
        choices=("cpu", "gpu"),
        default="cpu",
        help="gpu asks for TensorRT, CUDA and the CPU, in that order (default: cpu)",
    )
    parser.add_argument("--no-memory-arena", action="store_true", help="give the memory of each run back")
    parser.add_argument(
        "--affinity",
        type=lambda cores: [int(core) for core in cores.split(",")],
        default=(),
        metavar="CORES",
        help="such as 1,2,3: a core for each thread of an engine but the one that asks",
    )
    parser.add_argument("--allow-spinning", action="store_true", help="waiting threads spin: faster where nothing else runs")
    parser.add_argument("--host", default="127.0.0.1", help="default: %(default)s, this machine alone; 0.0.0.0: every network")
    parser.add_argument("--port", type=int, default=PORT, metavar="P", help="default: %(default)s; 0: a free one")
    parser.add_argument("--queue", type=int, metavar="TEXTS", help="texts that may wait, 64 or more (default: 256); then 429")
    parser.add_argument("--timeout-s", type=float, metavar="S", help="longest wait for an answer (default: 5); then 503")
    parser.add_argument("--body-bytes", type=int, metavar="N", help="largest body (default: 4 MiB); then 413")


def run(arguments: argparse.Namespace) -> int:
    """Serve as the options say; 0 once it was stopped. Raises BertrecError."""
    try:
        from .limits import Limits
        from .model import EdgeModel
        from .running import serve
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] not in ("starlette", "uvicorn"):
            raise
        raise MissingDependency(str(error.name), "serve") from None
    given = {name: getattr(arguments, name) for name in ("queue", "timeout_s", "body_bytes")}
    limits = Limits(**{name: value for name, value in given.items() if value is not None})
    session = SessionOptions(
        arguments.threads, arguments.device, not arguments.no_memory_arena, arguments.affinity, arguments.allow_spinning
    )
    model = EdgeModel(arguments.bundle, engine=arguments.engine, session=session)
    serve(model, host=arguments.host, port=arguments.port, limits=limits, tell=lambda url: _tell(url, model.providers))
    return 0


def _tell(url: str, providers: Mapping[str, str]) -> None:
    ran = ", ".join(f"{model} by {provider}" for model, provider in providers.items())
    print(f"serving {url} (page: {url}/, API: {url}/docs; {ran}); Ctrl-C stops it", flush=True)


if __name__ == "__main__":
    sys.exit(main())
