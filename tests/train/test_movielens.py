"""MovieLens: wordless choices in the order of time, from files of the same form as the fetched ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from bertrec.errors import InvalidData, InvalidInput
from train.data import TEST, TRAIN, VALIDATION, Item, split_interactions
from train.examples import Pairs, make_examples
from train.movielens import GENRES, ITEMS_FILE, RATINGS_FILE, cut_histories, load_movielens

FILMS = (
    ("Matrix of Tests, The (1994)", ("Action", "Sci-Fi")),
    ("Big Example, A (Grand Exemple, L') (1987) ", ()),
    ("unknown", ()),
    ("Paris, Texas Ranger (1960) (V)", ("Children's",)),
)


def write_movielens(folder: Path, ratings: list[tuple[int, int, int, int]]) -> Path:
    """The films above, numbered from 1, and ratings as (user, film, rating, time)."""
    films = [
        {"movie_id": number, "movie_title": title} | {genre: int(genre in genres) for genre in ("unknown", *GENRES)}
        for number, (title, genres) in enumerate(FILMS, 1)
    ]
    rows = [dict(zip(("user_id", "movie_id", "rating", "timestamp"), rating, strict=True)) for rating in ratings]
    folder.mkdir(exist_ok=True)
    for name, table in ((ITEMS_FILE, films), (RATINGS_FILE, rows)):
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(table), folder / name, compression="brotli")
    return folder


def ten_choices(folder: Path) -> Path:
    """Ten choices at the times 0 to 9, written latest first: user 1 makes eight, user 2 the last two, the last of a new film."""
    ratings = [(1, 1 + time % 2, 4, time) for time in range(8)] + [(2, 1, 5, 8), (2, 4, 4, 9), (2, 3, 3, 5)]
    return write_movielens(folder, ratings[::-1])


def test_films_are_named_and_described_as_one_says_it(tmp_path: Path) -> None:
    assert load_movielens(ten_choices(tmp_path)).items == (
        Item("1", "The Matrix of Tests (1994)", "Action, sci-fi film of 1994", {"genre": "Action|Sci-Fi", "decade": "1990s"}),
        Item("2", "A Big Example (L'Grand Exemple) (1987)", "Film of 1987", {"decade": "1980s"}),
        Item("3"),
        Item("4", "Paris, Texas Ranger (1960) (V)", "Children's film of 1960", {"genre": "Children's", "decade": "1960s"}),
    )


def test_a_rating_of_four_or_five_is_a_choice(tmp_path: Path) -> None:
    rows = load_movielens(write_movielens(tmp_path, [(7, 1, rating, rating) for rating in range(1, 6)])).interactions
    assert [(row.user_id, row.item, row.rating, row.timestamp, row.text) for row in rows] == [
        ("7", 0, 4.0, 4.0, ""),
        ("7", 0, 5.0, 5.0, ""),
    ]


def test_the_future_is_held_out(tmp_path: Path) -> None:
    rows = load_movielens(ten_choices(tmp_path)).interactions
    assert [row.timestamp for row in rows] == [float(time) for time in range(10)]
    assert [row.split for row in rows] == [TRAIN] * 8 + [VALIDATION, TEST]


def test_segments_tell_the_history_and_whether_training_saw_the_film(tmp_path: Path) -> None:
    rows = load_movielens(ten_choices(tmp_path)).interactions
    assert [row.segments["history"] for row in rows] == ["none", *["1-4"] * 4, *["5-19"] * 3, "none", "1-4"]
    assert [row.segments["item"] for row in rows] == [*["seen in training"] * 9, "new"]
    many = load_movielens(write_movielens(tmp_path, [(1, 1, 5, time) for time in range(22)])).interactions
    assert [row.segments["history"] for row in many[18:]] == ["5-19", "5-19", "20+", "20+"]


def test_a_choice_asks_with_the_films_before_it(tmp_path: Path) -> None:
    dataset = load_movielens(ten_choices(tmp_path))
    examples = make_examples(dataset, split_interactions(dataset, 0))
    assert examples.test.texts == ["I liked The Matrix of Tests (1994)."]
    assert examples.test.items.tolist() == [examples.catalogue.tolist().index(3)]
    assert len(examples.validation) == 0  # the first choice of user 2 has nothing before it


def test_a_cut_history_keeps_the_latest_and_rewrites_the_profile() -> None:
    titles = ["Zero", "One", "Two", ""]
    pairs = Pairs(
        ["I liked Two; One; Zero.", "something like Two", "Two", "I liked Two."],
        np.asarray([3, 3, 2, 0], np.int64),
        [(0, 1, 2), (0, 1, 2), (), (2, 3)],
        np.asarray([5, 6, -1, 7], np.int64),
    )
    cut = cut_histories(pairs, titles, 2)
    assert cut.texts == ["I liked Two; One.", "something like Two", "Two", "I liked Two."]
    assert cut.histories == [(1, 2), (1, 2), (), (2, 3)]
    assert (cut.items.tolist(), cut.rows.tolist()) == ([3, 3, 2, 0], [5, 6, -1, 7])
    with pytest.raises(InvalidInput, match="n is 0; accepted is how many items"):
        cut_histories(pairs, titles, 0)


def test_what_is_not_there_or_not_readable_is_said(tmp_path: Path) -> None:
    with pytest.raises(InvalidData, match="'movielens' has not been fetched: .* is missing; fetch it with: make data-movielens"):
        load_movielens(tmp_path / "nowhere")
    (ten_choices(tmp_path) / RATINGS_FILE).write_bytes(b"no parquet")
    with pytest.raises(InvalidData, match="'movielens' cannot be read: .*; remove .* and fetch it again"):
        load_movielens(tmp_path)
