"""Strange and wrong input: a good answer or one clear error, the same from every backend, and none of it stays behind."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import pytest

from bertrec.text import MAX_CHARACTERS
from client import InvalidInput, Options, Recommender
from client.recommender import Wanted
from tests.client.fakes import FakeBackend

ANSWERED = {
    "100,000 characters": "denim dress " * 8334,
    "NUL": "denim\0dress",
    "control characters": "\x1b[31mdenim\x07 \x85\r\n\tdress\x7f",
    "emoji": "denim 👗 dress 👩\u200d👩\u200d👧",
    "right to left": "\u202eأريد denim dress من فضلك",
    "combining marks": "den\u0301im denim dress",
    "upper case": "DENIM DRESS",
    "quotes and backslashes": '"denim" \\ dress {"k": 0}',
}

REFUSED: dict[str, tuple[Any, str]] = {
    "empty": ("", "text 0 is empty"),
    "only spaces": (" \t\n\u3000", "text 0 is empty"),
    "only control characters": ("\0\x01", "text 0 is empty"),
    "lone surrogate": ("denim \ud800", "lone surrogate at character 6"),
    "number": (5, "text is of type int; accepted is a str, or a list of them"),
    "none": (None, "text is of type NoneType"),
    "bytes": (b"denim", "text is of type bytes"),
    "mapping": ({"text": "denim"}, "text is of type dict"),
    "list with a number": (["denim", 5, "dress"], "text 1 is of type int"),
    "list with an empty text": (["denim", "dress", " "], "text 2 is empty"),
    "list in a list": ([["denim"]], "text 0 is of type list"),
}

RED = {"then": {"attribute": "colour", "equals": ["red"], "effect": "exclude"}}

REFUSED_OPTIONS: dict[str, tuple[dict[str, Any], str]] = {
    "k=0": ({"k": 0}, "k is 0; accepted is a whole number of at least 1"),
    "k=-1": ({"k": -1}, "k is -1"),
    "k=True": ({"k": True}, "k is True"),
    "k='3'": ({"k": "3"}, "k is '3'"),
    "k=2.5": ({"k": 2.5}, "k is 2.5"),
    "k=None": ({"k": None}, "k is None"),
    "exclude is a string": ({"exclude": "3"}, "exclude is '3'; accepted is a list of strings"),
    "exclude holds a number": ({"exclude": [3]}, r"exclude is \[3\]"),
    "exclude holds a surrogate": ({"exclude": ["\ud800"]}, "exclude holds '.ud800', which is not valid Unicode"),
    "filters is a list": ({"filters": ["red"]}, "accepted is a mapping of attribute name"),
    "filters has a bare value": ({"filters": {"colour": "red"}}, r"filters\['colour'\] is 'red'; accepted is a list"),
    "filters holds a surrogate": ({"filters": {"\udcff": ["red"]}}, "not valid Unicode"),
    "history is a string": ({"history": "3"}, "history is '3'; accepted is a list of strings"),
    "popularity=-1": ({"popularity": -1}, "popularity is -1; accepted is a number from 0 to 10"),
    "popularity=True": ({"popularity": True}, "popularity is True"),
    "diversity=1.5": ({"diversity": 1.5}, "diversity is 1.5; accepted is a number from 0 to 1"),
    "diversity=nan": ({"diversity": float("nan")}, "diversity is nan"),
    "spelling=1": ({"spelling": 1}, "spelling is 1; accepted are true and false"),
    "explain=yes": ({"explain": "yes"}, "explain is 'yes'; accepted are true and false"),
    "rules is an object": ({"rules": {}}, r"rules is \{\}; accepted is a list of rules"),
    "rules holds a set": ({"rules": [{1}]}, "rules is not JSON"),
    "rules holds an empty one": ({"rules": [{}]}, r"rules\[0\]\.then is None; accepted is an object"),
    "too many rules": ({"rules": [RED] * 33}, "rules holds 33 rules; accepted are at most 32"),
    "timeout_s=0": ({"timeout_s": 0}, "timeout_s is 0; accepted is a number of seconds above 0"),
    "timeout_s=nan": ({"timeout_s": float("nan")}, "timeout_s is nan"),
    "timeout_s=inf": ({"timeout_s": float("inf")}, "timeout_s is inf"),
    "timeout_s=True": ({"timeout_s": True}, "timeout_s is True"),
    "timeout_s='5'": ({"timeout_s": "5"}, "timeout_s is '5'"),
}


@pytest.mark.parametrize("text", ANSWERED.values(), ids=ANSWERED.keys())
def test_strange_text_is_answered(recommender: Recommender, text: str) -> None:
    answer = recommender.recommend(text, k=1)
    assert answer.items[0].item_id == "3"
    assert answer.truncated == (len(text) > MAX_CHARACTERS)


def test_text_without_a_known_word_is_answered(recommender: Recommender) -> None:
    answers = recommender.recommend(["😀", "مرحبا", "!!!", "\u200b?"], k=4)
    assert [len(answer.items) for answer in answers] == [4, 4, 4, 4]


@pytest.mark.parametrize(("text", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_what_is_no_text_is_refused(recommender: Recommender, text: Any, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        recommender.recommend(text)
    assert recommender.recommend("denim dress", k=1).items[0].item_id == "3"


@pytest.mark.parametrize(("options", "message"), REFUSED_OPTIONS.values(), ids=REFUSED_OPTIONS.keys())
def test_options_that_make_no_sense_are_refused(recommender: Recommender, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        recommender.recommend("denim dress", **options)
    with pytest.raises(InvalidInput, match=message):
        recommender.recommend([], **options)


def test_nothing_wrong_reaches_a_backend() -> None:
    server, fallback = FakeBackend(), FakeBackend()
    recommender = Recommender(server=server, fallback=fallback)
    for text, _ in REFUSED.values():
        with pytest.raises(InvalidInput):
            recommender.recommend(text)
    for options, _ in REFUSED_OPTIONS.values():
        with pytest.raises(InvalidInput):
            recommender.recommend("denim", **options)
    assert (server.asked, fallback.asked) == ([], [])


def test_backends_get_clean_text() -> None:
    server = FakeBackend()
    Recommender(server=server).recommend([" denim\0dress\n", "x" * 100_000])
    assert server.asked == [["denim dress", "x" * MAX_CHARACTERS]]


def test_the_keywords_are_the_options() -> None:
    assert list(Wanted.__annotations__) == [field.name for field in fields(Options)]


def test_options_can_be_made_once_and_read_back() -> None:
    options = Options(
        k=3, exclude=("1",), filters={"colour": ("red",)}, history=("2",), popularity=0, rules=[RED], spelling=False
    )
    assert Options.from_json(options.to_json()) == options
