"""The bundle: a folder, immutable once sealed, that holds everything an answer needs. Stages meet here.

    manifest.json  tokenizer.json  catalogue.jsonl  rules.json  encoder/<engine>.onnx  ranker/<engine>.onnx  signals/*.npy, *.json
    matcher/<engine>.onnx, matching.json  heads/fp32.onnx, labels.json          where the run has a matcher, or heads

The manifest names every file with its sha256 and size, and carries a fingerprint of its own content. Opening verifies all of
it before anything is loaded; nothing is ever unpickled.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bertrec.catalogue import Catalogue
from bertrec.compact import load_floats
from bertrec.confidence import CONFIDENCE, Confidence
from bertrec.errors import InvalidBundle, InvalidInput
from bertrec.fusion import Signals
from bertrec.labels import LABELS_FILE, Labels
from bertrec.matching import MATCHER_FOLDER, MATCHING_FILE, Matching
from bertrec.rules import RULES_FILE, RuleBook
from bertrec.spelling import FILE as SPELLING_FILE
from bertrec.spelling import SpellingCorrector
from bertrec.tensors import ENCODER, HEADS, MATCHER, RANKER
from bertrec.text import TextTokenizer

SCHEMA_VERSION = 3
MANIFEST_FILE = "manifest.json"
TOKENIZER_FILE = "tokenizer.json"
CATALOGUE_FILE = "catalogue.jsonl"
SIGNALS_FOLDER = "signals"
ITEM_LEXICAL_FILE = "item_lexical.npy"
ITEM_TEXT_FILE = "item_text.npy"
MAPS_FOLDER = "maps"
HEADS_FOLDER = "heads"
USABLE = ("reference", "passed")
"""The verdicts of engines that may answer."""
REFERENCE_ENGINE = "fp32"
"""The engine that every other is measured against."""
EXPORT_COMMAND = "python -m export build --run runs/NAME --output bundles/NAME"


@dataclass(frozen=True)
class FileRecord:
    """What a file of the bundle must be."""

    sha256: str
    size_bytes: int


class Runtime(str, Enum):
    """What loads an engine file."""

    ORT = "ort"
    TENSORRT = "tensorrt"
    TENSORRT_RTX = "tensorrt_rtx"


@dataclass(frozen=True)
class EngineRecord:
    """One engine and what was measured of it when it was exported.

    model: ``encoder``, ``ranker``, ``matcher``, ``heads`` or ``recommender``. name: what it is asked for by, such as ``int8``.
    file: its path in the bundle, empty where the engine was measured and left out. precision: of the weights, such as ``fp32``.
    structure: the network it was made from, ``bert`` or a student's name. tokenizer: the file whose ids it takes. operators: how
    many of each fused or quantised operator its graph has. stamp: of a compiled engine, what it was compiled with and for.
    batch_invariant: whether a text's answer is the same whatever texts share its batch.
    parity: distance to the reference engine. quality: ranking metrics on held-out texts. latency: as measured on the
    machine of the export. verdict: ``reference``, ``passed``, ``rejected`` or ``unmeasured``; why: in a sentence.
    """

    model: str
    name: str
    file: str
    precision: str
    structure: str = "bert"
    runtime: str = Runtime.ORT.value
    tokenizer: str = TOKENIZER_FILE
    size_bytes: int = 0
    operators: Mapping[str, int] = field(default_factory=dict)
    stamp: Mapping[str, Any] = field(default_factory=dict)
    batch_invariant: bool = False
    parity: Mapping[str, float] = field(default_factory=dict)
    quality: Mapping[str, float] = field(default_factory=dict)
    latency: Mapping[str, float] = field(default_factory=dict)
    verdict: str = "reference"
    why: str = ""


@dataclass(frozen=True)
class Manifest:
    """What a bundle is made of and made from."""

    created: str  # ISO 8601, UTC
    source_commit: str
    data: Mapping[str, Any]  # name, fingerprint, number of items and of training texts
    model: Mapping[str, Any]  # backbone, fingerprint, preset, seed; confidence, where a threshold was found
    max_tokens: int
    max_k: int
    signals: Mapping[str, int]  # name → width of its part of the query vector, in order
    tensors: Mapping[str, Any]
    engines: tuple[EngineRecord, ...]
    opset: int = 0
    choice: Mapping[str, Any] = field(default_factory=dict)  # target, objective, engine, why
    files: Mapping[str, FileRecord] = field(default_factory=dict)
    schema_version: int = SCHEMA_VERSION

    @cached_property
    def fingerprint(self) -> str:
        """sha256 (64 hex digits) over the manifest's content, and so over every file of the bundle."""
        content = json.dumps(dataclasses.asdict(self), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(content.encode()).hexdigest()

    def to_json(self) -> str:
        """The text of manifest.json."""
        return json.dumps({"fingerprint": self.fingerprint, **dataclasses.asdict(self)}, indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str, path: Path) -> Manifest:
        """Read a manifest. Raises InvalidBundle, naming ``path``, where it is not one of this version, or was altered."""
        try:
            given = json.loads(text)
            version = given.get("schema_version")
            if version != SCHEMA_VERSION:
                raise InvalidBundle(
                    f"{path}: schema version {version!r}; this release reads version {SCHEMA_VERSION}. "
                    f"Export it again: {EXPORT_COMMAND}"
                )
            fingerprint = given.pop("fingerprint")
            given["engines"] = tuple(EngineRecord(**engine) for engine in given["engines"])
            given["files"] = {name: FileRecord(**record) for name, record in given["files"].items()}
            manifest = cls(**given)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise InvalidBundle(f"{path} is not a bundle's manifest ({type(error).__name__}: {error})") from None
        if manifest.fingerprint != fingerprint:
            raise InvalidBundle(f"{path} was altered after the bundle was sealed. Copy it again, or export: {EXPORT_COMMAND}")
        return manifest


@dataclass(frozen=True)
class Bundle:
    """A verified bundle."""

    folder: Path
    manifest: Manifest

    @classmethod
    def open(cls, folder: str | Path, *, engines: bool = True) -> Bundle:
        """Verify the bundle in ``folder``.

        engines: also verify the engine files; False where they were moved into a Triton repository's own folders.
        Raises InvalidBundle, naming the file and the next step, for anything missing, altered, of an unknown version, or
        outside the folder.
        """
        folder = Path(folder)
        path = folder / MANIFEST_FILE
        if not path.is_file():
            what = "is not a folder" if not folder.is_dir() else f"has no {MANIFEST_FILE}"
            raise InvalidBundle(f"{folder} {what}; a bundle is written by: {EXPORT_COMMAND}")
        try:
            manifest = Manifest.from_json(path.read_text(encoding="utf-8"), path)
        except UnicodeDecodeError:
            raise InvalidBundle(f"{path} is not UTF-8. Copy it again, or export: {EXPORT_COMMAND}") from None
        engine_files = {engine.file for engine in manifest.engines}
        for name, record in manifest.files.items():
            if engines or name not in engine_files:
                _verify(folder, name, record)
        return cls(folder, manifest)

    @property
    def fingerprint(self) -> str:
        """The manifest's fingerprint, shortened to the 12 hex digits that answers carry."""
        return self.manifest.fingerprint[:12]

    def tokenizer(self, engine: str, *, model: str = ENCODER.name) -> TextTokenizer:
        """The tokenizer that an engine of encoder or matcher was made for; it cuts texts at what the encoder reads."""
        return TextTokenizer(self.folder / self.engine(model, engine).tokenizer, self.manifest.max_tokens)

    def catalogue(self) -> Catalogue:
        """The items, in index order."""
        return Catalogue.load(self.folder / CATALOGUE_FILE)

    def signals(self) -> Signals:
        """The signals and their gate."""
        return Signals.load(self.folder / SIGNALS_FOLDER)

    def item_lexical(self) -> NDArray[np.float32]:
        """(items, lexical) float32: the items' lexical vectors, to tell which words carried an item."""
        return load_floats(self.folder / SIGNALS_FOLDER / ITEM_LEXICAL_FILE)

    def item_text(self) -> NDArray[np.float16] | NDArray[np.int8]:
        """(items, width): the items' vectors, to tell how alike two are. Read from disk where it is looked at.

        int8 comes without its scales, since only cosines are asked of it; width may be below the encoder's.
        """
        vectors: NDArray[np.float16] = np.load(self.folder / SIGNALS_FOLDER / ITEM_TEXT_FILE, mmap_mode="r", allow_pickle=False)
        return vectors

    def rules(self) -> RuleBook:
        """The rules and the blocklist; none where the bundle has no rules.json. Raises InvalidBundle for one that is wrong."""
        path = self.folder / RULES_FILE
        return RuleBook.load(path) if path.is_file() else RuleBook()

    def spelling(self) -> SpellingCorrector | None:
        """The spelling corrector; None where the bundle has none. Raises MissingDependency without symspellpy."""
        folder = self.folder / SIGNALS_FOLDER
        return SpellingCorrector.load(folder) if (folder / SPELLING_FILE).is_file() else None

    def matching(self) -> Matching | None:
        """How the matcher is asked; None where the bundle has none. Raises InvalidBundle for a file that does not say it."""
        folder = self.folder / MATCHER_FOLDER
        return Matching.load(folder) if (folder / MATCHING_FILE).is_file() else None

    def labels(self) -> Labels | None:
        """What the heads say; None where the bundle has none. Raises InvalidBundle for a file that names no labels."""
        path = self.folder / HEADS_FOLDER / LABELS_FILE
        return Labels.load(path) if path.is_file() else None

    @property
    def confidence(self) -> Confidence | None:
        """When its answers are sure; None where no threshold was found. Raises InvalidBundle for one that cannot be read."""
        given = self.manifest.model.get(CONFIDENCE)
        return None if given is None else Confidence.read(given)

    @property
    def default_engine(self) -> str:
        """The encoder engine to use where none is named: the one that the export chose, else the reference."""
        return str(self.manifest.choice.get("engine") or REFERENCE_ENGINE)

    @property
    def ranker_engine(self) -> str:
        """The ranker's engine for ONNX Runtime. Raises InvalidBundle where there is none."""
        for engine in self.manifest.engines:
            if engine.model == RANKER.name and engine.runtime == Runtime.ORT and engine.file:
                return engine.name
        raise InvalidBundle(f"{self.folder} has no ranker for ONNX Runtime. Export it: {EXPORT_COMMAND}")

    @property
    def matcher_engine(self) -> str | None:
        """The matcher's engine to use: of those that passed and answer alike in any batch, the fastest as measured; or None."""
        return fastest(self.manifest.engines, MATCHER.name)

    @property
    def heads_engine(self) -> str | None:
        """The heads' engine to use, or None."""
        return fastest(self.manifest.engines, HEADS.name)

    @property
    def ort_engines(self) -> list[str]:
        """The encoder engines that ONNX Runtime can run here."""
        return [
            engine.name
            for engine in self.manifest.engines
            if engine.model == ENCODER.name and engine.runtime == Runtime.ORT and engine.file
        ]

    def engine(self, model: str, name: str) -> EngineRecord:
        """The record of one engine. Raises InvalidInput, naming the engines there are, for one that has no file here."""
        for engine in self.manifest.engines:
            if engine.model == model and engine.name == name and engine.file:
                return engine
        names = [engine.name for engine in self.manifest.engines if engine.model == model and engine.file]
        raise InvalidInput(f"{self.folder} has no {model} engine {name!r}; it has {', '.join(names) or 'none'}")

    def engine_path(self, model: str, name: str) -> Path:
        """The file of one engine."""
        return self.folder / self.engine(model, name).file


def fastest(engines: Iterable[EngineRecord], model: str) -> str | None:
    """The engine of a model for ONNX Runtime that reads most, of those that passed and answer alike in any batch; or None."""
    usable = [
        engine
        for engine in engines
        if engine.model == model and engine.runtime == Runtime.ORT and engine.file
        if engine.batch_invariant and engine.verdict in USABLE
    ]
    return max(usable, key=lambda engine: engine.latency.get("texts_per_s_median", 0.0)).name if usable else None


def seal(folder: Path, manifest: Manifest) -> Manifest:
    """Record every file that lies in ``folder`` in the manifest, and write it. The last step of an export."""
    files = {
        path.relative_to(folder).as_posix(): FileRecord(sha256=_sha256(path), size_bytes=path.stat().st_size)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != MANIFEST_FILE
    }
    sealed = dataclasses.replace(manifest, files=files)
    (folder / MANIFEST_FILE).write_text(sealed.to_json(), encoding="utf-8")
    return sealed


def _verify(folder: Path, name: str, record: FileRecord) -> None:
    path = folder / PurePosixPath(name)
    again = f"Copy the bundle again, or export: {EXPORT_COMMAND}"
    if not path.resolve().is_relative_to(folder.resolve()):
        raise InvalidBundle(f"{folder / MANIFEST_FILE} names {name!r}, which leaves the bundle's folder; it is not opened")
    if not path.is_file():
        raise InvalidBundle(f"{path} is missing. {again}")
    if (size := path.stat().st_size) != record.size_bytes:
        raise InvalidBundle(f"{path} has {size} bytes instead of {record.size_bytes}. {again}")
    if _sha256(path) != record.sha256:
        raise InvalidBundle(f"{path} was altered: its sha256 is not the manifest's. {again}")


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()
