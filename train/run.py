"""The run folder: what training leaves for evaluation and export.

run.json            settings, data, timings, versions; ``finished`` is set last
encoder/            the fine-tuned BERT and its tokenizer, as save_pretrained writes them
signals/            the lexical, the graph and the behaviour signal, the gate, the spelling corrector
items/*.npy         the item side of each signal, centred on the average item
maps/*.npy          from what is said of an item to its vector, for each signal that was learned
zero_shot/*.npy     the pre-trained encoder's vectors of the training texts, and of the items, for baselines and diversity
catalogue.jsonl     the ranked items
multi_task/         heads that were learned together with the recommendation, where that was asked for
heads/              sentiment and topics, once ``python -m train heads`` has been run
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bertrec.errors import InvalidRun
from train.data import Dataset
from train.records import source_commit, write_json
from train.settings import FitSettings

SCHEMA_VERSION = 2
RUN_FILE = "run.json"
METRICS_FILE = "metrics.json"
FIT_COMMAND = "python -m train fit --data clothing --preset quick --output runs/NAME"
_DEFAULTS = {one.name: one.default for one in fields(FitSettings)}
"""What a setting was in a run that is older than it."""
_PACKAGES = ("torch", "transformers", "numpy", "scikit-learn")


@dataclass(frozen=True)
class Run:
    """A run folder and what its run.json says."""

    folder: Path
    record: Mapping[str, Any]

    @property
    def encoder_folder(self) -> Path:
        """The fine-tuned BERT and its tokenizer."""
        return self.folder / "encoder"

    @property
    def tokenizer_file(self) -> Path:
        """The tokenizer as the bundle takes it."""
        return self.encoder_folder / "tokenizer.json"

    @property
    def signals_folder(self) -> Path:
        """The lexical signal's files."""
        return self.folder / "signals"

    @property
    def catalogue_file(self) -> Path:
        """The ranked items."""
        return self.folder / "catalogue.jsonl"

    @property
    def settings(self) -> Mapping[str, Any]:
        """The FitSettings by name."""
        settings: Mapping[str, Any] = self.record["settings"]
        return settings

    @property
    def finished(self) -> bool:
        """Whether training came to its end."""
        return bool(self.record["finished"])

    def array(self, name: str) -> NDArray[Any]:
        """An array of the run by its path without ending, such as ``items/text``."""
        array: NDArray[Any] = np.load(self.folder / f"{name}.npy", allow_pickle=False)
        return array

    def save_array(self, name: str, array: NDArray[Any]) -> None:
        """Write what :meth:`array` reads."""
        path = self.folder / f"{name}.npy"
        path.parent.mkdir(exist_ok=True)
        np.save(path, array, allow_pickle=False)

    def start(self) -> None:
        """Make the folder, and record what will be trained in it. Does nothing to a run that was started before."""
        if not (self.folder / RUN_FILE).is_file():
            self.folder.mkdir(parents=True, exist_ok=True)
            write_json(self.folder / RUN_FILE, self.record)

    def finish(self, results: Mapping[str, Any]) -> Run:
        """Mark the run as finished, with what was measured on the way."""
        finished = Run(self.folder, {**self.record, **results, "finished": True})
        write_json(self.folder / RUN_FILE, finished.record)
        return finished


def begin_run(folder: Path, settings: FitSettings, source: str, dataset: Dataset) -> Run:
    """The run of these settings in ``folder``: a new one, to be started, or the one that is there, finished or not.

    Raises InvalidRun where the folder holds something else, or a run of other settings or data.
    """
    described: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "source": source if not Path(source).exists() else str(Path(source).resolve()),
        "data": {"name": dataset.name, "fingerprint": dataset.fingerprint},
        # As JSON gives them back, so that they compare with those of a run that was read: tuples become lists.
        "settings": json.loads(json.dumps({**asdict(settings), "preset": settings.preset.value})),
    }
    if (folder / RUN_FILE).is_file():
        run = _read(folder)
        # What may change between two sittings of one run is how long they may take.
        differing = [
            f"{name}: {run.settings.get(name)!r} there, {value!r} asked for"
            for name, value in described["settings"].items()
            if name != "max_minutes" and run.settings.get(name, _DEFAULTS.get(name)) != value
        ]
        if run.record["data"] != described["data"]:
            differing.append("the data")
        if differing:
            raise InvalidRun(
                f"{folder} holds a run of other settings ({'; '.join(differing)}). Choose another --output or delete it"
            )
        return run
    if folder.exists() and any(folder.iterdir()):
        raise InvalidRun(f"{folder} is not empty and holds no run. Choose another --output")
    record = {
        **described,
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "source_commit": source_commit(),
        "versions": {package: version(package) for package in _PACKAGES},
        "finished": False,
    }
    return Run(folder, record)


def open_run(folder: str | Path) -> Run:
    """A finished run. Raises InvalidRun, with the command that makes one, where there is none."""
    folder = Path(folder)
    if not (folder / RUN_FILE).is_file():
        raise InvalidRun(f"{folder} holds no run; one is made by: {FIT_COMMAND}")
    run = _read(folder)
    if not run.finished:
        raise InvalidRun(f"{folder} holds a run that is not finished; the same fit command continues it")
    return run


def _read(folder: Path) -> Run:
    path = folder / RUN_FILE
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        version_found = record["schema_version"]
    except (ValueError, KeyError, TypeError) as error:
        raise InvalidRun(f"{path} is not a run's record ({type(error).__name__}: {error})") from None
    if version_found != SCHEMA_VERSION:
        raise InvalidRun(
            f"{path}: schema version {version_found!r}; this release reads {SCHEMA_VERSION}. Train again: {FIT_COMMAND}"
        )
    return Run(folder, record)
