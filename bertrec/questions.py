"""What else than recommendations one asks of a text, and what one gets: match, classify, embed. Travels as canonical JSON.

A question says which model answers it, and reads its output; that of ``recommend`` is :class:`bertrec.answers.Options`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from bertrec import checks
from bertrec.errors import InvalidAnswer, InvalidInput
from bertrec.tensors import CLASSIFY, EMBED, MATCH, ModelSpec

MOST_ITEMS = 64
"""Items that one text is matched with: each is a pair for the matcher, so this is a whole batch of its own."""

NEEDED: Mapping[str, str] = {MATCH.name: "a matcher", CLASSIFY.name: "heads"}
"""Model → what of a bundle not every bundle has, and it cannot do without."""


def remedy(model: ModelSpec) -> str:
    """What to do where a bundle lacks what ``NEEDED`` says of ``model``, as a sentence without its full stop."""
    command = NEEDED[model.name].rpartition(" ")[2]
    return f"Train {'one' if model is MATCH else 'them'} (python -m train {command} --run runs/NAME) and export the bundle again"


class Question(Protocol):
    """What is asked of each text of a call. Hashable by its JSON; equal questions write equal JSON."""

    model: ClassVar[ModelSpec]

    def to_json(self) -> str:
        """What the input OPTIONS carries, where the model has one."""

    def read(self, row: Any) -> Any:  # noqa: ANN401  # bytes, or numbers
        """One row of the model's output. Raises InvalidAnswer for what does not answer the question."""


@dataclass(frozen=True)
class Match:
    """How well one item fits a text: the probability that who wrote the text would take it for what was meant."""

    item_id: str
    title: str
    probability: float


@dataclass(frozen=True)
class Matches:
    """One text and the items asked about, in the order asked.

    truncated: the text was longer than the matcher reads. engine: the matcher's. bundle: fingerprint of the bundle.
    """

    matches: tuple[Match, ...]
    truncated: bool
    engine: str
    bundle: str

    def to_json(self) -> str:
        """The wire format of the ANSWER tensor."""
        return _written(self)


@dataclass(frozen=True)
class Classification:
    """What one text is.

    labels: head → label → probability; those of a head add up to 1. recommends: the probability that the writer recommends what
    the text is about; None where the bundle has no matcher that was trained to say so.
    truncated, engine (the encoder's), bundle: see :class:`bertrec.answers.Recommendation`.
    """

    labels: Mapping[str, Mapping[str, float]]
    recommends: float | None
    truncated: bool
    engine: str
    bundle: str

    def to_json(self) -> str:
        """The wire format of the ANSWER tensor."""
        return _written(self)

    def best(self, head: str) -> str:
        """The most probable label of one head. Raises InvalidInput, naming the heads, for another one."""
        if head not in self.labels:
            raise InvalidInput(f"head is {head!r}; this bundle has {', '.join(self.labels)}")
        return max(self.labels[head], key=lambda label: self.labels[head][label])


@dataclass(frozen=True)
class Pairing:
    """Ask ``match``: how well each of these items fits. At most ``MOST_ITEMS``, each once."""

    model: ClassVar[ModelSpec] = MATCH
    items: Sequence[str]

    def __post_init__(self) -> None:
        object.__setattr__(self, "items", checks.strings("items", self.items))
        if not 1 <= len(self.items) <= MOST_ITEMS or len(set(self.items)) < len(self.items):
            raise InvalidInput(f"items holds {len(self.items)} item ids; accepted are 1 to {MOST_ITEMS}, all different")

    def to_json(self) -> str:
        """Canonical JSON."""
        return _written(self)

    @classmethod
    def from_json(cls, text: str) -> Pairing:
        """Read what a client sent. Raises InvalidInput for anything else."""
        wanted = 'accepted is an object such as {"items": ["41", "57"]}'
        try:
            given = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise InvalidInput(f"OPTIONS is not JSON ({error}); {wanted}") from None
        if not isinstance(given, dict) or set(given) != {"items"}:
            raise InvalidInput(f"OPTIONS does not name the items, and nothing else; {wanted}")
        return cls(given["items"])

    def read(self, row: str | bytes) -> Matches:
        """Read an ANSWER. Raises InvalidAnswer for one about other items."""
        try:
            given = json.loads(row)
            found = Matches(tuple(map(_match, given["matches"])), *_about(given))
        except _BROKEN as error:
            raise _unreadable(error) from None
        if [one.item_id for one in found.matches] != list(self.items):
            raise InvalidAnswer("the server's ANSWER is about other items than were asked about")
        return found


@dataclass(frozen=True)
class Classifying:
    """Ask ``classify``: what each text is."""

    model: ClassVar[ModelSpec] = CLASSIFY

    def to_json(self) -> str:
        """Nothing is to be said."""
        return ""

    def read(self, row: str | bytes) -> Classification:
        """Read an ANSWER. Raises InvalidAnswer."""
        try:
            given = json.loads(row)
            labels = {
                str(head): {str(label): _probability(value) for label, value in labels.items()}
                for head, labels in given["labels"].items()
            }
            recommends = given["recommends"]
            return Classification(labels, None if recommends is None else _probability(recommends), *_about(given))
        except _BROKEN as error:
            raise _unreadable(error) from None


@dataclass(frozen=True)
class Embedding:
    """Ask ``embed``: each text's interest vector."""

    model: ClassVar[ModelSpec] = EMBED

    def to_json(self) -> str:
        """Nothing is to be said."""
        return ""

    def read(self, row: Sequence[float] | NDArray[np.float32]) -> NDArray[np.float32]:
        """(hidden,) float32 of length 1. Raises InvalidAnswer for what is none."""
        try:
            vector = np.array(row, np.float32)
        except (ValueError, TypeError, OverflowError) as error:
            raise _unreadable(error) from None
        if vector.ndim != 1 or not np.isfinite(vector).all():
            raise InvalidAnswer(f"the server's vector cannot be read: its shape is {vector.shape}, or it is not finite")
        return vector


_BROKEN = (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError)
"""What reading JSON of another form raises."""


def _written(value: object) -> str:
    return json.dumps(vars(value), default=vars, separators=(",", ":"), ensure_ascii=False)


def _match(given: Mapping[str, Any]) -> Match:
    return Match(str(given["item_id"]), str(given["title"]), _probability(given["probability"]))


def _about(given: Mapping[str, Any]) -> tuple[bool, str, str]:
    return bool(given["truncated"]), str(given["engine"]), str(given["bundle"])


def _probability(given: object) -> float:
    value = float(given)  # type: ignore[arg-type]  # what is no number raises
    if not 0 <= value <= 1:
        raise ValueError(f"{value} is no probability")
    return value


def _unreadable(error: Exception) -> InvalidAnswer:
    return InvalidAnswer(f"the server's ANSWER cannot be read ({type(error).__name__}: {error})")
