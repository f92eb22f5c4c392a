"""What a peer's process is told, and what it gives back: with numpy alone, since no peer's environment has bertrec."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

BATCH, TOP = 32, 10
MODEL_FILE, FUSED_FILE = "model.onnx", "model_fused.onnx"
ITEMS_FILE, TEXTS_FILE = "items.npy", "texts.json"
MODEL_FOLDER = "model"
QUALITY_FILE = "quality-{}.npz"
"""The vectors and the ten best items of a round's texts, in a peer's own folder."""

Encode = Callable[[Sequence[str]], NDArray[np.float32]]
"""Texts → (texts, hidden) float32 of length 1, tokenisation included."""
Rank = Callable[[Sequence[str]], NDArray[np.int64]]
"""Texts → (texts, 10) indices of the best items, best first."""


@dataclass(frozen=True)
class Setup:
    """What a peer loads.

    variant: how the library is used, such as ``onnx-O3``. material: the folder that benchmarks/peers/prepare.py wrote. own: a
    folder of this peer's, kept for the next run. student: whose weights, if not those of the run's own encoder. sort: hand texts
    over sorted by length. bundle: of bertrec's own engines; empty for the others.
    """

    module: str
    variant: str
    material: str
    own: str
    threads: int
    max_tokens: int
    student: str = ""
    sort: bool = False
    bundle: str = ""

    @property
    def model(self) -> Path:
        """The model's folder: transformers' and sentence-transformers' files."""
        return model_folder(Path(self.material), self.student)

    @property
    def calibration(self) -> list[str]:
        """Texts of the validation split, to quantise with."""
        texts: list[str] = json.loads((Path(self.material) / TEXTS_FILE).read_text(encoding="utf-8"))["calibration"]
        return texts

    def copy(self) -> Path:
        """A folder of this peer's own with the model's files, for libraries that write beside them; the weights are linked."""
        copied = Path(self.own) / MODEL_FOLDER
        for file in (one for one in self.model.rglob("*") if one.is_file() and one.suffix != ".onnx"):
            own = copied / file.relative_to(self.model)
            own.parent.mkdir(parents=True, exist_ok=True)
            if file.suffix == ".safetensors" and not own.exists():
                own.symlink_to(file.resolve())
            elif not own.exists():
                shutil.copyfile(file, own)
        return copied


@dataclass(frozen=True)
class Loaded:
    """A peer that can be asked. encode: None where only the whole way to the items can be asked. threads: as the library says.

    rank: None where the items are ranked by :func:`best_items`. packages: whose versions belong to the result.
    """

    encode: Encode | None
    threads: int | None
    packages: tuple[str, ...]
    rank: Rank | None = None


def model_folder(material: Path, student: str = "") -> Path:
    """Where the run's own encoder is, or a student of it."""
    return material / (f"{MODEL_FOLDER}-{student}" if student else MODEL_FOLDER)


def best_items(vectors: NDArray[np.float32], items: NDArray[np.float32]) -> NDArray[np.int64]:
    """(texts, hidden) and (items, hidden) → (texts, 10) items of the greatest inner products, best first."""
    scores = vectors @ items.T  # (texts, items)
    top = min(TOP, scores.shape[1])
    chosen = np.argpartition(-scores, top - 1, axis=1)[:, :top]
    order = np.argsort(-np.take_along_axis(scores, chosen, axis=1), axis=1, kind="stable")
    return np.asarray(np.take_along_axis(chosen, order, axis=1), np.int64)


def mean_of_tokens(hidden: NDArray[np.float32], mask: NDArray[np.int64]) -> NDArray[np.float32]:
    """(batch, tokens, hidden) and (batch, tokens) → (batch, hidden): the mean over a text's tokens, of length 1."""
    weights = mask[:, :, None].astype(np.float32)
    mean = (hidden * weights).sum(axis=1) / weights.sum(axis=1)  # (batch, hidden)
    return np.asarray(mean / np.linalg.norm(mean, axis=1, keepdims=True), np.float32)


def longest_first(encode: Encode) -> Encode:
    """The same vectors, of texts handed over from the longest to the shortest, by characters as sentence-transformers sorts."""

    def encode_sorted(texts: Sequence[str]) -> NDArray[np.float32]:
        order = sorted(range(len(texts)), key=lambda row: -len(texts[row]))
        vectors = encode([texts[row] for row in order])
        return vectors[np.argsort(order)]

    return encode_sorted


def in_batches(encode: Encode) -> Encode:
    """The same, ``BATCH`` texts at a time in the order given."""

    def encode_all(texts: Sequence[str]) -> NDArray[np.float32]:
        return np.concatenate([encode(texts[start : start + BATCH]) for start in range(0, len(texts), BATCH)])

    return encode_all
