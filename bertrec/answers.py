"""What one asks and what one gets: options, ranked items, reasons. Travels as canonical JSON.

The client and the server read and write through these classes, so the wire format is said once.
"""

from __future__ import annotations

import json
import operator
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any, ClassVar

from bertrec import checks
from bertrec.errors import InvalidAnswer, InvalidInput
from bertrec.rules import MOST_RULES, Rule, read_rules
from bertrec.spelling import Correction
from bertrec.tensors import RECOMMEND, ModelSpec

DEFAULT_K = 10
MAX_POPULARITY = 10.0


@dataclass(frozen=True)
class Options:
    """How to answer one text.

    k: number of items wanted, 1 or more; the bundle's ``max_k`` and the catalogue's size bound what comes back.
    exclude: item ids that must not be recommended; ids that are not in the catalogue exclude nothing.
    filters: attribute → accepted values; an item must have one of the values of every attribute named.
    history: item ids that the user chose before, oldest first; they are not recommended again. Ids that are not in the catalogue
    tell nothing. With a history the text may be blank.
    popularity: how strongly an item's popularity counts: 1 as was best on validation, 0 not at all, at most ``MAX_POPULARITY``.
    diversity: how far apart the items should be, from 0, not looked at, to 1, nothing else counts; see :mod:`bertrec.diversity`.
    rules: at most ``MOST_RULES`` rules beside the bundle's own, in the form of :mod:`bertrec.rules`.
    spelling: whether misspelt words are read as the words that were meant, where the bundle can tell.
    rerank: whether the matcher reads the best candidates side by side with the text, and its log-odds are added to their scores;
    see :mod:`bertrec.matching`. It changes nothing where it gained nothing on validation.
    explain: whether items come with their reasons; without, an answer is smaller and sooner there, and its scores are the same.
    """

    model: ClassVar[ModelSpec] = RECOMMEND
    k: int = DEFAULT_K
    exclude: Sequence[str] = ()
    filters: Mapping[str, Sequence[str]] = field(default_factory=dict)
    history: Sequence[str] = ()
    popularity: float = 1.0
    diversity: float = 0.0
    rules: Sequence[Mapping[str, Any]] = ()
    spelling: bool = True
    rerank: bool = False
    explain: bool = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "k", _positive_integer(self.k))
        for name in ("exclude", "history"):
            object.__setattr__(self, name, checks.strings(name, getattr(self, name)))
        if not isinstance(self.filters, Mapping) or not all(isinstance(name, str) for name in self.filters):
            raise InvalidInput(f"filters is {self.filters!r}; accepted is a mapping of attribute name to accepted values")
        checks.strings("filters", list(self.filters))
        filters = {name: checks.strings(f"filters[{name!r}]", accepted) for name, accepted in self.filters.items()}
        object.__setattr__(self, "filters", filters)
        object.__setattr__(self, "popularity", checks.number("popularity", self.popularity, 0, MAX_POPULARITY))
        object.__setattr__(self, "diversity", checks.number("diversity", self.diversity, 0, 1))
        for name in ("spelling", "rerank", "explain"):
            checks.boolean(name, getattr(self, name))
        object.__setattr__(self, "rules", _as_read(self.rules))
        if len(self.parsed_rules) > MOST_RULES:
            raise InvalidInput(f"rules holds {len(self.parsed_rules)} rules; accepted are at most {MOST_RULES}")

    @cached_property
    def parsed_rules(self) -> tuple[Rule, ...]:
        """The rules, ready to be applied."""
        return read_rules("rules", self.rules)

    def to_json(self) -> str:
        """Canonical JSON: sorted keys, no spaces, defaults left out; equal options give equal text."""
        given = {name: value for name, value in asdict(self).items() if value != _DEFAULTS[name]}
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
        if unknown := sorted(set(given) - set(_DEFAULTS)):
            raise InvalidInput(f"OPTIONS has the unknown key {unknown[0]!r}; accepted are {', '.join(sorted(_DEFAULTS))}")
        return cls(**given)

    def read(self, row: str | bytes) -> Recommendation:
        """One row of the ANSWER to these options. Raises InvalidAnswer for one with more items than were asked for, too."""
        found = Recommendation.from_json(row)
        if len(found.items) > self.k:
            raise InvalidAnswer(f"the server answered {len(found.items)} items where {self.k} were asked for")
        return found


def _positive_integer(k: object) -> int:
    try:
        value = operator.index(k)  # type: ignore[arg-type]  # what is not an integer raises TypeError
    except TypeError:
        value = 0
    if isinstance(k, bool) or value < 1:
        raise InvalidInput(f"k is {k!r}; accepted is a whole number of at least 1")
    return value


def _as_read(rules: object) -> object:
    """Rules as they would come out of JSON, so that they are the caller's no more and equal ones compare equal."""
    try:
        read = json.loads(json.dumps(rules))
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidInput(f"rules is not JSON ({error}); accepted is a list of rules as in bertrec.rules") from None
    return tuple(read) if isinstance(read, list) else read


_DEFAULTS = asdict(Options())


@dataclass(frozen=True)
class Reason:
    """One term of an item's score: how far the signal lifts the item above the catalogue's average item, in nats.

    sentence: the reason as a shopper would read it. words: what carried it, where the signal can tell: words of the text, titles
    of the history, or names of rules.
    """

    signal: str
    score: float
    sentence: str
    words: tuple[str, ...] = ()


@dataclass(frozen=True)
class RankedItem:
    """One recommended item. ``score`` is the sum of the reasons' scores: log-odds against the average item.

    reasons: none where they were not asked for (``Options.explain``).
    """

    item_id: str
    score: float
    title: str
    reasons: tuple[Reason, ...]
    attributes: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Recommendation:
    """The items for one text, best first, and what computed them.

    rules: names of the rules that fired, whether or not they changed anything.
    corrections: the words of the text that were read as others.
    truncated: the text was longer than the encoder reads; the rest was not seen by it.
    engine: the encoder engine that read the text, such as ``fp32``.
    bundle: fingerprint of the bundle.
    confident: whether the first item reaches the bundle's threshold of sureness; False: better say "no good answer". None where
    the bundle has none, or the server is older than this.
    """

    items: tuple[RankedItem, ...]
    truncated: bool
    engine: str
    bundle: str
    rules: tuple[str, ...] = ()
    corrections: tuple[Correction, ...] = ()
    confident: bool | None = None

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
                rules=tuple(str(name) for name in given["rules"]),
                corrections=tuple(Correction(str(one["given"]), str(one["meant"])) for one in given["corrections"]),
                confident=None if given.get("confident") is None else bool(given["confident"]),
            )
        except (ValueError, TypeError, KeyError, OverflowError, RecursionError) as error:
            raise InvalidAnswer(f"the server's ANSWER cannot be read ({type(error).__name__}: {error})") from None


def _item(given: Mapping[str, Any]) -> RankedItem:
    return RankedItem(
        item_id=str(given["item_id"]),
        score=float(given["score"]),
        title=str(given["title"]),
        reasons=tuple(map(_reason, given["reasons"])),
        attributes=dict(given["attributes"]),
    )


def _reason(given: Mapping[str, Any]) -> Reason:
    words = tuple(str(word) for word in given["words"])
    return Reason(str(given["signal"]), float(given["score"]), str(given["sentence"]), words)
