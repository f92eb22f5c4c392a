"""Search over the settings of training: a study of runs, each judged by NDCG@10 of the fused recommender on validation.

    study.db       the trials, as Optuna keeps them (SQLite)
    study.json     what is searched, every finished trial, and the best one's folder
    trials/<id>    the run folder of the best trial, and of the one at work; the others are deleted

The search is a tree-structured Parzen estimator (Bergstra et al., 2011) in Optuna. What it proposes depends only on the seed and
on the finished trials, so that a study that was killed proposes the interrupted trial again, which continues from its
checkpoint in the folder of the same settings.

What is not searched: the weights of the signals and how strongly item vectors are drawn towards their texts, which every training
chooses on validation by itself. The temperature is searched as that which training begins with (``text_scale`` is its inverse);
the one that it ends with is learned, as the lengths of the item vectors. No trial is cut
short by how its first passes rank, since one that learns more slowly may end higher.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.samplers import TPESampler
from optuna.trial import FrozenTrial, Trial, TrialState
from rich.table import Table

from bertrec.errors import InvalidData, InvalidInput, InvalidRun
from bertrec.tensors import GRAPH
from train.fit import fit
from train.progress import say
from train.records import write_json
from train.run import Run, open_run
from train.settings import FitSettings
from train.sources import load_dataset

STUDY_FILE, STORAGE_FILE, TRIALS_FOLDER = "study.json", "study.db", "trials"
ENCODER_RATES, ITEM_RATES = (2e-5, 5e-4), (1e-3, 2e-2)
"""From where a step changes next to nothing to where training leaves what was pre-trained."""
TEXT_SCALES = (5.0, 40.0)
"""Half of what was set by hand to four times as much."""
BATCH_SIZES = (16, 32, 64)
MOST_EPOCHS = 4
"""Quality on validation fell after the third pass in every run so far."""
LEXICAL_DIMENSIONS = (128, 256, 384)
RANDOM_TRIALS = 8
"""Trials at random before the estimator has something to go by; Optuna's own 10 are a night on two cores."""


@dataclass(frozen=True)
class TuneSettings:
    """A search. base: what every trial begins from; its seed is the search's too. trials: finished ones, of all sittings."""

    base: FitSettings
    trials: int = 20

    def __post_init__(self) -> None:
        if self.trials < 1:
            raise InvalidInput(f"trials is {self.trials}; accepted is 1 or more")


@dataclass(frozen=True)
class Tuned:
    """What a search found. trials: finished, in their order; best: the run of the best, ndcg_at_10 what it reached."""

    trials: tuple[FrozenTrial, ...]
    best: Run
    ndcg_at_10: float


def tune(source: str, settings: TuneSettings, output: Path) -> Tuned:
    """Train until ``settings.trials`` trials are finished in ``output``; a study that is there already is continued.

    One process at a time. Raises InvalidRun where ``output`` holds something else or a study of other data or settings, what
    :func:`train.fit.fit` raises, and InvalidData where the data has no validation text to judge by.
    """
    study = _open_study(source, settings.base, output)
    for stopped in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        study.tell(stopped.number, state=TrialState.FAIL)  # proposed once more below, and continued in its folder
    while (done := len(_finished(study))) < settings.trials:
        study.sampler = TPESampler(seed=_seed(settings.base.seed, done), n_startup_trials=RANDOM_TRIALS)
        trial = study.ask()
        chosen = propose(trial, settings.base)
        folder = output / TRIALS_FOLDER / _identity(chosen)
        say(f"trial {done + 1} of {settings.trials}: {_described(trial.params)}")
        study.tell(trial, _judged(fit(source, chosen, folder)))
        _keep_best(study, settings.base, output)
    return _tuned(study, settings.base, output)


def propose(trial: Trial, base: FitSettings) -> FitSettings:
    """The settings of a trial, drawn from the space that is searched."""
    return dataclasses.replace(
        base,
        encoder_learning_rate=trial.suggest_float("encoder_learning_rate", *ENCODER_RATES, log=True),
        item_learning_rate=trial.suggest_float("item_learning_rate", *ITEM_RATES, log=True),
        batch_size=trial.suggest_categorical("batch_size", BATCH_SIZES),
        epochs=trial.suggest_int("epochs", 1, MOST_EPOCHS),
        prior_weight=trial.suggest_float("prior_weight", 0.0, 1.0),
        lexical_dimensions=trial.suggest_categorical("lexical_dimensions", LEXICAL_DIMENSIONS),
        without=base.without if trial.suggest_categorical("graph", (True, False)) else tuple({*base.without, GRAPH}),
        text_scale=trial.suggest_float("text_scale", *TEXT_SCALES, log=True),  # last: what a seed draws for the others stays
    )


