"""Puts another bundle into service beside the one that is served, without a pause; and takes it back.

A bundle is served as one version of each of its models. Requests that name no version get the newest one of ``recommend``, or
of another python model, which asks the engines of its own version only; so an answer is of one bundle or of the other. The
engines are therefore loaded before those that ask them, and unloaded after. No version number is used twice.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import tempfile
from dataclasses import asdict, replace
from pathlib import Path

from bertrec.bundle import Bundle
from bertrec.errors import InvalidInput, ServerFailed
from bertrec.tensors import ALL_MODELS, RECOMMEND
from serving.assemble import MODELS_FOLDER, REPOSITORY_FILE, Repository, Target, assemble, describe
from serving.control import ModelControl

log = logging.getLogger(__name__)

LOADING_ORDER = tuple(spec.name for spec in reversed(ALL_MODELS))
"""Engines first; ``recommend``, by which a version counts as served, last."""


def update(repository: Path, bundle: Path, control: ModelControl, *, engine: str | None = None, keep: int = 2) -> int:
    """Serve ``bundle`` as a new version, the newest, and return its number.

    ``keep`` versions stay loaded, this one included; older ones are retired. Where the bundle does not load, what was served
    is served on. Raises as :func:`serving.assemble.assemble`; ServerFailed where a model does not load;
    InvalidInput for a keep below 1.
    """
    if keep < 1:
        raise InvalidInput(f"keep is {keep}; accepted is a whole number of at least 1")
    told = describe(repository)
    version = max(told.version, told.last_version, *_versions(repository)) + 1
    with tempfile.TemporaryDirectory(prefix=".update-", dir=repository) as folder:
        new = assemble(bundle, Path(folder, "new"), target=Target(told.target), engine=engine, version=version)
        try:
            for model in LOADING_ORDER:
                if not _place(new, model, version).exists():
                    continue  # this bundle has no such engine; an older one may have, and is asked on for as long as it is kept
                place = _place(repository, model, version)
                if not place.parent.exists():
                    shutil.copytree(_place(new, model, version).parent / "configs", place.parent / "configs")
                os.rename(_place(new, model, version), place)
                control.load(model)
                if version not in control.ready(model):
                    raise ServerFailed(f"version {version} of {model} is not ready; what was served before is served on")
        except BaseException:
            _remember(repository, replace(told, last_version=version))
            _retire(repository, version, control)
            raise
        served = replace(describe(new), last_version=version)
        _remember(repository, served)
    for old in _versions(repository)[:-keep]:
        _retire(repository, old, control)
    log.info("version %s is served: bundle %s", version, served.bundle)
    return version


def roll_back(repository: Path, control: ModelControl) -> int:
    """Take the newest version out of service; the one before it, which is returned, is the newest again.

    Raises InvalidInput where there is no version before it.
    """
    versions = _versions(repository)
    if len(versions) < 2:
        raise InvalidInput(f"{repository} holds version {versions[-1]} alone; there is none to go back to")
    told, (before, newest) = describe(repository), versions[-2:]
    _retire(repository, newest, control)
    place = _place(repository, RECOMMEND.name, before)
    _remember(
        repository,
        replace(
            told,
            bundle=Bundle.open(place / "bundle", engines=False).manifest.fingerprint,
            engine=(place / "engine.txt").read_text(encoding="utf-8").strip(),
            version=before,
            last_version=max(told.last_version, newest),
        ),
    )
    return before


def _retire(repository: Path, version: int, control: ModelControl) -> None:
    """``recommend`` first, and the engines when it has nothing left to ask them."""
    for model in reversed(LOADING_ORDER):
        place = _place(repository, model, version)
        if place.exists():
            shutil.rmtree(place)
            if any(path.name.isdecimal() for path in place.parent.iterdir()):
                control.load(model)
            else:  # no bundle that is kept has this model
                shutil.rmtree(place.parent)
                control.unload(model)
            control.wait_until_gone(model, version)


def _versions(repository: Path) -> list[int]:
    folders = _place(repository, RECOMMEND.name, 0).parent.iterdir()
    return sorted(int(path.name) for path in folders if path.name.isdecimal())


def _place(repository: Path, model: str, version: int) -> Path:
    return repository / MODELS_FOLDER / model / str(version)


def _remember(repository: Path, told: Repository) -> None:
    new = repository / f".{REPOSITORY_FILE}"
    new.write_text(json.dumps(asdict(told), indent=2) + "\n", encoding="utf-8")
    os.replace(new, repository / REPOSITORY_FILE)
