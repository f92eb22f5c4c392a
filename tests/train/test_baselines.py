"""Every baseline on data whose right answer is known."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from bertrec.errors import InvalidData, InvalidInput
from bertrec.signals import analyse
from tests.tiny import ITEMS, WORDS, item_text
from train.baselines import BASELINES, CHEAP, COLLABORATIVE, Context, PlainRecipe, PlainSettings, Ranker
from train.baselines.contract import choose
from train.baselines.plain import item_texts
from train.baselines.popular import Popularity
from train.data import TEST, TRAIN, VALIDATION, Dataset, Interaction, Item, split_interactions
from train.examples import Pairs, make_examples
from train.metrics import top_items

WISHES = ("i want {}", "{} please", "my {} is old", "a {} for me")
TEXT_BASELINES = ("bm25", "tfidf", "knn", "logreg", "zero-shot")


def context_of(dataset: Dataset, **settings: object) -> Context:
    return replace(Context(make_examples(dataset, split_interactions(dataset, 0)), dataset), **settings)  # type: ignore[arg-type]


def checkerboard(items: int = ITEMS) -> Dataset:
    rows = [Interaction(item, wish.format(item_text(item)), split=TRAIN) for wish in WISHES for item in range(items)]
    rows += [Interaction(item, f"{item_text(item)} again", split=VALIDATION) for item in range(items)]
    rows += [Interaction(item, f"would you have one of {item_text(item)}?", split=TEST) for item in range(items)]
    return Dataset("checkerboard", tuple(Item(str(item)) for item in range(items)), tuple(rows))


def bag_of_words(texts: list[str]) -> NDArray[np.float32]:
    """An encoder with known vectors: which of the catalogue's words a text has."""
    rows = [[float(word in analyse(text)) for word in WORDS] for text in texts]
    return np.asarray(rows, np.float32)


@pytest.mark.parametrize("name", TEXT_BASELINES)
def test_words_that_only_one_item_has_bring_it_first(name: str) -> None:
    context = context_of(checkerboard(), encode=bag_of_words)
    queries = context.examples.test
    scores = BASELINES[name](context).scores(queries)
    assert scores.shape == (ITEMS, ITEMS)
    assert scores.dtype == np.float32
    assert top_items(scores, 1)[:, 0].tolist() == queries.items.tolist()


@pytest.mark.parametrize("name", TEXT_BASELINES)
def test_a_query_is_scored_alone_as_among_others_and_without_known_words(name: str) -> None:
    context = context_of(checkerboard(6), encode=bag_of_words)
    ranker = BASELINES[name](context)
    queries = Pairs([*context.examples.test.texts, "???"], np.append(context.examples.test.items, 0))
    together = ranker.scores(queries)
    assert np.isfinite(together).all()
    alone = np.vstack([ranker.scores(queries.take(np.asarray([row]))) for row in range(len(queries))])
    assert together == pytest.approx(alone, abs=1e-5)


def test_bm25_scores_as_the_formula_says() -> None:
    dataset = Dataset("two", (Item("0"), Item("1")), (Interaction(0, "red red hat"), Interaction(1, "blue coat")))
    context = context_of(dataset)
    scores = BASELINES["bm25"](context).scores(Pairs(["red"], np.asarray([0])))
    idf = np.log(1 + (2 - 1 + 0.5) / (1 + 0.5))  # of a word in one of two documents
    frequency = 2 / (2 + 1.5 * (1 - 0.75 + 0.75 * 3 / 2.5))  # twice in three words, where 2.5 are the average
    assert scores == pytest.approx(np.asarray([[idf * frequency, 0.0]]), abs=1e-6)


def test_popularity_is_the_counts() -> None:
    rows = tuple(Interaction(item, "hat") for item in (0, 1, 1, 2, 2, 2))
    context = context_of(Dataset("hats", tuple(Item(str(item)) for item in range(3)), rows))
    scores = BASELINES["popularity"](context).scores(Pairs(["a hat", "a coat"], np.zeros(2, np.int64)))
    assert scores.tolist() == [[1.0, 2.0, 3.0]] * 2


def test_nearest_texts_vote_with_their_cosines() -> None:
    rows = tuple(Interaction(item, text) for item, text in ((0, "red hat"), (0, "red hat"), (1, "red coat"), (1, "blue")))
    context = context_of(Dataset("hats", (Item("0"), Item("1")), rows))
    ranker = BASELINES["knn"](context)
    scores = ranker.scores(Pairs(["red hat", "blue"], np.zeros(2, np.int64)))
    assert scores[0, 0] == pytest.approx(2.0)
    assert scores[1].tolist() == pytest.approx([0.0, 1.0])


def test_zero_shot_takes_vectors_that_are_known() -> None:
    context = context_of(checkerboard())
    known = bag_of_words(context.examples.train.texts)
    asked: list[int] = []

    def encode(texts: list[str]) -> NDArray[np.float32]:
        asked.append(len(texts))
        return bag_of_words(texts)

    ranker = BASELINES["zero-shot"](replace(context, train_vectors=known.astype(np.float16), encode=encode))  # type: ignore[arg-type]
    assert top_items(ranker.scores(context.examples.test), 1)[:, 0].tolist() == context.examples.test.items.tolist()
    assert asked == [ITEMS]  # the queries, and no training text


