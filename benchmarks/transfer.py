"""From one domain to another: whether an encoder fine-tuned on clothes helps where applications have few labelled texts.

Two recommenders of applications are trained on the very same texts, one from the pre-trained encoder, the other from the one that
was fine-tuned on clothes. English sentences only, and the preset quick for both.
"""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.machine import provenance
from train.data import TRAIN, Dataset, Interaction
from train.evaluate import evaluate
from train.fit import fit
from train.report import AS_WRITTEN
from train.run import Run
from train.settings import PRESETS, Preset

ENGLISH = "english sentence"
LABELLED = (0, 100, 1_000)
"""Training texts of applications, besides the applications' own names and summaries."""
METRICS = ("ndcg_at_10", "recall_at_10")
RANKERS = ("fused", "text alone")


def measure_transfer(clothing: Run, dataset: Dataset, runs: Path) -> dict[str, Any]:
    """``rows``: labelled texts, what the encoder began as, ranker, and value, low and high of each of ``METRICS`` on test texts.

    clothing: whose encoder is carried over; its seed draws which texts count, its own backbone is the one to compare with.
    """
    seed = int(clothing.settings["seed"])
    began = {"pre-trained": clothing.settings["backbone"], "fine-tuned on clothes": str(clothing.encoder_folder)}
    rows = []
    for labelled in LABELLED:
        part = write_folder(cut(dataset, labelled, seed), runs / f"{dataset.name}-{labelled}-of-seed-{seed}")
        for begun_as, backbone in began.items():
            settings = dataclasses.replace(PRESETS[Preset.QUICK], seed=seed, backbone=backbone)
            folder = runs / f"{begun_as.replace(' ', '-')}-{clothing.settings['preset']}-{labelled}-{seed}"
            evaluation = evaluate(fit(str(part), settings, folder), baselines=["none"])
            for ranker in RANKERS:
                measured = evaluation.kinds[AS_WRITTEN].rankers[ranker]
                metrics = {metric: dataclasses.asdict(measured[metric]) for metric in METRICS}
                rows.append({"labelled": labelled, "encoder": begun_as, "ranker": ranker, **metrics})
    return {"seed": seed, "provenance": dataclasses.asdict(provenance()), "rows": rows}


def english_only(dataset: Dataset) -> Dataset:
    """The data set without what is asked in Chinese."""
    kept = tuple(row for row in dataset.interactions if row.segments.get("query") == ENGLISH)
    return dataclasses.replace(dataset, interactions=kept)


def cut(dataset: Dataset, labelled: int, seed: int) -> Dataset:
    """The data set with so many of its training texts, drawn by the seed; what is drawn for fewer is among those for more."""
    training = [row for row, interaction in enumerate(dataset.interactions) if interaction.split == TRAIN]
    kept = set(np.random.default_rng(seed).permutation(training)[:labelled].tolist())
    rows = tuple(one for row, one in enumerate(dataset.interactions) if one.split != TRAIN or row in kept)
    return dataclasses.replace(dataset, interactions=rows)


def write_folder(dataset: Dataset, folder: Path) -> Path:
    """The data set as a folder in the user's own format, written once."""
    if not folder.is_dir():
        partial = folder.with_name(f"{folder.name}.partial")
        partial.mkdir(parents=True, exist_ok=True)
        items = [{"item_id": item.item_id, "title": item.title, "text": item.text, **item.attributes} for item in dataset.items]
        _write_lines(partial / "items.jsonl", items)
        _write_lines(partial / "interactions.jsonl", [_row(dataset, interaction) for interaction in dataset.interactions])
        os.replace(partial, folder)
    return folder


def _row(dataset: Dataset, interaction: Interaction) -> dict[str, str]:
    return {"item_id": dataset.items[interaction.item].item_id, "text": interaction.text, "split": interaction.split}


def _write_lines(path: Path, rows: list[dict[str, str]]) -> None:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
