"""``python -m serving``: assemble a Triton repository, bring one up on this machine until Ctrl-C, update it, probe it."""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import logging
import os
import shlex
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from bertrec.checks import number
from bertrec.errors import BertrecError, ServerFailed, Unavailable
from serving import _supervise
from serving._flags import Ports, Tracing, equivalent_commands
from serving._pulse import Pulse
from serving._restarts import MOST_RESTARTS, Restarts
from serving._watch import Watch
from serving.assemble import REPOSITORY_FILE, Target, assemble, describe
from serving.control import CONTROL_FILE, ModelControl
from serving.probe import probe
from serving.triton import LOOPBACK, TritonServer
from serving.update import roll_back, update

log = logging.getLogger(__name__)

BAD_USAGE = 2  # argparse's own code for it
SERVER_DIED = WRONG_ANSWER = 1
CONTROL_KEY = "CONTROL_KEY"
"""The environment variable that holds the key of a server that ``up`` did not start, as in the commands of ``up --dry-run``."""
POLL_S = 0.2
WATCH_S = 1.0
ANSWER_WITHIN_S = 30.0
ASKED = 3
"""How often a server is asked before it is taken for one that hangs."""
EXAMPLE_TEXT = "a warm coat that is not bulky"


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit code: 0, 1 if the server died or a probe failed, 2 if what was asked cannot be done."""
    given = _parser().parse_args(arguments)
    logging.basicConfig(format="%(message)s")
    commands = {"assemble": _assemble, "up": _up, "update": _update, "probe": _probe}
    try:
        return commands[given.command](given)
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
    up.add_argument("--cache-mb", default=0, type=int, metavar="N", help="keep answers in so many MiB (default: 0, none)")
    up.add_argument("--trace", metavar="URL|FILE", help="an OTLP collector, such as http://127.0.0.1:4318/v1/traces; or a file")
    up.add_argument("--trace-rate", default=Tracing.rate, type=int, metavar="N", help="trace one request in N (default: 1000)")
    up.add_argument("--repository", type=Path, metavar="DIR", help="serve this one, which can be updated while it is served")
    up.add_argument(
        "--answer-within",
        default=ANSWER_WITHIN_S,
        type=float,
        metavar="SECONDS",
        help=f"a server that answers nothing for so long is started again (default: {ANSWER_WITHIN_S:g}; 0: it is not asked)",
    )
    up.add_argument("--no-restart", action="store_true", help="end when the server dies, instead of starting it again")
    up.add_argument("--dry-run", action="store_true", help="print the commands that would serve the same elsewhere, and end")

    updating = commands.add_parser("update", help="serve another bundle as a new version, without a pause; or take it back")
    updating.add_argument("--repository", required=True, type=Path, metavar="DIR", help="the one that is served")
    updating.add_argument("--url", metavar="URL", help=f"its HTTP address, if up did not start it; its key: ${CONTROL_KEY}")
    updating.add_argument("--keep", default=2, type=int, metavar="N", help="versions that stay loaded (default: 2)")
    updating.add_argument("--rollback", action="store_true", help="take the newest version out of service")

    probing = commands.add_parser("probe", help="ask a server, and end with 1 where its answer is not the bundle's")
    probing.add_argument("--url", required=True, metavar="URL", help="such as grpc://127.0.0.1:8001")
    probing.add_argument("--timeout", default=5.0, type=float, metavar="SECONDS", help="of each question (default: 5)")
    probing.add_argument(
        "--ask",
        type=lambda names: names.split(","),
        metavar="NAMES",
        help="such as recommend,embed, where not all is served that the bundle has (default: all that it has)",
    )

    for command, required in ((assembling, True), (up, False), (updating, False), (probing, True)):
        command.add_argument("--bundle", required=required, type=Path, metavar="BUNDLE")
        if command is not probing:
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
    number("--answer-within", given.answer_within, 0.0, 3600.0)
    for sign in (signal.SIGINT, signal.SIGTERM):
        signal.signal(sign, _interrupt)
    if not given.dry_run:
        print(f"starting Triton on {given.bundle or given.repository} …", flush=True)
    try:
        with _repository(given) as repository:
            ports = Ports(given.grpc_port, given.http_port, given.metrics_port)
            if given.dry_run:
                more = {"cache_mb": given.cache_mb, "tracing": _tracing(given)}
                for command in equivalent_commands(describe(repository), ports=ports, **more).values():
                    print(command)
                return 0
            return _serve(given, repository, ports)
    except KeyboardInterrupt:
        print("stopped")
        return 0


@contextlib.contextmanager
def _repository(given: argparse.Namespace) -> Iterator[Path]:
    """The repository to serve: the one that is named, written from the bundle if one is named too; or one for this run alone."""
    if given.repository is not None:
        if given.bundle is not None and not _was_updated(given.repository):
            assemble(given.bundle, given.repository, target=Target.CPU, engine=given.engine)
        describe(given.repository)
        yield given.repository
    elif given.bundle is None:
        raise ServerFailed("neither --bundle nor --repository is given; name what is to be served")
    else:
        with tempfile.TemporaryDirectory(prefix=_supervise.folder_prefix("repository")) as folder:
            yield assemble(given.bundle, Path(folder, "repository"), target=Target.CPU, engine=given.engine)


def _was_updated(repository: Path) -> bool:
    """Whether an update changed the repository since it was assembled; then it is served as it is, and that is said."""
    told = describe(repository) if (repository / REPOSITORY_FILE).exists() else None
    if told is None or not told.last_version:
        return False
    log.warning(
        "%s was updated since it was assembled: it is served as it is, version %s of bundle %s, and --bundle and --engine are "
        "not read. For another bundle: python -m serving update, while it is served; or another --repository",
        *(repository, told.version, told.bundle),
    )
    return True


def _serve(given: argparse.Namespace, repository: Path, ports: Ports) -> int:
    """Serve until the server died once more than it may; it is started anew at the same ports."""
    restarts, told = Restarts(0 if given.no_restart else MOST_RESTARTS), False
    while True:
        began_s, why = time.monotonic(), "Triton ended by itself"
        try:
            with _server(given, repository, ports) as server, _known(server, repository):
                ports = server.ports
                if not told:
                    _tell(server)
                    told = True
                _watch(server, given.answer_within)
        except (ServerFailed, OSError) as error:  # OSError: a disk that is full for a moment
            if not told:  # what does not start the first time is not mended by starting it again
                raise
            why = str(error)
        pause_s = restarts.pause_s(time.monotonic() - began_s)
        kept = _keep_log(given.log)
        if pause_s is None:
            print(f"error: {why}" + (f"; see {kept}" if kept else ""), file=sys.stderr)
            return SERVER_DIED
        log.warning("%s; it is started again in %g s (%s)%s", why, pause_s, restarts.count, f"; see {kept}" if kept else "")
        time.sleep(pause_s)


def _server(given: argparse.Namespace, repository: Path, ports: Ports) -> TritonServer:
    named = {f"{name}_port": port for name, port in vars(ports).items()}
    more = {"log_path": given.log, "cache_mb": given.cache_mb, "tracing": _tracing(given)}
    return TritonServer(repository, **named, address=given.address, **more)


def _tracing(given: argparse.Namespace) -> Tracing | None:
    return None if given.trace is None else Tracing(given.trace, given.trace_rate)


def _watch(server: TritonServer, answer_within_s: float) -> None:
    """Bring back stubs that died, until the server itself does. Raises ServerFailed where it no longer answers; it is killed."""
    watch, next_look_s = Watch(server.pid, ModelControl(server.http_url, server.control.key)), 0.0
    with Pulse(server.grpc_url, every_s=answer_within_s / ASKED) if answer_within_s else contextlib.nullcontext() as pulse:
        while server.is_alive():
            if pulse and pulse.silent_s > answer_within_s:
                server.kill()
                raise ServerFailed(f"Triton answered nothing for {answer_within_s:g} s")
            if time.monotonic() >= next_look_s:
                with contextlib.suppress(ServerFailed):  # it ended, or hangs
                    watch.look()
                next_look_s = time.monotonic() + WATCH_S
            time.sleep(POLL_S)


def _keep_log(path: Path | None) -> Path | None:
    """Move the log of a server that died out of the way of the next one's, and return where it is; None where there is none.

    The logs of those that died before move on, from ``.died`` to ``.died.1`` and so on: those of all restarts in a row are kept.
    """
    if path is None or not path.exists():  # the last start failed before there was a server to write one
        return None
    died = path.with_name(f"{path.name}.died")
    kept = [died, *(died.with_name(f"{died.name}.{number}") for number in range(1, MOST_RESTARTS + 1))]
    for old, older in reversed(list(itertools.pairwise(kept))):
        if old.exists():
            old.replace(older)
    return path.replace(died)


@contextlib.contextmanager
def _known(server: TritonServer, repository: Path) -> Iterator[None]:
    """Write where the server is and its key beside what it serves, for ``update``; readable by its owner alone."""
    path = repository / CONTROL_FILE
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        json.dump({"url": server.http_url, "key": server.control.key, "process": server.pid}, file)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


def _update(given: argparse.Namespace) -> int:
    key = os.environ.get(CONTROL_KEY, "")
    control = ModelControl(given.url, key) if given.url else ModelControl.of(given.repository)
    if given.rollback:
        version = roll_back(given.repository, control)
    elif given.bundle is None:
        raise ServerFailed("neither --bundle nor --rollback is given; name the bundle that is to be served")
    else:
        version = update(given.repository, given.bundle, control, engine=given.engine, keep=given.keep)
    print(f"version {version} is served: bundle {describe(given.repository).bundle}")
    return 0


def _probe(given: argparse.Namespace) -> int:
    try:
        found = probe(given.url, given.bundle, ask=given.ask, timeout_s=given.timeout)
    except Unavailable as error:
        print(f"error: {error}", file=sys.stderr)
        return WRONG_ANSWER
    print(
        f"{given.url} answers rightly to {', '.join(found.asked)}: {found.items} items of bundle {found.bundle} "
        f"in {found.latency_ms:.1f} ms"
    )
    return 0


def _interrupt(*_: object) -> None:
    """Ctrl-C, or a polite kill. A second one must not disturb the stopping."""
    for sign in (signal.SIGINT, signal.SIGTERM):
        signal.signal(sign, signal.SIG_IGN)
    raise KeyboardInterrupt


def _tell(server: TritonServer) -> None:
    print(f"gRPC     {server.grpc_url}")
    print(f"HTTP     {server.http_url}")
    print(f"metrics  {server.metrics_url}")
    print(f"try      python -m client recommend {shlex.quote(EXAMPLE_TEXT)} --url {server.grpc_url}")
    print("Ctrl-C stops it", flush=True)


if __name__ == "__main__":
    sys.exit(main())
