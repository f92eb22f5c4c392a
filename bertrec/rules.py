"""Simple rules over the items' attributes: what a shop wants whatever the model says.

    {"name": "within budget",
     "if": {"budget_below": true},
     "then": {"attribute": "price", "above": "budget", "effect": "exclude"}}

``name``: what the answer calls the rule where it fired; by default what it does, such as "exclude price above budget".
``if``: conditions on the wish, all of which must hold; without any the rule always fires.
    any, all                           words or phrases: the wish contains one of them, or each
    names                              entities of the graph, such as "Dresses": the wish names one of them
    budget_below                       true: the wish names a budget ("under $80", "50元以下"; see bertrec.budget)
    budget_at_most, budget_at_least    a number: the wish names a budget, and it is so low, or so high
``then``: {"effect": "refuse"}, the answer is empty and names the rule; or which items, and what becomes of them.
    attribute                          its name, and one of
    equals                             values: the item has one of them
    above, below                       a number, or "budget" for the wish's: the item's first number is higher, or lower
    effect                             "exclude" masks these items, "require" masks all others, "boost" adds ``by`` to the score
    by                                 nats, also negative; with "boost" alone
An item that lacks the attribute is kept by ``exclude`` and masked by ``require``.

``refuse`` stands alone and wants a condition. It knows the words and phrases that it is given, after the spelling was corrected,
and nothing of what a wish means: other words for the same thing pass, and a harmless text that holds a phrase is refused.

A bundle's ``rules.json`` is {"rules": [rule, …], "blocklist": [item id, …]}; what is on the blocklist is never recommended.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bertrec import checks
from bertrec.budget import budget_of
from bertrec.catalogue import Catalogue
from bertrec.errors import InvalidBundle, InvalidInput
from bertrec.graph import GraphSignal, words_of

RULES_FILE = "rules.json"
MOST_RULES = 32
"""Rules of one request: each may cost a pass over the catalogue."""
MOST_BOOST = 100.0
"""Far above any score; what should always win or lose is better required or excluded."""
BUDGET = "budget"

_CONDITIONS = ("any", "all", "names", "budget_below", "budget_at_most", "budget_at_least")
_TESTS = ("equals", "above", "below")
_LARGEST = 1e12


class Effect(str, Enum):
    """What becomes of the items that a rule is about."""

    EXCLUDE = "exclude"
    REQUIRE = "require"
    BOOST = "boost"
    REFUSE = "refuse"


@dataclass(frozen=True)
class Wish:
    """What conditions look at. text: its words with a space around each; entities: names that it names, case-folded."""

    text: str
    entities: frozenset[str]
    budget: float | None

    @classmethod
    def read(cls, text: str, graph: GraphSignal | None) -> Wish:
        """What a text says."""
        mentions = graph.mentions(text) if graph is not None else []
        named = (
            frozenset(graph.entities[mention.entity].name.casefold() for mention in mentions)
            if graph is not None
            else frozenset()
        )
        return cls(f" {' '.join(words_of(text))} ", named, budget_of(text))


@dataclass(frozen=True)
class Condition:
    """The ``if`` of a rule; phrases as in :class:`bertrec.graph.Gazetteer`."""

    any: tuple[str, ...] = ()
    all: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    budget: bool = False
    least: float = 0.0
    most: float = _LARGEST

    def holds(self, wish: Wish) -> bool:
        """Whether a wish is one that the rule is for."""
        if self.any and not any(f" {phrase} " in wish.text for phrase in self.any):
            return False
        if not all(f" {phrase} " in wish.text for phrase in self.all):
            return False
        if self.names and wish.entities.isdisjoint(self.names):
            return False
        return not self.budget or (wish.budget is not None and self.least <= wish.budget <= self.most)


@dataclass(frozen=True)
class Rule:
    """One rule. test: ``equals``, ``above`` or ``below``. against: the values, or None for the wish's budget.

    A rule that refuses has neither.
    """

    name: str
    condition: Condition
    attribute: str
    test: str
    against: tuple[str, ...] | float | None
    effect: Effect
    by: float = 0.0

    def check(self, catalogue: Catalogue, graph: GraphSignal | None) -> None:
        """Raises InvalidInput where the bundle lacks what the rule is about."""
        if self.condition.names and graph is None:
            raise InvalidInput(f"the rule {self.name!r} asks for entities that the wish names; this bundle has no graph. Use any")
        if self.effect is Effect.REFUSE:
            return
        if not isinstance(self.against, tuple):
            catalogue.numbers(self.attribute, f"the rule {self.name!r}")
        else:
            catalogue.having(self.attribute, self.against, f"the rule {self.name!r}")

    def boost(self, wish: Wish, catalogue: Catalogue) -> NDArray[np.float32] | None:
        """(items,) float32 what the rule adds to each item's score, −inf for a masked one; None where it does not fire."""
        if not self.condition.holds(wish):
            return None
        if self.effect is Effect.REFUSE:
            return np.full(len(catalogue.items), -np.inf, np.float32)
        met = self._met(wish, catalogue)
        if self.effect is Effect.BOOST:
            return np.where(met, self.by, 0.0).astype(np.float32)
        return np.where(met == (self.effect is Effect.REQUIRE), 0.0, -np.inf).astype(np.float32)

    def _met(self, wish: Wish, catalogue: Catalogue) -> NDArray[np.bool_]:
        if isinstance(self.against, tuple):
            return catalogue.having(self.attribute, self.against, f"the rule {self.name!r}")
        numbers = catalogue.numbers(self.attribute, f"the rule {self.name!r}")  # (items,); NaN is neither above nor below
        bound = wish.budget if self.against is None else self.against
        assert bound is not None  # the condition wants a budget
        return np.asarray(numbers > bound if self.test == "above" else numbers < bound, bool)


