"""What all peers are given: the run's encoder as libraries load it, its item vectors, the texts, and torch's own vectors.

model/                 transformers' folder, with sentence-transformers' modules, and ONNX as exported and as ONNX Runtime fuses
model-STUDENT/         the same of a student
items.npy              (items, hidden) float32
reference.npy          (texts, hidden) float32: the run's encoder in torch, for the cosines and as the fp32 model's quality
reference-STUDENT.npy  the same of a student
texts.json             the test texts, the index of each one's item (-1: not in the catalogue), and texts to quantise with
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Material:
    """The folder and what is in it. items: (texts,) int64 index of each text's item. others: validation texts, to warm up.

    students: name → (texts, hidden) its vectors in torch.
    """

    folder: Path
    texts: list[str]
    items: NDArray[np.int64]
    reference: NDArray[np.float32]
    item_vectors: NDArray[np.float32]
    max_tokens: int
    others: list[str]
    students: dict[str, NDArray[np.float32]]