def test_zero_shot_loads_the_backbone(tiny_backbone: Path) -> None:
    context = context_of(checkerboard(4), backbone=tiny_backbone)
    train = context.examples.train
    scores = BASELINES["zero-shot"](context).scores(train)
    assert scores.max() <= 1.0 + 1e-5
    own = scores[np.arange(len(train)), train.items]
    assert own.mean() > scores.mean()


def two_groups() -> Dataset:
    """Users 0–9 choose among items 0–4, users 10–19 among items 5–9; each leaves one out, and one user is new."""
    rows = [
        Interaction(item, "one", f"user {user}", split=TRAIN)
        for user in range(20)
        for item in range(5 * (user // 10), 5 * (user // 10) + 5)
        if item != 5 * (user // 10) + user % 5
    ]
    rows += [Interaction(9, "one", f"user {user}", split=TRAIN) for user in range(20, 24)]
    return Dataset("groups", tuple(Item(str(item)) for item in range(10)), tuple(rows))


@pytest.mark.parametrize("name", COLLABORATIVE)
def test_what_others_with_the_same_history_chose_comes_first(name: str) -> None:
    context = context_of(two_groups())
    queries = Pairs(["one"] * 3, np.asarray([4, 8, 9]), [(0, 1), (5, 6, 7), ()])
    scores = BASELINES[name](context).scores(queries)
    top = top_items(scores)
    assert set(top[0, :3].tolist()) == {2, 3, 4}
    assert set(top[1, :2].tolist()) == {8, 9}
    assert np.isneginf(scores[[0, 0, 1, 1, 1], [0, 1, 5, 6, 7]]).all()
    assert np.isneginf(scores).sum() == 5
    assert top[2].tolist() == [9, 0, 1, 2, 3, 4, 5, 6, 7, 8]  # no history: by popularity


@pytest.mark.parametrize("name", COLLABORATIVE)
def test_collaborative_filtering_needs_users_and_the_examples_own_seed(name: str) -> None:
    with pytest.raises(InvalidData, match="checkerboard.*user_id"):
        BASELINES[name](context_of(checkerboard()))
    rows = tuple(Interaction(number % 7, "one", f"user {number % 5}") for number in range(40))
    drawn = context_of(Dataset("drawn", tuple(Item(str(item)) for item in range(7)), rows))
    BASELINES[name](drawn)
    with pytest.raises(InvalidInput, match="seed 1 "):
        BASELINES[name](replace(drawn, seed=1))


def test_validation_chooses_and_the_first_wins_without_queries() -> None:
    worse, better = Popularity(np.asarray([2, 1])), Popularity(np.asarray([1, 2]))
    assert choose([worse, better], Pairs(["b"], np.asarray([1]))) is better
    assert choose([worse, better], Pairs([], np.zeros(0, np.int64))) is worse


def test_names_are_unique_and_the_lists_are_of_baselines() -> None:
    context = context_of(checkerboard(3), encode=bag_of_words)
    rankers: list[Ranker] = [BASELINES[name](context) for name in (*CHEAP, "logreg")]
    rankers += [BASELINES[name](context_of(two_groups())) for name in COLLABORATIVE]
    assert len({ranker.name for ranker in rankers}) == len(BASELINES) - 1
    assert "plain-recipe" not in CHEAP
    assert "plain recipe" not in {ranker.name for ranker in rankers}


def test_the_plain_recipe_ranks_what_it_learned(tiny_backbone: Path) -> None:
    """Two layers of random weights learn little in a few passes, but they learn to tell a wish's own item from others."""
    settings = PlainSettings(max_minutes=None, max_queries=3, epochs=12, learning_rate=1e-3, negatives=2)
    ranker = BASELINES["plain-recipe"](context_of(checkerboard(4), backbone=tiny_backbone, plain=settings))
    assert isinstance(ranker, PlainRecipe)
    queries = context_of(checkerboard(4)).examples.test
    sample = ranker.sample(queries)
    assert len(set(sample.tolist())) == 3
    assert sample.tolist() == ranker.sample(queries).tolist()
    scores = ranker.scores(queries)
    right = np.eye(scores.shape[1], dtype=bool)[queries.items]
    assert scores[right].mean() > scores[~right].mean()
    assert (ranker.report.epochs, ranker.report.complete, ranker.report.queries) == (12.0, True, 4)


def test_the_plain_recipe_stops_when_its_time_is_up(tiny_backbone: Path) -> None:
    settings = PlainSettings(max_minutes=1e-9)
    ranker = BASELINES["plain-recipe"](context_of(checkerboard(4), backbone=tiny_backbone, plain=settings))
    assert isinstance(ranker, PlainRecipe)
    assert (ranker.report.epochs, ranker.report.complete) == (0.0, False)
    with pytest.raises(InvalidInput, match="max_minutes is 0"):
        PlainSettings(max_minutes=0)
    with pytest.raises(InvalidInput, match="max_queries is 0"):
        PlainSettings(max_queries=0)


def test_the_plain_recipe_reads_an_items_own_text_or_else_what_is_said_of_it() -> None:
    items = (Item("0", "Hat", "Made of felt."), Item("1", "Coat", attributes={"colour": "navy"}), Item("2"))
    rows = tuple(Interaction(item, text) for item, text in ((0, "warm"), (1, "warm woollen"), (2, "warm cotton")))
    texts = item_texts(context_of(Dataset("clothes", items, rows)))
    assert texts[0] == "Hat. Made of felt."
    assert texts[1].startswith("Coat. navy. ")
    assert "woollen" in texts[1]
    assert texts[2] == "cotton warm"  # most telling first
