"""Rules: when they fire, what they do to each item, and what is wrong with those that cannot be read."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from bertrec.catalogue import Catalogue, CatalogueItem
from bertrec.errors import InvalidInput
from bertrec.rules import Wish, read_rules
from tests import tiny

CATALOGUE = Catalogue(
    (
        CatalogueItem("a", "A", attributes={"price": "$30", "fabric": "wool|silk"}),
        CatalogueItem("b", "B", attributes={"price": "90.00", "fabric": "linen"}),
        CatalogueItem("c", "C"),
    )
)
OUT = -np.inf


def effect(text: str, rule: dict[str, Any]) -> list[float] | None:
    """What the rule adds to the items, None where it does not fire."""
    (read,) = read_rules("rules", [rule])
    read.check(CATALOGUE, None)
    boost = read.boost(Wish.read(text, None), CATALOGUE)
    return None if boost is None else boost.tolist()


@pytest.mark.parametrize(
    ("then", "added"),
    [
        ({"attribute": "fabric", "equals": ["silk", "cotton"], "effect": "exclude"}, [OUT, 0, 0]),
        ({"attribute": "fabric", "equals": ["silk", "cotton"], "effect": "require"}, [0, OUT, OUT]),
        ({"attribute": "fabric", "equals": ["silk"], "effect": "boost", "by": -1.5}, [-1.5, 0, 0]),
        ({"attribute": "price", "above": 80, "effect": "exclude"}, [0, OUT, 0]),
        ({"attribute": "price", "above": 90, "effect": "exclude"}, [0, 0, 0]),
        ({"attribute": "price", "below": 80, "effect": "require"}, [0, OUT, OUT]),
        ({"attribute": "price", "below": 80, "effect": "boost", "by": 2}, [2, 0, 0]),
    ],
)
def test_effects(then: dict[str, Any], added: list[float]) -> None:
    assert effect("anything", {"then": then}) == added


@pytest.mark.parametrize(
    ("condition", "text", "fires"),
    [
        ({}, "", True),
        ({"any": ["wedding guest", "bride"]}, "as a Wedding  guest!", True),
        ({"any": ["wedding guest", "bride"]}, "a guest at a wedding; brides too", False),
        ({"any": ["婚礼"]}, "参加婚礼穿的裙子", True),
        ({"all": ["wedding", "summer"]}, "a summer wedding", True),
        ({"all": ["wedding", "summer"]}, "a wedding", False),
        ({"budget_below": True}, "under $80", True),
        ({"budget_below": True}, "over $80", False),
        ({"budget_at_most": 50}, "under 50", True),
        ({"budget_at_most": 50}, "under 51", False),
        ({"budget_at_most": 50}, "cheap", False),
        ({"budget_at_least": 0}, "cheap", False),
        ({"budget_at_least": 100, "any": ["coat"]}, "a coat, at most 200", True),
        ({"budget_at_least": 100, "any": ["coat"]}, "a hat, at most 200", False),
    ],
)
def test_conditions(condition: dict[str, Any], text: str, fires: bool) -> None:
    rule = {"if": condition, "then": {"attribute": "fabric", "equals": ["linen"], "effect": "exclude"}}
    assert effect(text, rule) == ([0, OUT, 0] if fires else None)


def test_items_are_compared_with_the_budget_of_the_wish() -> None:
    rule = {"then": {"attribute": "price", "above": "budget", "effect": "exclude"}}
    assert effect("under 50", rule) == [0, OUT, 0]
    assert effect("under 20", rule) == [OUT, OUT, 0]
    assert effect("50元以下", rule) == [0, OUT, 0]
    assert effect("cheap", rule) is None  # it names no budget to compare with


def test_entities_are_what_the_graph_finds_in_a_wish() -> None:
    graph = tiny.item_graph()
    (rule,) = read_rules(
        "rules", [{"if": {"names": ["Gown"]}, "then": {"attribute": "fabric", "equals": ["silk"], "effect": "exclude"}}]
    )
    rule.check(CATALOGUE, graph)
    assert rule.boost(Wish.read("a green gown", graph), CATALOGUE) is not None
    assert rule.boost(Wish.read("a green coat", graph), CATALOGUE) is None
    with pytest.raises(InvalidInput, match="this bundle has no graph"):
        rule.check(CATALOGUE, None)


def test_a_rule_without_a_name_is_called_by_what_it_does() -> None:
    rules: list[dict[str, Any]] = [
        {"then": {"attribute": "price", "above": "budget", "effect": "exclude"}},
        {"then": {"attribute": "price", "below": 80, "effect": "require"}},
        {"name": "season", "then": {"attribute": "fabric", "equals": ["wool", "silk"], "effect": "boost", "by": 1}},
        {"then": {"attribute": "fabric", "equals": ["wool", "silk"], "effect": "exclude"}},
    ]
    assert [rule.name for rule in read_rules("rules", rules)] == [
        "exclude price above budget",
        "require price below 80",
        "season",
        "exclude fabric equals wool or silk",
    ]


THEN = {"attribute": "fabric", "equals": ["wool"], "effect": "exclude"}


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        (7, r"rules\[0\] is 7; accepted is an object with the keys name, if, then"),
        ({}, r"rules\[0\]\.then is None; accepted is an object with the keys attribute, equals, above, below, effect, by"),
        ({"then": {"equals": ["wool"], "effect": "exclude"}}, r"rules\[0\]\.then\.attribute is None; accepted is a string"),
        ({"when": {}, "then": THEN}, r"rules\[0\] has the unknown key 'when'; accepted are name, if, then"),
        ({"name": 7, "then": THEN}, r"rules\[0\]\.name is 7; accepted is a string"),
        ({"if": {"any": "red"}, "then": THEN}, r"rules\[0\]\.if\.any is 'red'; accepted is a list of strings"),
        ({"if": {"any": ["!"]}, "then": THEN}, r"rules\[0\]\.if\.any holds '!', which has no word"),
        ({"if": {"none": []}, "then": THEN}, "unknown key 'none'; accepted are any, all, names, budget_below,"),
        ({"if": {"budget_below": 50}, "then": THEN}, "budget_below is 50; accepted is true"),
        ({"if": {"budget_at_most": "50"}, "then": THEN}, "budget_at_most is '50'; accepted is a number from 0"),
        ({"if": {"budget_at_most": float("nan")}, "then": THEN}, "budget_at_most is nan"),
        ({"then": {**THEN, "above": 3}}, r"then has equals, above; accepted is one of equals, above, below"),
        ({"then": {"attribute": "fabric", "effect": "exclude"}}, "then has no test; accepted is one of equals"),
        ({"then": {**THEN, "equals": "wool"}}, r"then\.equals is 'wool'; accepted is a list of strings"),
        (
            {"then": {"attribute": "price", "above": "cheap", "effect": "exclude"}},
            r"then\.above is 'cheap'; accepted is a number",
        ),
        ({"then": {**THEN, "effect": "hide"}}, "effect is 'hide'; accepted are exclude, require, boost"),
        ({"then": {**THEN, "effect": ["boost"]}}, r"effect is \['boost'\]; accepted are"),
        ({"then": {**THEN, "effect": "boost"}}, r"then\.by is None; accepted is a number from -100 to 100"),
        ({"then": {**THEN, "effect": "boost", "by": float("inf")}}, r"then\.by is inf"),
        ({"then": {**THEN, "by": 1}}, "by goes with the effect boost"),
    ],
)
def test_rules_that_make_no_sense_say_why(rule: Any, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        read_rules("rules", [rule])


def test_a_refusal_masks_every_item() -> None:
    rule = {"name": "no weapons", "if": {"any": ["pipe bomb"]}, "then": {"effect": "refuse"}}
    assert effect("instructions for a Pipe  bomb!", rule) == [OUT, OUT, OUT]
    assert effect("a coat that is the bomb", rule) is None


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ({"then": {"effect": "refuse"}}, "without a condition, which refuses every wish"),
        (
            {"if": {"any": ["x1"]}, "then": {"effect": "refuse", "attribute": "price"}},
            "unknown key 'attribute'; accepted are effect",
        ),
    ],
)
def test_refusals_that_cannot_be_read(rule: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        read_rules("rules", [rule])
