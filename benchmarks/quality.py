"""Quality on every data set: train, evaluate and study each seed, pool the seeds, and keep it all in one JSON file.

[data set][ranker][metric]: value, low, high, seeds (the value of each) and preset, of the queries as written; of the preset full
where it was measured, else of quick.
["details"][preset][data set]: provenance, runs, ways of asking, slices, ablation and operating points, as ``_details`` has them.
["transfer"][preset]: from clothes to applications, see benchmarks/transfer.py.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.machine import provenance
from benchmarks.pooling import Group, Seed, pooled, pooled_slices
from benchmarks.studies import (
    ABLATION,
    CORRECTED,
    COVERAGE,
    CUT,
    DIVERSIFIED,
    POINTS,
    SHORTER,
    TYPOS_CORRECTED,
    VALIDATION_POINTS,
    run_studies,
)
from benchmarks.transfer import english_only, measure_transfer
from bertrec.errors import InvalidData, InvalidInput
from train.data import Dataset
from train.evaluate import evaluate
from train.fit import fit
from train.measure import SLICED
from train.multilingual import MULTILINGUAL_BACKBONE
from train.progress import say
from train.records import write_json
from train.report import AS_WRITTEN, ROWS, read_per_query
from train.run import Run
from train.settings import PRESETS, FitSettings, Preset
from train.sources import BUNDLED, FETCHED, load_dataset

DATA = (*BUNDLED, *FETCHED)
BACKBONES = {"apps": MULTILINGUAL_BACKBONE}
"""Data whose wishes the default backbone cannot read."""
LEAST_COVERAGE = 0.5
"""Share of the catalogue that the operating point which we name must show."""
DETAILS, TRANSFER = "details", "transfer"


@dataclass(frozen=True)
class QualitySettings:
    """What to measure. backbone: for all data, instead of ``BACKBONES``; transfer: also from clothes to applications."""

    preset: Preset = Preset.QUICK
    data: tuple[str, ...] = DATA
    seeds: tuple[int, ...] = (0, 1, 2)
    runs: Path = Path("runs/quality")
    backbone: str | None = None
    transfer: bool = False

    def __post_init__(self) -> None:
        if not self.seeds or min(self.seeds) < 0 or len(set(self.seeds)) < len(self.seeds):
            raise InvalidInput(f"seeds are {list(self.seeds)}; accepted are one or more different whole numbers from 0 on")
        if not self.data:
            raise InvalidInput(f"no data is named; accepted are folders and {', '.join(DATA)}")

    def fit_settings(self, source: str, seed: int) -> FitSettings:
        """How one run is trained."""
        preset = PRESETS[self.preset]
        return dataclasses.replace(preset, seed=seed, backbone=self.backbone or BACKBONES.get(source, preset.backbone))

    def run_folder(self, name: str, seed: int) -> Path:
        """Where one run lies."""
        return self.runs / f"{name}-{self.preset.value}-{seed}"


def measure_quality(settings: QualitySettings, output: Path) -> dict[str, Any]:
    """Measure each data set and write ``output`` after each; returns what it holds, with what it held before.

    Runs and measurements that are finished are reused, so that a second call continues. Data that was not fetched is left out.
    Raises InvalidData, InvalidInput or InvalidRun as training and evaluation do, InvalidInput for an ``output`` of another kind.
    """
    content = read_quality(output)
    for source in settings.data:
        dataset = _load(source)
        if dataset is not None:
            seeds = [_measured(settings, source, dataset, seed) for seed in settings.seeds]
            say(f"{dataset.name}: pooling {len(seeds)} seeds")
            content[DETAILS].setdefault(settings.preset.value, {})[dataset.name] = _details(settings, dataset, seeds)
            _write(output, content)
    if settings.transfer:
        seed = settings.seeds[0]
        clothing = fit("clothing", settings.fit_settings("clothing", seed), settings.run_folder("clothing", seed))
        apps = english_only(load_dataset("apps"))
        content[TRANSFER][settings.preset.value] = measure_transfer(clothing, apps, settings.runs / "transfer")
        _write(output, content)
    return content


def read_quality(path: Path) -> dict[str, Any]:
    """What an earlier call wrote; an empty file's content where there is none. Raises InvalidInput for something else."""
    if not path.is_file():
        return {DETAILS: {}, TRANSFER: {}}
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return {**content, DETAILS: dict(content[DETAILS]), TRANSFER: dict(content[TRANSFER])}
    except (ValueError, KeyError, TypeError, UnicodeDecodeError) as error:
        raise InvalidInput(
            f"{path} is not what this command writes ({type(error).__name__}: {error}); remove it or choose another --output"
        ) from None


