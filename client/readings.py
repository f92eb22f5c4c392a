"""The commands match, classify, embed and monitor: what each asks of a text, and how its answer is shown."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bertrec.errors import InvalidInput
from bertrec.labels import NEGATIVE, SENTIMENT
from bertrec.monitoring import Count, Monitor

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

_ALPHA = f"false alerts that a topic may raise on average in {Monitor.period:,} of its texts"
_BASELINE = 'what was before: earlier texts, one a line, or a .json such as {"Dresses": {"negative": 556, "texts": 5000}}'
_AT_ONCE = 64
"""Earlier texts that are asked about in one call."""


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
            command.add_argument("--alpha", type=float, default=Monitor.alpha, help=f"{_ALPHA} (default: %(default)s)")
            command.add_argument("--baseline", metavar="FILE", help=_BASELINE)
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
        """Raises InvalidInput for a window or an alpha that is none, and for a baseline that cannot be read."""
        self._topic: str | None = arguments.topic
        self._json: bool = arguments.json
        self._before, self._earlier = _baseline(arguments.baseline)
        self._monitor = Monitor(window=arguments.window, alpha=arguments.alpha, baseline=self._before)

    def begin(self, classify: Callable[[list[str]], list[Classified]]) -> None:
        """Count the baseline's texts, if there are any, before the stream. Raises as :meth:`see`."""
        while self._earlier:
            asked, self._earlier = self._earlier[:_AT_ONCE], self._earlier[_AT_ONCE:]
            for found in classify(asked):
                topic, negative = self._told(found)
                known = self._before.get(topic, Count())
                self._before[topic] = Count(known.negative + negative, known.texts + 1)

    def see(self, found: Classified) -> str | None:
        """The alert that one text raises, to be shown. Raises InvalidInput where the bundle has no such heads."""
        topic, negative = self._told(found)
        alert = self._monitor.observe(topic, negative=negative)
        if alert is None:
            return None
        return json.dumps(asdict(alert), ensure_ascii=False) if self._json else printable(alert.sentence)

    def _told(self, found: Classified) -> tuple[str, bool]:
        """A text's topic, and whether it is negative."""
        topics = [head for head in found.labels if head != SENTIMENT]
        if self._topic is None and not topics:
            raise InvalidInput(f"this bundle has no head for topics, only {', '.join(found.labels)}; train one")
        return found.best(self._topic or topics[0]), found.best(SENTIMENT) == NEGATIVE


def _baseline(path: str | None) -> tuple[dict[str, Count], list[str]]:
    """What a baseline's file counts, and the texts in it that are still to be counted. Raises InvalidInput."""
    if path is None:
        return {}, []
    try:
        content = Path(path).read_text(encoding="utf-8")
        if not path.endswith(".json"):
            return {}, [line for line in content.splitlines() if line.strip()]
        given: Mapping[str, Mapping[str, int]] = json.loads(content)
        counts = {topic: (count["negative"], count["texts"]) for topic, count in given.items()}
        if not all(type(number) is int for pair in counts.values() for number in pair):
            raise TypeError("what is counted is no whole number")
        return {topic: Count(*pair) for topic, pair in counts.items()}, []
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise InvalidInput(
            f"--baseline {path} cannot be read ({type(error).__name__}: {error}); accepted is a file with one text a line, or a "
            f'.json file such as {{"Dresses": {{"negative": 556, "texts": 5000}}}}'
        ) from None
