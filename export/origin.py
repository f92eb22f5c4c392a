"""What a bundle was exported from, and whether one that is there already is the one asked for."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bertrec.bundle import MANIFEST_FILE, Bundle
from bertrec.confidence import CONFIDENCE
from bertrec.errors import InvalidBundle, InvalidInput
from bertrec.rules import RuleBook
from bertrec.tensors import ENCODER
from export.recipes import Recipe
from train.run import Run
from train.students.contract import STUDENTS_FOLDER
from train.threshold import run_confidence

if TYPE_CHECKING:
    from export.build import BuildSettings


def run_fingerprint(run: Run) -> str:
    """sha256 (64 hex digits) over the weights and item vectors of a run, and its students', matcher's and heads'."""
    digest = hashlib.sha256()
    students = sorted((run.folder / STUDENTS_FOLDER).glob("*/**/*.safetensors"))
    items = sorted((run.folder / "items").glob("*.npy"))
    others = [path for name in ("matcher/model.safetensors", "heads/heads.safetensors") if (path := run.folder / name).is_file()]
    for path in [run.encoder_folder / "model.safetensors", *items, run.catalogue_file, *students, *others]:
        digest.update(path.read_bytes())
    return digest.hexdigest()


def made_by(run: Run, recipes: Sequence[Recipe], settings: BuildSettings) -> dict[str, Any]:
    """What tells two exports apart, as the manifest keeps it."""
    asked = json.loads(json.dumps({**asdict(settings), "rules": None, "engines": [recipe.name for recipe in recipes]}))
    rules = RuleBook() if settings.rules is None else RuleBook.load(settings.rules)
    confidence = run_confidence(run)
    return {
        "fingerprint": run_fingerprint(run),
        "export": asked,
        "rules": hashlib.sha256(repr(rules).encode()).hexdigest()[:12],
        CONFIDENCE: None if confidence is None else asdict(confidence),
    }


def reusable(output: Path, origin: Mapping[str, Any]) -> Bundle | None:
    """The bundle in ``output`` where it is of this origin; None where there is nothing. Raises InvalidInput for anything else."""
    if not output.exists() or (output.is_dir() and not any(output.iterdir())):
        return None
    if not (output / MANIFEST_FILE).is_file():
        raise InvalidInput(f"{output} exists and is no bundle. Choose another --output")
    try:
        bundle = Bundle.open(output)
    except InvalidBundle as error:
        raise InvalidInput(
            f"{output} holds a bundle that does not open ({error}). Delete it or choose another --output"
        ) from None
    if any(bundle.manifest.model.get(key) != value for key, value in origin.items()):
        built = ", ".join(record.name for record in bundle.manifest.engines if record.model == ENCODER.name)
        raise InvalidInput(
            f"{output} holds a bundle of another run, or with other rules, engines ({built}) or settings. "
            "A bundle is never changed: delete it or choose another --output"
        )
    return bundle
