"""Whatever Python calls a text, and whatever goes for options: the edge answers or says what is wrong. The same each time."""

from __future__ import annotations

import math
from typing import Any

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from client import InvalidInput, Recommender
from tests.tiny import ITEMS, WORDS, item_text

SAME_EACH_TIME = settings(
    max_examples=200, derandomize=True, database=None, deadline=None, suppress_health_check=list(HealthCheck)
)

ODD = st.sampled_from([
    "\x00", "\ud800", "\ufeff", "\u202e", "\u200d" * 50, "e\u0301" * 200, "\U0001f9e5", "🧑‍🤝‍🧑", "ﬁ", "İ", "ß",
    "\r\n\t", "﷽", "零", "٣",
    "[MASK]", "[SEP]", "[PAD]", "##s", "$1,000,000.00", "1e309", "'; --", "{}", "\\u0000", "a" * 9_000, " " * 9_000,
])  # fmt: skip
TEXTS = st.lists(st.one_of(st.text(st.characters(codec=None)), ODD, st.sampled_from(WORDS)), max_size=8).map(" ".join)
ANYTHING = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5), st.binary(max_size=5)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)),
    max_leaves=5,
)
OPTIONS = st.fixed_dictionaries(
    {},
    optional={
        "k": st.one_of(st.integers(1, 300), ANYTHING),
        "exclude": st.one_of(st.lists(st.text(max_size=3), max_size=5), ANYTHING),
        "filters": st.one_of(st.dictionaries(st.sampled_from(["colour", "kind", ""]), st.lists(st.text())), ANYTHING),
        "history": st.one_of(st.lists(st.sampled_from(["3", "x", ""]), max_size=5), ANYTHING),
        "popularity": st.one_of(st.floats(), ANYTHING),
        "diversity": st.one_of(st.floats(), ANYTHING),
        "rules": st.one_of(st.lists(st.dictionaries(st.sampled_from(["name", "if", "then"]), ANYTHING), max_size=2), ANYTHING),
        "spelling": st.one_of(st.booleans(), ANYTHING),
        "explain": st.one_of(st.booleans(), ANYTHING),
    },
)


def check(edge: Recommender, text: Any, options: dict[str, Any]) -> None:
    """An answer that is sound, or InvalidInput; then the next good text is answered rightly."""
    try:
        answers = edge.recommend(text, **options)
    except InvalidInput as error:
        assert str(error)
    else:
        for answer in answers if isinstance(answers, list) else [answers]:
            ids = [item.item_id for item in answer.items]
            assert len(set(ids)) == len(ids) <= min(ITEMS, options.get("k", 10))
            assert all(math.isfinite(item.score) for item in answer.items)
    assert edge.recommend(item_text(3), k=1).items[0].item_id == "3"


@SAME_EACH_TIME
@given(text=TEXTS)
@example(text="")
def test_any_text(edge: Recommender, text: str) -> None:
    check(edge, text, {})


@SAME_EACH_TIME
@given(text=st.one_of(TEXTS, st.lists(TEXTS, max_size=4), ANYTHING), options=OPTIONS)
def test_any_text_with_any_options(edge: Recommender, text: object, options: dict[str, Any]) -> None:
    check(edge, text, options)