@dataclass(frozen=True)
class RuleBook:
    """What a bundle's rules.json says."""

    rules: tuple[Rule, ...] = ()
    blocklist: tuple[str, ...] = ()

    @classmethod
    def load(cls, path: Path) -> RuleBook:
        """Read the file. Raises InvalidBundle, naming it, for what is not such a file."""
        try:
            given = checks.keys("it", json.loads(path.read_text(encoding="utf-8")), ("rules", "blocklist"))
            return cls(read_rules("rules", given.get("rules", [])), checks.strings("blocklist", given.get("blocklist", [])))
        except (ValueError, RecursionError) as error:  # InvalidInput is a ValueError, as are those of json and of UTF-8
            raise InvalidBundle(f"{path} cannot be read as rules: {error}. Correct it and export again") from None


def read_rules(place: str, given: object) -> tuple[Rule, ...]:
    """Rules from what JSON gives for them. Raises InvalidInput, naming ``place`` and the rule's position."""
    if isinstance(given, str) or not isinstance(given, Sequence):
        raise InvalidInput(f"{place} is {given!r}; accepted is a list of rules")
    return tuple(_read_rule(f"{place}[{position}]", rule) for position, rule in enumerate(given))


def _read_rule(place: str, given: object) -> Rule:
    rule = checks.keys(place, given, ("name", "if", "then"))
    condition = _read_condition(f"{place}.if", rule.get("if", {}))
    name, place = f"{place}.name", f"{place}.then"
    then = checks.keys(place, rule.get("then"), ("attribute", *_TESTS, "effect", "by"))
    if then.get("effect") == Effect.REFUSE.value:
        return _read_refusal(rule, name, place, condition)
    tests = [test for test in _TESTS if test in then]
    if len(tests) != 1:
        raise InvalidInput(f"{place} has {', '.join(tests) or 'no test'}; accepted is one of {', '.join(_TESTS)}")
    attribute = checks.string(f"{place}.attribute", then.get("attribute"))
    effect = _read_effect(place, then)
    against = _read_bound(f"{place}.{tests[0]}", tests[0], then[tests[0]])
    if against is None:
        condition = replace(condition, budget=True)
    by = checks.number(f"{place}.by", then.get("by"), -MOST_BOOST, MOST_BOOST) if effect is Effect.BOOST else 0.0
    said = f"{effect.value} {attribute} {tests[0]} {_written(against)}"
    return Rule(checks.string(name, rule.get("name", said)), condition, attribute, tests[0], against, effect, by)


def _read_refusal(rule: Mapping[str, object], name: str, place: str, condition: Condition) -> Rule:
    checks.keys(place, rule["then"], ("effect",))
    if condition == Condition():
        raise InvalidInput(f"{place}.effect is 'refuse' without a condition, which refuses every wish; give the rule an if")
    return Rule(checks.string(name, rule.get("name", "refuse")), condition, "", "", (), Effect.REFUSE)


def _read_effect(place: str, then: Mapping[str, object]) -> Effect:
    try:
        effect = Effect(then.get("effect"))
    except ValueError:
        accepted = ", ".join(one.value for one in Effect)
        raise InvalidInput(f"{place}.effect is {then.get('effect')!r}; accepted are {accepted}") from None
    if "by" in then and effect is not Effect.BOOST:
        raise InvalidInput(f"{place}.by goes with the effect boost; {effect.value} has no strength")
    return effect


def _read_bound(place: str, test: str, given: object) -> tuple[str, ...] | float | None:
    """What an attribute is compared with; None is the budget."""
    if test == "equals":
        return checks.strings(place, given)
    return None if given == BUDGET else checks.number(place, given, -_LARGEST, _LARGEST)


def _read_condition(place: str, given: object) -> Condition:
    stated = checks.keys(place, given, _CONDITIONS)
    if "budget_below" in stated and stated["budget_below"] is not True:
        raise InvalidInput(f"{place}.budget_below is {stated['budget_below']!r}; accepted is true")
    return Condition(
        any=_phrases(f"{place}.any", stated.get("any", [])),
        all=_phrases(f"{place}.all", stated.get("all", [])),
        names=tuple(name.casefold() for name in checks.strings(f"{place}.names", stated.get("names", []))),
        budget=any(name.startswith(BUDGET) for name in stated),
        least=checks.number(f"{place}.budget_at_least", stated.get("budget_at_least", 0), 0, _LARGEST),
        most=checks.number(f"{place}.budget_at_most", stated.get("budget_at_most", _LARGEST), 0, _LARGEST),
    )


def _phrases(place: str, given: object) -> tuple[str, ...]:
    phrases = checks.strings(place, given)
    for phrase in phrases:
        if not words_of(phrase):
            raise InvalidInput(f"{place} holds {phrase!r}, which has no word of two letters and no Chinese character")
    return tuple(" ".join(words_of(phrase)) for phrase in phrases)


def _written(against: tuple[str, ...] | float | None) -> str:
    if isinstance(against, tuple):
        return " or ".join(against)
    return BUDGET if against is None else f"{against:g}"
