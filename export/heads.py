"""The heads as an engine: exported, held against PyTorch; and what each encoder engine makes of them.

In a bundle: heads/fp32.onnx, heads/labels.json.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray
from torch import nn

from bertrec.bundle import HEADS_FOLDER, EngineRecord, Runtime
from bertrec.engine import OnnxEngine
from bertrec.errors import InvalidBundle
from bertrec.labels import LABELS_FILE, Labels
from bertrec.tensors import HEADS, INTEREST_VECTOR, PROBABILITIES
from export.encoder import trace
from export.graphs import count_operators
from export.shapes import largest_difference
from train.data import TEST, Dataset
from train.examples import Examples
from train.heads import load_heads
from train.heads.heads import WEIGHTS_FILE
from train.heads.tasks import UNLABELLED, make_tasks
from train.run import Run

FILE = f"{HEADS_FOLDER}/fp32.onnx"
TOLERANCE = 1e-5
"""Probabilities may differ by so much from PyTorch's: float32 rounding, no more."""


@dataclass(frozen=True)
class HeadsOnVectors:
    """The heads' engine with the right labels of the held-out texts: head → (texts,), UNLABELLED where one has none."""

    record: EngineRecord
    engine: OnnxEngine
    labels: Labels
    targets: Mapping[str, NDArray[np.int64]]

    def accuracies(self, vectors: NDArray[np.float32]) -> dict[str, float]:
        """``<head>_accuracy`` on an encoder engine's vectors of the first texts, (texts, hidden); empty where there are none."""
        probabilities = self.engine.run({INTEREST_VECTOR.name: vectors})[PROBABILITIES.name]  # (texts, labels of all heads)
        found = {}
        for head, right in self.targets.items():
            known = right[: len(vectors)] != UNLABELLED
            said = probabilities[known, self.labels.slices[head]].argmax(axis=1)
            if len(said):
                found[f"{head}_accuracy"] = float((said == right[: len(vectors)][known]).mean())
        return found


def export_heads(heads: nn.Module, path: Path, *, hidden: int) -> None:
    """Write heads that read interest vectors of ``hidden`` numbers in standard operators; the batch is dynamic."""
    trace(heads, (torch.eye(2, hidden),), path, spec=HEADS)


def add_heads(
    run: Run, folder: Path, vectors: NDArray[np.float32], *, dataset: Dataset, examples: Examples
) -> HeadsOnVectors | None:
    """Write the run's heads into a bundle that is being built. None where the run has none.

    vectors: (texts, hidden) PyTorch's interest vectors, to hold the engine against PyTorch with. Raises InvalidBundle where it
    says something else.
    """
    if not (run.folder / HEADS_FOLDER / LABELS_FILE).is_file():
        return None
    network, labels = load_heads(run)
    path = folder / FILE
    export_heads(network, path, hidden=vectors.shape[1])
    labels.save(path.parent / LABELS_FILE)
    engine = OnnxEngine(path, HEADS)
    weights = (run.folder / HEADS_FOLDER / WEIGHTS_FILE).read_bytes()
    record = EngineRecord(
        HEADS.name,
        path.stem,
        FILE,
        "fp32",
        size_bytes=path.stat().st_size,
        operators=count_operators(path),
        stamp={
            "runtime": Runtime.ORT.value,
            "version": onnxruntime.__version__,
            "source_sha256": hashlib.sha256(weights).hexdigest(),
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        },
        batch_invariant=True,  # one product a text: nothing is taken over the batch
        parity=_parity(network, engine, labels, vectors),
    )
    tasks = make_tasks(dataset, examples) if len(examples.part(TEST)) else []
    return HeadsOnVectors(record, engine, labels, {task.head.name: task.targets[TEST] for task in tasks})


def _parity(network: nn.Module, engine: OnnxEngine, labels: Labels, vectors: NDArray[np.float32]) -> dict[str, float]:
    """How far the engine is from PyTorch. Raises InvalidBundle where that is more than rounding."""
    with torch.inference_mode():
        wanted = network(torch.from_numpy(vectors)).numpy()  # (texts, labels of all heads)
    found = engine.run({INTEREST_VECTOR.name: vectors})[PROBABILITIES.name]
    alike = [found[:, part].argmax(axis=1) == wanted[:, part].argmax(axis=1) for part in labels.slices.values()]
    parity = {
        "probability_difference_to_torch_max": largest_difference(found, wanted),
        "label_agreement": float(np.mean(alike)),
    }
    if (moved := parity["probability_difference_to_torch_max"]) > TOLERANCE:
        raise InvalidBundle(
            f"the heads' engine is not what it was exported from: a probability differs by {moved:g} from PyTorch's, accepted "
            f"{TOLERANCE:g}. The exporter of this version of torch gives another network; install the versions of constraints.txt"
        )
    return parity
