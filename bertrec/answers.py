"""What one asks and what one gets: options, ranked items, reasons. Travels as canonical JSON.

The client and the server read and write through these classes, so the wire format is said once.
"""

from __future__ import annotations

import json
import operator
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from bertrec.errors import InvalidAnswer, InvalidInput

DEFAULT_K = 10


@dataclass(frozen=True)
class Options:
    """How to answer one text.

    k: number of items wanted, 1 or more; the bundle's ``max_k`` and the catalogue's size bound what comes back.
    exclude: item ids that must not be recommended; ids that are not in the catalogue exclude nothing.
    filters: attribute → accepted values; an item must have one of the values of every attribute named.
    """

    k: int = DEFAULT_K
    exclude: Sequence[str] = ()
    filters: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "k", _positive_integer(self.k))
        object.__setattr__(self, "exclude", _strings("exclude", self.exclude))
        if not isinstance(self.filters, Mapping) or not all(isinstance(name, str) for name in self.filters):
            raise InvalidInput(f"filters is {self.filters!r}; accepted is a mapping of attribute name to accepted values")
        _strings("filters", list(self.filters))
        object.__setattr__(self, "filters", {name: _strings(f"filters[{name!r}]", self.filters[name]) for name in self.filters})

    def to_json(self) -> str:
        """Canonical JSON: sorted keys, no spaces, empty values left out; equal options give equal text."""
        given = {name: value for name, value in asdict(self).items() if value}
        return json.dumps(given, sort_keys=True, separators=(",", ":"), ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> Options:
        """Read what a client sent. Raises InvalidInput for what is not JSON, not an object, or has an unknown key."""
        try:
            given = json.loads(text or "{}")
        except (ValueError, RecursionError) as error:
            raise InvalidInput(f'OPTIONS is not JSON ({error}); accepted is an object such as {{"k": 10}}') from None
        if not isinstance(given, dict):
            raise InvalidInput(f'OPTIONS is a JSON {type(given).__name__}; accepted is an object such as {{"k": 10}}')
        if unknown := sorted(set(given) - {"k", "exclude", "filters"}):
            raise InvalidInput(f"OPTIONS has the unknown key {unknown[0]!r}; accepted are exclude, filters and k")
        return cls(**given)


def _positive_integer(k: object) -> int:
    try:
        value = operator.index(k)  # type: ignore[arg-type]  # what is not an integer raises TypeError
    except TypeError:
        value = 0
    if isinstance(k, bool) or value < 1:
        raise InvalidInput(f"k is {k!r}; accepted is a whole number of at least 1")
    return value


def _strings(name: str, given: object) -> tuple[str, ...]:
    if isinstance(given, str) or not isinstance(given, Sequence) or not all(isinstance(value, str) for value in given):
        raise InvalidInput(f"{name} is {given!r}; accepted is a list of strings")
    for value in given:
        if any("\ud800" <= character <= "\udfff" for character in value):
            raise InvalidInput(f"{name} holds {value!r}, which is not valid Unicode: it has a lone surrogate")
    return tuple(given)


@dataclass(frozen=True)
class Reason:
    """One term of an item's score: how far the signal lifts the item above the catalogue's average item, in nats.

    ``words`` are the words of the text that carried it, where the signal can tell.
    """

    signal: str
    score: float
    words: tuple[str, ...] = ()

    @property
    def sentence(self) -> str:
        """The reason as a shopper would read it."""
        if self.signal == "lexical" and self.words:
            return "your words: " + ", ".join(self.words)
        return _SENTENCES.get(self.signal, self.signal)


_SENTENCES = {
    "text": "the meaning of your wish",
    "lexical": "the words of your wish",
    "prior": "how often others choose it",
}


@dataclass(frozen=True)
class RankedItem:
    """One recommended item. ``score`` is the sum of the reasons' scores: log-odds against the average item."""

    item_id: str
    score: float
    title: str
    reasons: tuple[Reason, ...]
    attributes: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Recommendation:
    """The items for one text, best first, and what computed them.

    truncated: the text was longer than the encoder reads; the rest was not seen by it.
    engine: the encoder engine that read the text, such as ``fp32``.
    bundle: fingerprint of the bundle.
    """

    items: tuple[RankedItem, ...]
    truncated: bool
    engine: str
    bundle: str

    def to_json(self) -> str:
        """The wire format of the ANSWER tensor."""
        # vars, not asdict: that copies every value, and took 0.5 ms more for ten items, as long as all else but the encoder.
        return json.dumps(vars(self), default=vars, separators=(",", ":"), ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str | bytes) -> Recommendation:
        """Read an ANSWER. Raises InvalidAnswer for anything else than what :meth:`to_json` writes."""
        try:
            given = json.loads(text)
            return cls(
                items=tuple(_item(item) for item in given["items"]),
                truncated=bool(given["truncated"]),
                engine=str(given["engine"]),
                bundle=str(given["bundle"]),
            )
        except (ValueError, TypeError, KeyError, OverflowError, RecursionError) as error:
            raise InvalidAnswer(f"the server's ANSWER cannot be read ({type(error).__name__}: {error})") from None


def _item(given: Mapping[str, Any]) -> RankedItem:
    return RankedItem(
        item_id=str(given["item_id"]),
        score=float(given["score"]),
        title=str(given["title"]),
        reasons=tuple(
            Reason(str(reason["signal"]), float(reason["score"]), tuple(reason["words"])) for reason in given["reasons"]
        ),
        attributes=dict(given["attributes"]),
    )
