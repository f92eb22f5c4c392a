"""Other ways of asking: what each keeps, what it hides, and whom it leaves out."""

from __future__ import annotations

from difflib import SequenceMatcher

import numpy as np
import pytest

from bertrec.errors import InvalidInput
from train.data import Dataset, Interaction, Item
from train.examples import OWN_TEXT, Pairs
from train.queries import (
    KINDS,
    QueryContext,
    as_written,
    chosen_kinds,
    class_masked,
    headline,
    synonyms,
    typos,
    wish,
    word_order,
)

REVIEWS = (
    Interaction(
        0, "Lovely. This blue cotton dress is not tight, and flowy. I wore dresses and jeans all summer", headline="Lovely"
    ),
    Interaction(1, "Great with jeans in fine gauge, my sweaters and my T-shirt are warm"),
    Interaction(1, "So soft!"),
    Interaction(0, ""),
)
CLOTHES = Dataset(
    "clothes",
    (Item("a", attributes={"class": "Dresses"}), Item("b", attributes={"class": "Fine gauge", "department": "Tops"})),
    REVIEWS,
)
CONTEXT = QueryContext(CLOTHES, "class", seed=0)
QUERIES = Pairs(
    [*(review.text for review in REVIEWS[:3]), "I liked this dress.", "a dress of its own"],
    np.asarray([0, 1, 1, 0, 0]),
    [(1,), (), (), (), ()],
    np.asarray([0, 1, 2, 3, OWN_TEXT]),
)
SAID = [0, 1, 2]  # the fourth was written from a history, the fifth is an item's own text


def test_what_goes_along_with_the_texts() -> None:
    assert as_written(QUERIES, CONTEXT) is QUERIES
    found = class_masked(QUERIES, CONTEXT)
    assert found.rows.tolist() == SAID
    assert found.items.tolist() == [0, 1, 1]
    assert found.histories == [(1,), (), ()]


def test_the_words_of_the_class_are_masked_in_singular_plural_and_synonyms() -> None:
    assert class_masked(QUERIES, CONTEXT).texts == [
        "Lovely. This blue cotton item is not tight, and flowy. I wore item and item all summer",
        "Great with item in item, my item and my item are warm",
        "So soft!",
    ]


def test_other_data_masks_its_own_values_only() -> None:
    apps = Dataset(
        "apps",
        (Item("a", attributes={"categories": "TextEditor|Development"}),),
        (Interaction(0, "A text editor, with tabs on top"), Interaction(0, "Text-editors for development")),
    )
    queries = Pairs([row.text for row in apps.interactions], np.zeros(2, np.int64), rows=np.arange(2))
    context = QueryContext(apps, "categories", seed=0)
    assert class_masked(queries, context).texts == ["A item, with tabs on top", "item for item"]
    assert len(wish(queries, context)) == 0
    assert len(class_masked(queries, QueryContext(Dataset("bare", (Item("a"),), apps.interactions), None, 0))) == 0


def test_a_headline_asks_alone() -> None:
    found = headline(QUERIES, CONTEXT)
    assert found.texts == ["Lovely"]
    assert found.rows.tolist() == [0]


def test_a_wish_is_made_of_the_words_of_the_text_and_complaints_are_none() -> None:
    found = wish(QUERIES, CONTEXT)
    assert found.rows.tolist() == [0, 1]
    assert found.texts == ["I want a flowy blue cotton dress for summer.", "I want warm jeans."]


def test_a_wish_never_looks_at_the_label() -> None:
    swapped = Dataset("clothes", CLOTHES.items[::-1], REVIEWS)
    assert wish(QUERIES, QueryContext(swapped, "class", 0)).texts == wish(QUERIES, CONTEXT).texts


def test_typos_come_at_their_rate_one_in_a_word_and_the_same_again() -> None:
    words = "although comfortable material stretches gorgeously everywhere".split()
    text = " ".join(words * 100) + " " + "too big and i am 5'4 " * 10
    data = Dataset("one", (Item("a"),), (Interaction(0, text), Interaction(0, text)))
    queries = Pairs([text, text], np.zeros(2, np.int64), rows=np.arange(2))
    first, second = (row.split() for row in typos(queries, QueryContext(data, None, 3)).texts)
    given = text.split()
    wrong = [(word, typed) for word, typed in zip(given, first, strict=True) if word != typed]
    assert len(wrong) / 600 == pytest.approx(0.1, abs=0.03)
    assert all(len(word) >= 4 and word[0] == typed[0] and word[-1] == typed[-1] for word, typed in wrong)
    assert all(abs(len(word) - len(typed)) <= 1 for word, typed in wrong)
    assert all(SequenceMatcher(None, word, typed).ratio() > 0.7 for word, typed in wrong)
    assert {len(typed) - len(word) for word, typed in wrong} == {-1, 0, 1}
    assert first != second  # each query has errors of its own
    assert [" ".join(first), " ".join(second)] == typos(queries, QueryContext(data, None, 3)).texts
    assert " ".join(first) != typos(queries, QueryContext(data, None, 4)).texts[0]


def test_other_words_of_the_same_meaning_come_at_their_rate() -> None:
    text = "soft dress " * 500
    data = Dataset("one", (Item("a"),), (Interaction(0, text), Interaction(0, text)))
    queries = Pairs([text, text], np.zeros(2, np.int64), rows=np.arange(2))
    context = QueryContext(data, None, 3, {"dress": ("gown", "frock")})
    first, second = synonyms(queries, context).texts
    assert first.split().count("soft") == 500  # it has no synonym
    assert first.split().count("dress") == pytest.approx(400, abs=30)
    assert {"gown", "frock"} < set(first.split())
    assert first != second
    assert synonyms(queries, context).texts == [first, second]
    assert len(synonyms(queries, QueryContext(data, None, 3))) == 0  # without synonyms nobody asks in other words


def test_word_order_keeps_the_words_and_the_sentences() -> None:
    found = word_order(QUERIES, CONTEXT)
    assert found.rows.tolist() == SAID
    assert sorted(found.texts[1].split()) == sorted(QUERIES.texts[1].split())
    assert found.texts[0] != QUERIES.texts[0]
    assert found.texts[0].startswith("Lovely. ")  # a sentence of one word
    assert found.texts == word_order(QUERIES, CONTEXT).texts
    assert found.texts != word_order(QUERIES, QueryContext(CLOTHES, "class", seed=1)).texts


def test_chinese_and_short_words_stay() -> None:
    text = "一个 文本编辑器 for my old pc"
    data = Dataset("one", (Item("a"),), (Interaction(0, text),))
    queries = Pairs([text] * 50, np.zeros(50, np.int64), rows=np.zeros(50, np.int64))
    assert typos(queries, QueryContext(data, None, 0)).texts == [text] * 50


def test_kinds_are_chosen_by_name() -> None:
    assert chosen_kinds(["typos", "as-written"]) == ["as-written", "typos"]
    assert chosen_kinds(["all"]) == list(KINDS)
    with pytest.raises(InvalidInput, match="queries are 'misspelt'; accepted are all, as-written"):
        chosen_kinds(["misspelt"])
