"""What is trained on and asked: histories, profiles, items' own texts."""

from __future__ import annotations

import numpy as np

from train.data import Dataset, Interaction, Item, Split
from train.examples import OWN_TEXT, make_examples

ITEMS = tuple(Item(str(number), title=f"Film {number}") for number in range(4))


def split(train: list[int], validation: list[int], test: list[int]) -> Split:
    return Split(*(np.asarray(part, np.int64) for part in (train, validation, test)))


def test_a_history_is_what_the_user_chose_before() -> None:
    rows = (
        Interaction(2, "third", "ann", timestamp=30.0),
        Interaction(0, "first", "ann", timestamp=10.0),
        Interaction(1, "other", "bob", timestamp=15.0),
        Interaction(1, "second", "ann", timestamp=20.0),
    )
    examples = make_examples(Dataset("films", ITEMS, rows), split([1, 2, 3], [], [0]))
    assert examples.train.histories[:3] == [(), (), (0,)]
    assert examples.test.histories == [(0, 1)]
    assert examples.train.rows.tolist() == [1, 2, 3, *[OWN_TEXT] * 4]


def test_without_times_a_history_is_the_other_training_choices() -> None:
    rows = (
        Interaction(0, "one", "ann"),
        Interaction(1, "two", "ann"),
        Interaction(2, "held out", "ann"),
        Interaction(3, "nobody"),
    )
    examples = make_examples(Dataset("films", ITEMS, rows), split([0, 1, 3], [], [2]))
    assert examples.train.histories[:3] == [(1,), (0,), ()]
    assert examples.test.histories == [(0, 1)]


def test_a_choice_without_words_asks_with_a_profile() -> None:
    rows = tuple(Interaction(item, user_id="ann", timestamp=float(item)) for item in range(3))
    examples = make_examples(Dataset("films", ITEMS, rows), split([0, 1], [], [2]))
    assert examples.test.texts == ["I liked Film 1; Film 0."]
    assert examples.train.texts[0] == "I liked Film 0."  # the first choice has nothing before it, so it asks nothing
    assert examples.counts.tolist() == [1, 1, 0, 0]
    assert examples.own_texts == [f"Film {number}" for number in range(4)]