def tuned_table(tuned: Tuned) -> Table:
    """Every finished trial, the best first."""
    table = Table(title=f"{len(tuned.trials)} trials by NDCG@10 on validation; the best is {tuned.best.folder}")
    names = list(tuned.trials[0].params)
    for name in ("NDCG@10", *names):
        table.add_column(name.replace("_", " "), justify="right")
    for trial in sorted(tuned.trials, key=_value, reverse=True):
        table.add_row(f"{_value(trial):.4f}", *(_shown(trial.params[name]) for name in names))
    return table


def _open_study(source: str, base: FitSettings, output: Path) -> optuna.Study:
    about = {"data": load_dataset(source).fingerprint, "base": _as_json(base)}
    storage = output / STORAGE_FILE
    if output.exists() and any(output.iterdir()) and not storage.is_file():
        raise InvalidRun(f"{output} is not empty and holds no study. Choose another --output")
    output.mkdir(parents=True, exist_ok=True)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(
        storage=f"sqlite:///{storage.resolve()}", study_name="tune", direction="maximize", load_if_exists=True
    )
    known = study.user_attrs
    if not known:
        for name, value in about.items():
            study.set_user_attr(name, value)
    elif differing := [name for name, value in about.items() if known.get(name) != value]:
        raise InvalidRun(
            f"{output} holds a study of another {' and another '.join(differing)} (base: what trials begin from, that is preset, "
            "seed, backbone and minutes). Choose another --output or delete it"
        )
    return study


def _judged(run: Run) -> float:
    """What a trial is judged by. Raises InvalidData where there was nothing to judge by."""
    found = run.record["fusion"]["validation_ndcg_at_10"]
    if found is None:
        raise InvalidData(f"{run.folder}: the validation split holds no texts to judge a trial by; give more interactions a text")
    return float(found)


def _keep_best(study: optuna.Study, base: FitSettings, output: Path) -> None:
    """Delete the runs of all finished trials but the best, and write study.json."""
    kept = _best_folder(study, base, output)
    for folder in (output / TRIALS_FOLDER).iterdir():
        if folder != kept:
            shutil.rmtree(folder)
    record = {
        "objective": "NDCG@10 of the fused recommender on validation",
        **study.user_attrs,
        "best": {"folder": f"{TRIALS_FOLDER}/{kept.name}", "ndcg_at_10": study.best_value, "settings": study.best_params},
        "trials": [{"ndcg_at_10": trial.value, "settings": trial.params} for trial in _finished(study)],
    }
    write_json(output / STUDY_FILE, record)


def _tuned(study: optuna.Study, base: FitSettings, output: Path) -> Tuned:
    return Tuned(tuple(_finished(study)), open_run(_best_folder(study, base, output)), study.best_value)


def _best_folder(study: optuna.Study, base: FitSettings, output: Path) -> Path:
    chosen = propose(optuna.trial.FixedTrial(study.best_params), base)  # type: ignore[arg-type]  # suggests as a Trial does
    return output / TRIALS_FOLDER / _identity(chosen)


def _finished(study: optuna.Study) -> list[FrozenTrial]:
    return study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))


def _seed(seed: int, done: int) -> int:
    """Of the proposal after ``done`` finished trials: the same whenever it is made."""
    return int.from_bytes(hashlib.sha256(f"{seed} {done}".encode()).digest()[:4], "big")


def _identity(settings: FitSettings) -> str:
    return hashlib.sha256(json.dumps(_as_json(settings), sort_keys=True).encode()).hexdigest()[:12]


def _as_json(settings: FitSettings) -> dict[str, Any]:
    """The settings as JSON gives them back."""
    content: dict[str, Any] = json.loads(json.dumps({**dataclasses.asdict(settings), "preset": settings.preset.value}))
    return content


def _value(trial: FrozenTrial) -> float:
    return math.nan if trial.value is None else trial.value


def _described(params: Mapping[str, Any]) -> str:
    return ", ".join(f"{name.replace('_', ' ')} {_shown(value)}" for name, value in params.items())


def _shown(value: object) -> str:
    return f"{value:.2g}" if isinstance(value, float) else str(value)
