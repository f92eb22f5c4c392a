"""Where a data set comes from: bundled with the project or fetched by make, by its name, or a folder of the user's own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from bertrec.errors import InvalidData
from train.apps import load_apps
from train.clothing import load_clothing
from train.data import Dataset
from train.faq import load_faq
from train.movielens import load_movielens
from train.tables import read_folder

BUNDLED: Mapping[str, Callable[[], Dataset]] = {"clothing": load_clothing}
FETCHED: Mapping[str, Callable[[], Dataset]] = {"apps": load_apps, "faq": load_faq, "movielens": load_movielens}
"""Not part of the project: ``make data-NAME`` fetches each into data/."""


def load_dataset(source: str) -> Dataset:
    """The bundled or fetched data set of that name, or else the folder (write ``./clothing`` for a folder of such a name).

    Raises InvalidData if it is none of them, has not been fetched, or if what the folder holds cannot be used.
    """
    if load := {**BUNDLED, **FETCHED}.get(source):
        return load()
    if source.strip() and Path(source).is_dir():
        return read_folder(Path(source))
    found = "a file" if source.strip() and Path(source).is_file() else "neither a known data set nor a folder"
    raise InvalidData(
        f"data source {source!r}: found {found}; accepted are the fetched data sets ({', '.join(sorted(FETCHED))}), "
        f"the bundled data sets ({', '.join(sorted(BUNDLED))}) and a folder with items.{{parquet,csv,jsonl}} and "
        "interactions.{parquet,csv,jsonl}"
    )
