"""Where a data set comes from: bundled with the project, by its name, or a folder of the user's own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from bertrec.errors import InvalidData
from train.clothing import load_clothing
from train.data import Dataset
from train.tables import read_folder

BUNDLED: Mapping[str, Callable[[], Dataset]] = {"clothing": load_clothing}


def load_dataset(source: str) -> Dataset:
    """The bundled data set of that name, or else the folder (write ``./clothing`` for a folder of a bundled name).

    Raises InvalidData if it is neither, or if what the folder holds cannot be used.
    """
    if source in BUNDLED:
        return BUNDLED[source]()
    if source.strip() and Path(source).is_dir():
        return read_folder(Path(source))
    found = "a file" if source.strip() and Path(source).is_file() else "neither a bundled data set nor a folder"
    raise InvalidData(
        f"data source {source!r}: found {found}; accepted are the bundled data sets ({', '.join(sorted(BUNDLED))}) and a folder "
        "with items.{parquet,csv,jsonl} and interactions.{parquet,csv,jsonl}"
    )