def best_details(content: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Data set → its details, of the preset full where that was measured."""
    by_preset = content[DETAILS]
    return {**by_preset.get(Preset.QUICK.value, {}), **by_preset.get(Preset.FULL.value, {})}


def _load(source: str) -> Dataset | None:
    """The data set; None, with a line that says so, for one that must be fetched first."""
    try:
        return load_dataset(source)
    except InvalidData as error:
        if source not in FETCHED:
            raise
        say(f"left out: {error}")
        return None


def _measured(settings: QualitySettings, source: str, dataset: Dataset, seed: int) -> Seed:
    """One seed: trained, evaluated in every way of asking beside the baselines, and studied."""
    folder = settings.run_folder(dataset.name, seed)
    say(f"{dataset.name}, preset {settings.preset.value}, seed {seed}: {folder}")
    run = fit(source, settings.fit_settings(source, seed), folder)
    evaluation = evaluate(run, queries=["all"], baselines=["all"])
    return Seed(run, evaluation, {**run_studies(run, dataset), **read_per_query(run)})


def _details(settings: QualitySettings, dataset: Dataset, seeds: Sequence[Seed]) -> dict[str, Any]:
    """Everything that was measured on one data set with one preset."""
    asked = [kind for kind in seeds[0].evaluation.kinds if all(kind in seed.evaluation.kinds for seed in seeds)]
    studied = [study for study in (CORRECTED, TYPOS_CORRECTED, CUT) if f"{study}/{ROWS}" in seeds[0].arrays]
    points, chosen_by = (pooled(seeds, study, SLICED) for study in (POINTS, VALIDATION_POINTS))
    return {
        "preset": settings.preset.value,
        "seeds": list(settings.seeds),
        "provenance": asdict(provenance()),
        "runs": [_origin(seed.run) for seed in seeds],
        "items": [seed.evaluation.items for seed in seeds],
        "attribute": seeds[0].evaluation.attribute,
        "kinds": {kind: pooled(seeds, kind) for kind in (*asked, *studied)},
        "slices": pooled_slices(seeds, dataset),
        "ablation": pooled(seeds, ABLATION, SLICED),
        "diversified": pooled(seeds, DIVERSIFIED, SLICED),
        "shorter": pooled(seeds, SHORTER, SLICED),
        "operating_points": {"test": points, "validation": chosen_by, "chosen": chosen_point(chosen_by)},
    }


def _origin(run: Run) -> dict[str, Any]:
    names = ("created", "source_commit", "versions", "minutes", "texts", "texts_read", "fusion", "signals")
    return {"settings": dict(run.settings), **{name: run.record[name] for name in names}}


def chosen_point(points: Group) -> str | None:
    """The operating point with the highest NDCG@10 of those that show at least half of the catalogue; None where none does."""
    rankers = points["rankers"]
    enough = [name for name in rankers if rankers[name][COVERAGE]["value"] >= LEAST_COVERAGE]
    return max(enough, key=lambda name: float(rankers[name]["ndcg_at_10"]["value"]), default=None)


def _write(output: Path, content: dict[str, Any]) -> None:
    """Write the file, with the plain figures of each data set at its top."""
    plain = {
        name: {
            ranker: {metric: {**statistic, "preset": details["preset"]} for metric, statistic in metrics.items()}
            for ranker, metrics in details["kinds"][AS_WRITTEN]["rankers"].items()
        }
        for name, details in best_details(content).items()
    }
    content.update(plain)
    output.parent.mkdir(parents=True, exist_ok=True)
    write_json(output, {**plain, DETAILS: content[DETAILS], TRANSFER: content[TRANSFER]})
