"""Heads that were learned together with the recommendation (Caruana, Multitask learning, 1997), in ``train fit``.

multi_task/heads.safetensors  a logistic head for each task, on the interest vector, not calibrated yet
multi_task/labels.json        see :mod:`bertrec.labels`; written last

``python -m train heads --heads multi-task`` calibrates and measures them, and makes them the run's heads.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from bertrec.errors import InvalidBundle, InvalidRun
from bertrec.labels import LABELS_FILE, Labels
from train.data import TRAIN, Dataset
from train.descent import step_down
from train.examples import Examples
from train.fingerprint import teacher_fingerprint
from train.heads.network import Heads
from train.heads.tasks import UNLABELLED, Task, make_tasks
from train.multi_task import MultiTaskSettings
from train.optimise import set_learning_rates
from train.records import writing
from train.run import Run
from train.settings import FitSettings
from train.states import shuffled_batches

MULTI_TASK_FOLDER = "multi_task"
JOINT_FILE = "heads.safetensors"
MULTI_TASK_COMMAND = "python -m train fit --heads multi-task --data clothing --output runs/NAME"


@dataclass(frozen=True)
class JointHeads:
    """The heads in training. weights: of each head's loss. See :class:`train.multi_task.Companion`."""

    tasks: Sequence[Task]
    weights: Sequence[float]
    heads: Sequence[nn.Linear]

    @cached_property
    def network(self) -> nn.ModuleList:
        """All heads."""
        return nn.ModuleList(self.heads)

    @classmethod
    def begin(cls, dataset: Dataset, examples: Examples, settings: MultiTaskSettings, hidden: int) -> JointHeads:
        """Heads that know how frequent their labels are, and no more.

        From random ones the gradient would move the encoder at once, to where all texts look alike.
        Raises InvalidData where the data has no labels, InvalidInput for weights of unknown heads.
        """
        tasks = make_tasks(dataset, examples)
        weights = settings.of([task.head.name for task in tasks])
        chosen = [task for task in tasks if task.head.name in weights]
        return cls(chosen, list(weights.values()), [_ignorant(task, hidden) for task in chosen])

    def begin_on(self, vectors: NDArray[np.float32], rows: NDArray[np.int64], settings: FitSettings) -> None:
        """Learn from vectors that stay as they are, (texts, hidden) of the texts ``rows``, as the items' vectors do: seconds."""
        optimiser = torch.optim.AdamW(self.network.parameters(), lr=0.0, weight_decay=0.0)
        random = np.random.default_rng([settings.seed, 11])
        places = np.arange(len(rows))
        total = settings.item_epochs * math.ceil(len(rows) / settings.batch_size)
        for step, batch in enumerate(shuffled_batches(places, settings.batch_size, settings.item_epochs, random)):
            set_learning_rates(optimiser, [settings.item_first_learning_rate], step / total)
            seen = torch.from_numpy(vectors[batch]).to(self.heads[0].weight.device)
            step_down(optimiser, self.loss(seen.requires_grad_(), rows[batch]))

    def loss(self, interest: Tensor, rows: NDArray[np.int64]) -> Tensor:
        """Σ weight · cross-entropy, each over the texts of the batch that have a label of that head."""
        total = interest.sum() * 0.0
        # Vectors of length 1 have components of 1 / √hidden: a head sees them as of size 1, as the frozen ones do.
        seen = interest.float() * math.sqrt(interest.shape[1])  # (batch, hidden)
        for task, weight, head in zip(self.tasks, self.weights, self.heads, strict=True):
            targets = torch.from_numpy(task.targets[TRAIN][rows]).to(interest.device)
            if bool((targets != UNLABELLED).any()):
                total = total + weight * nn.functional.cross_entropy(head(seen), targets, ignore_index=UNLABELLED)
        return total

    def save(self, run: Run) -> None:
        """Leave the heads in a run whose encoder is written already."""
        folder = run.folder / MULTI_TASK_FOLDER
        folder.mkdir(exist_ok=True)
        weights = {}
        for row, head in enumerate(self.heads):
            weights[f"heads.{row}.0.weight"] = head.weight.detach().cpu() * math.sqrt(head.in_features)
            weights[f"heads.{row}.0.bias"] = head.bias.detach().cpu().clone()
        with writing(folder / JOINT_FILE):
            save_file(weights, folder / JOINT_FILE)
        Labels(tuple(task.head for task in self.tasks), teacher_fingerprint(run)).save(folder / LABELS_FILE)


def _ignorant(task: Task, hidden: int) -> nn.Linear:
    """A head of weights 0, whose biases are the log shares of the labels."""
    head = nn.Linear(hidden, len(task.head.labels))
    targets = task.targets[TRAIN]
    counts = np.bincount(targets[targets != UNLABELLED], minlength=len(task.head.labels))
    with torch.no_grad():
        head.weight.zero_()
        head.bias.copy_(torch.from_numpy(np.log(counts / counts.sum())))
    return head


def load_joint(run: Run, tasks: Sequence[Task]) -> list[tuple[Task, nn.Sequential]]:
    """Each task that was learned together with the run's recommendation, and its head, (batch, hidden) → (batch, labels) logits.

    Raises InvalidRun where there are none, or none of these tasks' labels.
    """
    folder = run.folder / MULTI_TASK_FOLDER
    if not (folder / LABELS_FILE).is_file():
        raise InvalidRun(f"{run.folder} was trained without heads; those of multi-task are learned by: {MULTI_TASK_COMMAND}")
    by_head = {task.head: task for task in tasks}
    try:
        labels = Labels.load(folder / LABELS_FILE)
        network = Heads.of_weights(load_file(folder / JOINT_FILE))
        found = [(by_head[head], part) for head, part in zip(labels.heads, network.heads, strict=True)]
    except (InvalidBundle, OSError, SafetensorError, KeyError, ValueError, RuntimeError) as error:
        raise InvalidRun(f"{folder} holds no heads for this data ({type(error).__name__}: {error}). Train again") from None
    if labels.encoder != teacher_fingerprint(run):
        raise InvalidRun(f"{folder} was trained together with another encoder than that of {run.folder}. Train again")
    return found  # type: ignore[return-value]  # Heads holds Sequentials
