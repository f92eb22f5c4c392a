"""What holds whoever answers: one set of assertions, on a catalogue whose right answers are known."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from bertrec.bundle import Bundle
from client import Answer, Correction, InvalidInput, RankedItem, Recommender, ServedBy
from client.recommender import Wanted
from tests.tiny import COMPANIONS, ITEMS, WORDS, attributes, item_text

MIXED_TEXTS = (
    item_text(0),
    "red",
    "a very long wish " * 15 + item_text(5),
    "nothing that the catalogue knows",
    item_text(9) + " or " + item_text(4),
    "我想要一件外套",
)


def ids(answer: Answer) -> list[str]:
    return [item.item_id for item in answer.items]


def same(first: Answer, second: Answer) -> bool:
    """Equal but for scores that differ in the last digits, and for who took how long."""
    return (
        _about(first) == _about(second)
        and len(first.items) == len(second.items)
        and all(map(_same_item, first.items, second.items))
    )


def _about(answer: Answer) -> tuple[object, ...]:
    return answer.truncated, answer.engine, answer.bundle, answer.rules, answer.corrections, answer.confident


def _same_item(first: RankedItem, second: RankedItem) -> bool:
    return (
        (first.item_id, first.title, first.attributes) == (second.item_id, second.title, second.attributes)
        and first.score == pytest.approx(second.score, abs=1e-4)
        and _said(first) == _said(second)
        and _terms(first) == pytest.approx(_terms(second), abs=1e-4)
    )


def _said(item: RankedItem) -> dict[str, tuple[str, ...]]:
    return {reason.signal: (reason.sentence, *reason.words) for reason in item.reasons}


def _terms(item: RankedItem) -> dict[str, float]:
    return {reason.signal: reason.score for reason in item.reasons}


def test_every_item_is_first_for_its_own_words(recommender: Recommender) -> None:
    answers = recommender.recommend([item_text(item) for item in range(ITEMS)], k=1)
    assert [ids(answer) for answer in answers] == [[str(item)] for item in range(ITEMS)]


def test_an_answer_says_what_and_why_and_by_whom(recommender: Recommender, edge: Recommender) -> None:
    answer = recommender.recommend("denim dress", k=3)
    first = answer.items[0]
    assert (first.item_id, first.title, first.attributes) == ("3", "Item 3", attributes(3))
    assert (first.attributes["colour"], first.attributes["kind"]) == ("denim", "dress")
    assert first.score == pytest.approx(sum(reason.score for reason in first.reasons), abs=1e-4)
    assert first.reasons[0].signal == "lexical"
    assert first.reasons[0].sentence in ("your words: denim, dress", "your words: denim dress")
    assert [reason.score for reason in first.reasons] == sorted((reason.score for reason in first.reasons), reverse=True)
    assert answer.served_by == ("triton" if recommender.counters().servers else "edge")
    assert (answer.engine, answer.truncated, answer.degraded, answer.fallback_reason) == ("fp32", False, False, None)
    assert answer.latency_ms > 0


def test_scores_are_those_of_the_design(recommender: Recommender) -> None:
    """The tiny bundle weighs lexical similarity by 10; whole agreement against none is a distance of 10."""
    items = recommender.recommend(item_text(7), k=ITEMS).items
    lexical = {item.item_id: _terms(item).get("lexical", 0.0) for item in items}
    assert lexical["7"] - lexical["8"] == pytest.approx(10, abs=1e-2)
    scores = [item.score for item in items]
    assert scores == sorted(scores, reverse=True)


def test_a_batch_equals_single_texts(recommender: Recommender) -> None:
    batch = recommender.recommend(list(MIXED_TEXTS), k=ITEMS)
    singles = [recommender.recommend(text, k=ITEMS) for text in MIXED_TEXTS]
    assert all(map(same, batch, singles))


def test_every_backend_answers_as_the_edge_does(recommender: Recommender, edge: Recommender) -> None:
    theirs, ours = recommender.recommend(MIXED_TEXTS, k=ITEMS), edge.recommend(MIXED_TEXTS, k=ITEMS)
    assert all(map(same, theirs, ours))


def test_a_list_longer_than_a_batch_keeps_its_order(recommender: Recommender) -> None:
    asked = [item % ITEMS for item in range(150)]
    answers = recommender.recommend([item_text(item) for item in asked], k=1)
    assert [ids(answer) for answer in answers] == [[str(item)] for item in asked]


def test_an_empty_list_has_an_empty_answer(recommender: Recommender) -> None:
    assert recommender.recommend([]) == []


def test_excluded_items_do_not_come_back(recommender: Recommender) -> None:
    answer = recommender.recommend("denim dress", k=ITEMS, exclude=["3", "5", "no such item", "\0", '"\\', "😀"])
    assert sorted(ids(answer), key=int) == [str(item) for item in range(ITEMS) if item not in (3, 5)]


def test_filters_hold_together(recommender: Recommender) -> None:
    either = recommender.recommend("denim dress", filters={"colour": ["red", "navy"]})
    assert sorted(ids(either), key=int) == sorted((str(WORDS.index(colour)) for colour in ("red", "navy")), key=int)
    both = recommender.recommend("denim dress", filters={"colour": ("red", "navy"), "kind": (WORDS[ITEMS + 17],)})
    assert ids(both) == ["17"]
    assert recommender.recommend("denim dress", filters={"colour": ["red"], "kind": ["no such kind"]}).items == ()


@pytest.mark.parametrize(
    "options",
    [
        {"history": ["3", "no such item", "5"]},
        {"popularity": 10},
        {"diversity": 0.7},
        {"spelling": False},
        {"rules": [{"then": {"attribute": "colour", "equals": ["red"], "effect": "boost", "by": 3}}]},
    ],
    ids=lambda options: next(iter(options)),
)
def test_every_backend_honours_every_option(recommender: Recommender, edge: Recommender, options: Wanted) -> None:
    texts = [*MIXED_TEXTS, "a grean gown under $80"]
    theirs, ours = (one.recommend(texts, **options) for one in (recommender, edge))
    assert all(map(same, theirs, ours))
    plain = edge.recommend(texts)
    assert not all(map(same, ours, plain))  # it changes something


def test_every_backend_leaves_reasons_out_where_they_are_not_wanted(recommender: Recommender, edge: Recommender) -> None:
    bare, whole = recommender.recommend("a green gown", k=3, explain=False), edge.recommend("a green gown", k=3)
    assert [(one.item_id, one.title, one.reasons) for one in bare.items] == [(one.item_id, one.title, ()) for one in whole.items]
    assert [one.score for one in bare.items] == pytest.approx([one.score for one in whole.items], abs=1e-4)
    assert all(one.reasons for one in whole.items)


def test_a_history_brings_what_goes_with_it_and_not_itself(recommender: Recommender) -> None:
    answer = recommender.recommend("nothing that the catalogue knows", k=ITEMS, history=["3"])
    assert ids(answer)[:2] in (["10", "17"], ["17", "10"])
    assert "3" not in ids(answer)
    assert {reason.signal: reason.sentence for reason in answer.items[0].reasons}["behaviour"] == "because you chose “Item 3”"
    assert abs(int(ids(answer)[0]) - 3) % COMPANIONS == 0


def test_with_a_history_a_text_may_be_blank(recommender: Recommender) -> None:
    silent, spoken = recommender.recommend(["", "denim dress"], history=["4"])
    assert silent.items[0].item_id in ("11", "18")
    assert spoken.items[0].item_id == "3"
    assert all(map(_same_item, recommender.recommend(" \n", history=["4"]).items, silent.items))
    with pytest.raises(InvalidInput, match="text 1 is empty"):
        recommender.recommend(["denim", ""])
    with pytest.raises(InvalidInput, match="text 0 is empty"):
        recommender.recommend("", history=["no such item"])


def test_rules_that_fire_are_named_even_where_they_leave_nothing(recommender: Recommender) -> None:
    answer = recommender.recommend("a green gown under $35", k=ITEMS)
    assert sorted(ids(answer), key=int) == ["0", "1", "2", str(ITEMS - 1)]  # the last has no price
    assert answer.rules == ("budget",)
    nothing = {"name": "nothing", "then": {"attribute": "colour", "equals": ["ultraviolet"], "effect": "require"}}
    answer = recommender.recommend("green gown", rules=[nothing])
    assert (answer.items, answer.rules) == ((), ("nothing",))


def test_misspelt_words_are_read_as_they_were_meant(recommender: Recommender) -> None:
    answer = recommender.recommend("a Grean gown", k=1)
    assert answer.corrections == (Correction("Grean", "Green"),)
    assert set(" ".join(answer.items[0].reasons[0].words).split()) == {"green", "gown"}
    assert recommender.recommend("a Grean gown", k=1, spelling=False).corrections == ()


def test_more_than_the_catalogue_brings_the_catalogue(recommender: Recommender) -> None:
    assert len(recommender.recommend("denim dress", k=200).items) == ITEMS


def test_the_default_is_ten_items(recommender: Recommender) -> None:
    assert len(recommender.recommend("denim dress").items) == 10


def test_threads_share_one_recommender(recommender: Recommender) -> None:
    asked = [item % ITEMS for item in range(160)]
    with ThreadPoolExecutor(16) as threads:
        answers = list(threads.map(lambda item: recommender.recommend(item_text(item), k=1), asked))
    assert [ids(answer) for answer in answers] == [[str(item)] for item in asked]


def test_an_answer_names_the_bundle(recommender: Recommender, tiny_bundle: Path) -> None:
    assert recommender.recommend("red").bundle == Bundle.open(tiny_bundle, engines=False).fingerprint


def test_what_only_the_bundle_knows_is_refused_with_its_words(recommender: Recommender) -> None:
    with pytest.raises(InvalidInput, match=r"^k is 201; accepted is 1 to 200$"):
        recommender.recommend("red", k=201)
    with pytest.raises(InvalidInput, match=r"^filters names the attribute 'size'; the catalogue has \['colour', 'fabric', .*\]$"):
        recommender.recommend("red", filters={"size": ["xl"]})


def test_served_by_reads_as_its_value() -> None:
    assert (str(ServedBy.EDGE), f"{ServedBy.TRITON}", ServedBy("edge")) == ("edge", "triton", ServedBy.EDGE)
