"""The parts of a bundle that are no encoder: tokenizer, catalogue, signals, maps, rules and the ranker."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import numpy as np

from bertrec.bundle import (
    CATALOGUE_FILE,
    ITEM_LEXICAL_FILE,
    ITEM_TEXT_FILE,
    MANIFEST_FILE,
    MAPS_FOLDER,
    SIGNALS_FOLDER,
    TOKENIZER_FILE,
    EngineRecord,
    Manifest,
    seal,
)
from bertrec.rules import RULES_FILE
from bertrec.tensors import ENCODER, LEXICAL, RANKER, TEXT_SIGNAL
from export.compact import CompactSettings, compact_bundle_parts
from export.ranker import export_ranker
from train.progress import say
from train.run import Run


def write_parts(run: Run, folder: Path, rules: Path | None) -> EngineRecord:
    """Everything of the bundle but the encoders; returns the ranker's record."""
    shutil.copyfile(run.tokenizer_file, folder / TOKENIZER_FILE)
    shutil.copyfile(run.catalogue_file, folder / CATALOGUE_FILE)
    shutil.copytree(run.signals_folder, folder / SIGNALS_FOLDER)
    shutil.copytree(run.folder / "maps", folder / MAPS_FOLDER)
    if rules is not None:
        shutil.copyfile(rules, folder / RULES_FILE)
    for signal, name in ((LEXICAL, ITEM_LEXICAL_FILE), (TEXT_SIGNAL, ITEM_TEXT_FILE)):
        np.save(folder / SIGNALS_FOLDER / name, run.array(f"items/{signal}").astype(np.float16), allow_pickle=False)
    path = folder / RANKER.name / "fp32.onnx"
    export_ranker({signal: run.array(f"items/{signal}") for signal in run.record["signals"]}, path)
    return EngineRecord(RANKER.name, "fp32", "ranker/fp32.onnx", "fp32", size_bytes=path.stat().st_size, batch_invariant=True)


def compacted(folder: Path, manifest: Manifest, settings: CompactSettings) -> Manifest:
    """Make the parts of a sealed bundle that is still being built small, and seal it anew."""
    (folder / MANIFEST_FILE).unlink()
    parts = compact_bundle_parts(folder, settings)
    encoders = [record for record in manifest.engines if record.model == ENCODER.name]
    engines = sum(record.size_bytes for record in encoders)
    before, after = ((size - engines) / 1e6 for size in (parts.before_bytes, parts.after_bytes))
    say(f"everything but the encoders: {before:.1f} MB made {after:.1f} MB")
    return seal(folder, dataclasses.replace(manifest, engines=(*encoders, parts.ranker), signals=parts.signals))
