"""The commands match, classify, embed and monitor: what each asks of a text, and how its answer is shown."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from typing import Any

from bertrec.errors import InvalidInput
from bertrec.labels import NEGATIVE, SENTIMENT
from bertrec.monitoring import Monitor

from .answer import Classified, Embedded, Matched
from .reaching import add_reaching
from .recommender import Recommender
from .rendering import printable

Reading = Matched | Classified | Embedded
Asking = Callable[[str], Reading]

HELP = {
    "match": "say how well items fit a text",
    "classify": "say what a text is: its sentiment, its topics",
    "embed": "write a text's vector",
    "monitor": "watch a stream of texts, and raise an alert where a topic is suddenly spoken of badly",
}
SHOWN_NUMBERS = 4
"""Of a vector; ``--json`` writes all."""


def add_readings(commands: Any) -> None:  # noqa: ANN401  # argparse's class for subcommands is private
    """Add the commands to the command line."""
    for name, text in HELP.items():
        command = commands.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
        if name != "monitor":
            command.add_argument("text", metavar="TEXT", help="the text; - reads one per line")
        command.add_argument("--url", help="the server: grpc://HOST[:PORT] or http://HOST[:PORT]")
        command.add_argument("--bundle", metavar="FOLDER", help="a bundle that python -m export build wrote")
        command.add_argument("--engine", help="encoder engine of the bundle (default: the export's choice)")
        if name == "match":
            command.add_argument("--items", required=True, metavar="ID,ID", help="the items, at most 64")
        if name == "monitor":
            command.add_argument("--topic", metavar="HEAD", help=f"the head that says it (default: the first but {SENTIMENT})")
            command.add_argument("--window", type=int, default=Monitor.window, help="texts of a topic (default: %(default)s)")
        add_reaching(command)
        command.add_argument("--json", action="store_true", help="write one JSON object per line")


def asking(arguments: argparse.Namespace, recommender: Recommender) -> Asking:
    """What the command asks of each text."""
    if arguments.command == "match":
        items = [item for item in arguments.items.split(",") if item]
        return lambda text: recommender.match(text, items)
    return recommender.embed if arguments.command == "embed" else recommender.classify


def shown(text: str, answer: Reading, *, as_json: bool) -> str:
    """One answer, as a line of JSON or as lines for people."""
    if as_json:
        return json.dumps(_record(text, answer), ensure_ascii=False)
    return "\n".join(printable(line) for line in (text, *_lines(answer)))


def _record(text: str, answer: Reading) -> Mapping[str, Any]:
    if isinstance(answer, Embedded):
        found: dict[str, Any] = {"vector": answer.vector.tolist()}
    else:
        about = {"truncated": answer.truncated, "engine": answer.engine, "bundle": answer.bundle}
        if isinstance(answer, Matched):
            found = {"matches": [asdict(one) for one in answer.matches], **about}
        else:
            found = {"labels": answer.labels, "recommends": answer.recommends, **about}
    who = {"served_by": answer.served_by.value, "degraded": answer.degraded, "latency_ms": round(answer.latency_ms, 3)}
    return {"text": text, **found, **who}


def _lines(answer: Reading) -> Iterable[str]:
    if isinstance(answer, Matched):
        yield from (f"  {one.probability:6.1%}  {one.item_id}  {one.title}" for one in answer.matches)
    elif isinstance(answer, Classified):
        for head, labels in answer.labels.items():
            best = answer.best(head)
            yield f"  {head}: {best} ({labels[best]:.1%})"
        if answer.recommends is not None:
            yield f"  recommends it: {answer.recommends:.1%}"
    else:
        numbers = " ".join(f"{value:+.3f}" for value in answer.vector[:SHOWN_NUMBERS].tolist())
        yield f"  {len(answer.vector)} numbers: {numbers} …"


class Watch:
    """Counts what the command ``monitor`` reads, and says when a topic raises an alert."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        """Raises InvalidInput for a window that is none."""
        self._topic: str | None = arguments.topic
        self._json: bool = arguments.json
        self._monitor = Monitor(window=arguments.window)

    def see(self, found: Classified) -> str | None:
        """The alert that one text raises, to be shown. Raises InvalidInput where the bundle has no such heads."""
        topics = [head for head in found.labels if head != SENTIMENT]
        if self._topic is None and not topics:
            raise InvalidInput(f"this bundle has no head for topics, only {', '.join(found.labels)}; train one")
        topic = found.best(self._topic or topics[0])
        alert = self._monitor.observe(topic, negative=found.best(SENTIMENT) == NEGATIVE)
        if alert is None:
            return None
        return json.dumps(asdict(alert), ensure_ascii=False) if self._json else printable(alert.sentence)
