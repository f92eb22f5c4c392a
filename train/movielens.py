"""MovieLens-100k: who chose which film when, without a word; fetched by ``make data-movielens``, see data/README.md.

Harper and Konstan, The MovieLens Datasets: History and Context, 2015, https://doi.org/10.1145/2827872.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet

from bertrec.errors import InvalidData, InvalidInput
from bertrec.history import profile
from bertrec.text import clean
from train.data import TEST, TRAIN, VALIDATION, Dataset, Interaction, Item
from train.examples import Pairs

FOLDER = Path(__file__).parent.parent / "data" / "movielens"
RATINGS_FILE = "MovieLens100k_data.parquet.brotli"
ITEMS_FILE = "MovieLens100k_items.parquet.brotli"

CHOSEN_FROM = 4
"""The lowest rating, of 1 to 5, that counts as a choice."""
TRAIN_SHARE, VALIDATION_SHARE = 0.8, 0.1
GENRES = (
    "Action",
    "Adventure",
    "Animation",
    "Children's",
    "Comedy",
    "Crime",
    "Documentary",
    "Drama",
    "Fantasy",
    "Film-Noir",
    "Horror",
    "Musical",
    "Mystery",
    "Romance",
    "Sci-Fi",
    "Thriller",
    "War",
    "Western",
)

_ARTICLE_BEHIND = re.compile(r"([^()]+), (The|A|An|La|Le|Les|L'|Il|O|Der|Die|Das|Det)(?=\)| \(|$)")
_YEAR = re.compile(r"\((\d{4})\)")


@dataclass(frozen=True)
class _Choice:
    """A rating that counts as a choice."""

    user: str
    film: int
    rating: float
    time: float  # seconds since 1970, UTC


def load_movielens(folder: Path = FOLDER) -> Dataset:
    """1,682 films, and the ratings of 4 and 5 as wordless choices (implicit feedback), in the order of their times.

    The split is global and temporal: training ends at the time before which 80% of the choices were made, validation at that
    of 90%. segments: ``history``, how many films the user had chosen before; ``item``, whether training saw the film chosen.
    Raises InvalidData where the files have not been fetched or cannot be read.
    """
    try:
        films = pyarrow.parquet.read_table(folder / ITEMS_FILE).to_pylist()
        ratings = pyarrow.parquet.read_table(folder / RATINGS_FILE).to_pylist()
        items = tuple(map(_item, films))
        index_of = {film["movie_id"]: index for index, film in enumerate(films)}
        chosen = [row for row in ratings if row["rating"] >= CHOSEN_FROM]
        choices = [
            _Choice(str(row["user_id"]), index_of[row["movie_id"]], float(row["rating"]), float(row["timestamp"]))
            for row in chosen
        ]
    except FileNotFoundError as error:
        raise InvalidData(
            f"data set 'movielens' has not been fetched: {error.filename or error} is missing; fetch it with: make data-movielens"
        ) from error
    except (pyarrow.ArrowException, OSError, KeyError) as error:
        raise InvalidData(
            f"data set 'movielens' cannot be read: {error}; remove {folder} and fetch it again with: make data-movielens"
        ) from error
    return Dataset("movielens", items, _interactions(sorted(choices, key=lambda choice: choice.time)))


def cut_histories(pairs: Pairs, titles: Sequence[str], n: int) -> Pairs:
    """The same pairs as if each user had chosen only the latest ``n`` items of the history.

    titles: by catalogue index. A text that was written from the history is written again from what is left of it; the user's
    own words stay. Raises InvalidInput for n < 1, which would leave nothing to ask with.
    """
    if n < 1:
        raise InvalidInput(f"n is {n}; accepted is how many items of each history to keep, at least 1")
    cut = [history[-n:] for history in pairs.histories]
    texts = [
        _profile(left, titles) if whole and text == _profile(whole, titles) else text
        for text, whole, left in zip(pairs.texts, pairs.histories, cut, strict=True)
    ]
    return replace(pairs, texts=texts, histories=cut)


def _profile(history: Sequence[int], titles: Sequence[str]) -> str:
    """The text that :func:`train.examples.make_examples` writes for a history; empty without titles."""
    written = profile([titles[item] for item in history])
    return clean(written) if written else ""


def _item(film: dict[str, object]) -> Item:
    raw = str(film["movie_title"]).strip()
    genres = [genre for genre in GENRES if film[genre]]
    year = _YEAR.search(raw)
    text = " ".join([", ".join(genres).lower(), "film", f"of {year[1]}" if year else ""]).strip() if genres or year else ""
    attributes = {"genre": "|".join(genres), "decade": f"{year[1][:3]}0s" if year else ""}
    return Item(
        item_id=str(film["movie_id"]),
        title="" if raw == "unknown" else _natural(raw),
        text=text[:1].upper() + text[1:],
        attributes={name: value for name, value in attributes.items() if value},
    )


def _natural(title: str) -> str:
    """``Matrix, The (1999)`` as one says it: ``The Matrix (1999)``; a title in brackets likewise."""
    return _ARTICLE_BEHIND.sub(lambda found: found[2] + ("" if found[2].endswith("'") else " ") + found[1], title)


def _interactions(choices: Sequence[_Choice]) -> tuple[Interaction, ...]:
    """Interactions of choices in the order of their times."""
    times = np.asarray([choice.time for choice in choices])  # (choices,)
    if not len(times):
        return ()
    first, second = np.quantile(times, [TRAIN_SHARE, TRAIN_SHARE + VALIDATION_SHARE])
    seen = {choice.film for choice in choices if choice.time <= first}
    chosen_before: Counter[str] = Counter()
    interactions = []
    for choice in choices:
        interactions.append(
            Interaction(
                item=choice.film,
                user_id=choice.user,
                timestamp=choice.time,
                rating=choice.rating,
                split=TRAIN if choice.time <= first else VALIDATION if choice.time <= second else TEST,
                segments={
                    "history": _band(chosen_before[choice.user]),
                    "item": "seen in training" if choice.film in seen else "new",
                },
            )
        )
        chosen_before[choice.user] += 1
    return tuple(interactions)


def _band(length: int) -> str:
    """The length of a history; 20 is what every user of the source has rated at least."""
    return "none" if length == 0 else "1-4" if length < 5 else "5-19" if length < 20 else "20+"
