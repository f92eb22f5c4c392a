"""The command line: ``bertrec`` where it is installed, ``python -m client`` in the checkout."""

from __future__ import annotations

import argparse
import io
import json
import os
import sys
from collections.abc import Iterator, Sequence
from typing import Any, NoReturn

from bertrec import __version__
from bertrec.answers import DEFAULT_K, Options
from bertrec.errors import BertrecError, InvalidInput, Unavailable

from .answer import Classified
from .reaching import add_reaching, reaching
from .readings import Watch, add_readings, asking, shown
from .recommender import Recommender, Wanted
from .rendering import as_record, as_table, printable
from .server.__main__ import add_arguments as add_serve_arguments
from .server.__main__ import run as serve

UNAVAILABLE = 1
BAD_INPUT = 2
INTERRUPTED = 130  # 128 + SIGINT, as shells count
PIPE_CLOSED = 141  # 128 + SIGPIPE


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line on ``argv`` (default: the process's). Returns the exit status; errors are one line on stderr."""
    _use_utf8()
    try:
        arguments = _parser().parse_args(_typed() if argv is None else argv)
        if arguments.command == "serve":
            return serve(arguments)
        return _recommend(arguments) if arguments.command == "recommend" else _read(arguments)
    except BertrecError as error:
        return _report(error)
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # Whoever read the answers has seen enough. Python flushes stdout once more at exit, and must find a place for it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return PIPE_CLOSED


def _recommend(arguments: argparse.Namespace) -> int:
    wanted = _wanted(arguments)
    Options(**wanted)  # so that they are refused before anything is read
    status = 0
    with _recommender(arguments) as recommender:
        for place, text in _texts(arguments.text):
            try:
                answer = recommender.recommend(text, **wanted)
            except InvalidInput as error:
                status = _report(error, place)  # the next line may be better
                continue
            if arguments.json:
                line = json.dumps(as_record(text, answer), ensure_ascii=False)
            else:
                line = f"{printable(text)}\n{as_table(answer)}\n" if place else as_table(answer)
            print(line, flush=True)
    return status


def _read(arguments: argparse.Namespace) -> int:
    """The commands that read texts one by one: match, classify, embed, and monitor, whose texts are stdin's."""
    watch = Watch(arguments) if arguments.command == "monitor" else None
    status = 0
    with _recommender(arguments) as recommender:
        ask = asking(arguments, recommender)
        if watch is not None:
            watch.begin(recommender.classify)
        for place, text in _texts("-" if watch else arguments.text):
            try:
                answer = ask(text)
            except InvalidInput as error:
                status = _report(error, place)  # the next line may be better
                continue
            if watch is None:
                print(shown(text, answer, as_json=arguments.json), flush=True)
            elif isinstance(answer, Classified) and (alert := watch.see(answer)) is not None:
                print(alert, flush=True)
    return status


def _recommender(arguments: argparse.Namespace) -> Recommender:
    fallback, bundle = (arguments.bundle, None) if arguments.url is not None else (None, arguments.bundle)
    if arguments.url is None and bundle is None:
        raise InvalidInput("say whom to ask: --url grpc://127.0.0.1:8001 for a server, --bundle FOLDER for this process, or both")
    return Recommender(arguments.url, bundle=bundle, fallback=fallback, engine=arguments.engine, **reaching(arguments))


def _texts(given: str) -> Iterator[tuple[str, str]]:
    """Pairs of a place, for messages, and a text: the one given, or the lines of stdin that are not blank, as they come."""
    if given != "-":
        yield "", given
        return
    for number, line in enumerate(sys.stdin, start=1):
        if line.strip():
            yield f"line {number}: ", line.rstrip("\n")


def _wanted(arguments: argparse.Namespace) -> Wanted:
    return {
        "k": arguments.k,
        "exclude": arguments.exclude,
        "filters": _filters(arguments.filter),
        "history": arguments.history,
        "popularity": arguments.popularity,
        "diversity": arguments.diversity,
        "rules": _rules(arguments.rules) if arguments.rules is not None else (),
        "spelling": arguments.spelling,
        "rerank": arguments.rerank,
        "explain": arguments.explain,
    }


def _rules(path: str) -> list[dict[str, Any]]:
    try:
        with open(path, encoding="utf-8") as file:
            rules: list[dict[str, Any]] = json.load(file)  # what it is not, Options says
            return rules
    except (OSError, ValueError, RecursionError) as error:
        raise InvalidInput(f"--rules {path} cannot be read ({error}); accepted is a file with a JSON list of rules") from None


def _filters(given: Sequence[str]) -> dict[str, tuple[str, ...]]:
    filters: dict[str, tuple[str, ...]] = {}
    for condition in given:
        name, equals, value = condition.partition("=")
        if not (name and equals):
            raise InvalidInput(f"--filter is {condition!r}; accepted is attribute=value, such as --filter colour=red")
        filters[name] = (*filters.get(name, ()), value)
    return filters


def _report(error: BertrecError, place: str = "") -> int:
    print(f"error: {place}{printable(str(error))}", file=sys.stderr)
    return UNAVAILABLE if isinstance(error, Unavailable) else BAD_INPUT


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """One line instead of argparse's usage and line, as every other error."""
        raise InvalidInput(f"{message}; see {self.prog} --help")


def _parser() -> argparse.ArgumentParser:
    program = f"python -m {__package__}" if __name__ == "__main__" else "bertrec"
    parser = _Parser(prog=program, description="Ask for recommendations in your own words.")
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    recommend = commands.add_parser(
        "recommend",
        help="rank items for a wish",
        description="Ranks items for a wish: by a Triton server (--url), in this process (--bundle), or by the server with this "
        "process as its fallback (both).",
    )
    recommend.add_argument("text", metavar="TEXT", help='what is wanted, such as "a warm coat"; - reads one wish per line')
    recommend.add_argument("--url", help="the server: grpc://HOST[:PORT] or http://HOST[:PORT]")
    recommend.add_argument("--bundle", metavar="FOLDER", help="a bundle that python -m export build wrote")
    recommend.add_argument("--engine", help="encoder engine of the bundle (default: the export's choice)")
    recommend.add_argument("-k", type=int, default=DEFAULT_K, help="items wanted (default: %(default)s)")
    recommend.add_argument("--exclude", metavar="ID", action="append", default=[], help="an item that must not come back")
    recommend.add_argument(
        "--filter",
        metavar="ATTRIBUTE=VALUE",
        action="append",
        default=[],
        help="only items that have it; the same attribute twice accepts either value, two attributes must both hold",
    )
    _add_preferences(recommend)
    add_reaching(recommend)
    recommend.add_argument("--json", action="store_true", help="write one JSON object per wish and line")
    add_readings(commands)
    serving = commands.add_parser(
        "serve",
        help="answer over HTTP from a bundle, without Triton",
        description="Serves a bundle over HTTP until Ctrl-C: the KServe v2 protocol, plain JSON and a page; see docs/edge.md.",
    )
    add_serve_arguments(serving)
    return parser


def _add_preferences(recommend: argparse.ArgumentParser) -> None:
    recommend.add_argument(
        "--history",
        metavar="ID",
        action="append",
        default=[],
        help='an item chosen before, the oldest first; TEXT may then be ""',
    )
    recommend.add_argument(
        "--popularity", metavar="X", type=float, default=1.0, help="how much popularity counts: 1 as learned, 0 not at all"
    )
    recommend.add_argument(
        "--diversity", metavar="X", type=float, default=0.0, help="how far apart items should be, from 0 to 1 (default: 0)"
    )
    recommend.add_argument("--rules", metavar="FILE.json", help="a list of rules; see bertrec/rules.py")
    recommend.add_argument("--rerank", action="store_true", help="have the bundle's matcher reorder the best")
    recommend.add_argument("--no-spelling", dest="spelling", action="store_false", help="read the text as it is written")
    recommend.add_argument("--no-reasons", dest="explain", action="store_false", help="answer without the reasons of each item")


def _typed() -> list[str]:
    """The process's own arguments, read as UTF-8 as stdin is."""
    return [os.fsencode(argument).decode("utf-8", "surrogateescape") for argument in sys.argv[1:]]


def _use_utf8() -> None:
    """Texts come and go as UTF-8 whatever the locale; bytes that are not UTF-8 are reported with their line, not here."""
    for stream, errors in ((sys.stdin, "surrogateescape"), (sys.stdout, "backslashreplace"), (sys.stderr, "backslashreplace")):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding="utf-8", errors=errors)


if __name__ == "__main__":
    sys.exit(main())
