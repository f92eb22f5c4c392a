"""The wire format: options and answers travel as JSON, unchanged, and say why they cannot be read."""

from __future__ import annotations

import json

import pytest

from bertrec.answers import Options, RankedItem, Reason, Recommendation
from bertrec.errors import InvalidAnswer, InvalidInput
from bertrec.spelling import Correction

ANSWER = Recommendation(
    items=(RankedItem("6", 1.5, "Robe 名字", (Reason("graph", 1.5, "you wrote “robe”", ("robe",)),), {"colour": "green|teal"}),),
    truncated=True,
    engine="fp32",
    bundle="0123456789ab",
    rules=("budget",),
    corrections=(Correction("rob", "robe"),),
)


def test_answers_travel_as_json_unchanged() -> None:
    assert Recommendation.from_json(ANSWER.to_json()) == ANSWER


@pytest.mark.parametrize("key", ["items", "truncated", "engine", "bundle", "rules", "corrections"])
def test_an_answer_that_lacks_something_is_refused(key: str) -> None:
    given = json.loads(ANSWER.to_json())
    del given[key]
    with pytest.raises(InvalidAnswer, match=f"KeyError: '{key}'"):
        Recommendation.from_json(json.dumps(given))


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"items": [{}]}', '{"items": [], "truncated": false}', "null", "7"])
def test_what_is_no_answer_is_refused(text: str) -> None:
    with pytest.raises(InvalidAnswer, match="ANSWER cannot be read"):
        Recommendation.from_json(text)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ('{"k": 0}', "k is 0; accepted is a whole number of at least 1"),
        ('{"k": true}', "k is True"),
        ('{"k": "3"}', "k is '3'"),
        ('{"k": 1.5}', r"k is 1\.5"),
        (
            '{"limit": 3}',
            "unknown key 'limit'; accepted are diversity, exclude, explain, filters, history, k, popularity, rerank, rules,",
        ),
        ("{", "OPTIONS is not JSON"),
        ("[]", "OPTIONS is a JSON list"),
        ('{"exclude": "7"}', "exclude is '7'; accepted is a list of strings"),
        ('{"exclude": [7]}', r"exclude is \[7\]"),
        ('{"filters": []}', r"filters is \[\]; accepted is a mapping"),
        ('{"filters": {"colour": "red"}}', r"filters\['colour'\] is 'red'"),
    ],
)
def test_options_that_make_no_sense_say_why(given: str, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        Options.from_json(given)


def test_options_have_one_canonical_form() -> None:
    options = Options(k=3, exclude=["b", "a"], filters={"colour": ["red"]})
    assert options.to_json() == '{"exclude":["b","a"],"filters":{"colour":["red"]},"k":3}'
    assert Options.from_json(options.to_json()) == options
    assert Options.from_json("") == Options()


def test_rules_are_part_of_the_canonical_form_and_the_callers_no_more() -> None:
    values = ["red"]
    options = Options(rules=[{"then": {"attribute": "colour", "equals": values, "effect": "exclude"}}], diversity=0.5)
    values.append("green")
    assert options.to_json() == (
        '{"diversity":0.5,"rules":[{"then":{"attribute":"colour","effect":"exclude","equals":["red"]}}]}'
    )
    assert Options.from_json(options.to_json()) == options
    assert options.parsed_rules[0].against == ("red",)
