"""Learn one head: four candidates, early stopping, the best on validation, calibrated by one temperature."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from train.data import TRAIN, VALIDATION
from train.heads.measure import HeadMeasures, measure_head
from train.heads.network import layers
from train.heads.tasks import UNLABELLED, Task

UNITS, DROPOUT = 128, 0.3
EPOCHS, PATIENCE, BATCH = 40, 4, 256
LEARNING_RATE, WEIGHT_DECAY = 2e-3, 1e-2
TEMPERATURES = np.geomspace(0.25, 4.0, 161).tolist()
CANDIDATES = ((0, False), (0, True), (UNITS, False), (UNITS, True))
"""Hidden units (0: logistic regression), and whether rare labels weigh more, by the root of how rare they are."""


@dataclass(frozen=True)
class Learned:
    """A head as it was learned. network: (batch, hidden) → (batch, labels) calibrated logits, in evaluation mode.

    joint: whether it was learned together with the recommendation.
    """

    network: nn.Sequential
    units: int
    weighted: bool
    temperature: float
    validation: HeadMeasures
    joint: bool = False


def calibrated_head(task: Task, vectors: dict[str, NDArray[np.float32]], network: nn.Sequential) -> Learned:
    """A linear head that was learned together with the recommendation, calibrated and measured on validation."""
    texts, targets = _labelled(task, vectors, VALIDATION)
    network.eval().requires_grad_(False)
    temperature = _calibrate(network, texts, targets)
    probabilities = torch.softmax(network(texts), dim=-1).numpy()  # (texts, labels)
    return Learned(network, 0, False, temperature, measure_head(probabilities, targets.numpy(), task.head), joint=True)


def learn_head(task: Task, vectors: dict[str, NDArray[np.float32]], *, seed: int) -> list[Learned]:
    """Every candidate, the best on validation first: by the mean of accuracy and macro-F1.

    Both count: accuracy alone is won by the label that most texts have, macro-F1 alone by guessing rare ones too often.
    vectors: split → (texts, hidden). Deterministic by ``seed`` and the number of threads.
    """
    parts = {split: _labelled(task, vectors, split) for split in (TRAIN, VALIDATION)}
    found = [_learn(task, parts, units, weighted, seed) for units, weighted in CANDIDATES]
    return sorted(found, key=lambda one: -(one.validation.accuracy + one.validation.macro_f1))


def _labelled(task: Task, vectors: dict[str, NDArray[np.float32]], split: str) -> tuple[Tensor, Tensor]:
    targets = task.targets[split]
    having = targets != UNLABELLED
    return torch.from_numpy(vectors[split][having]), torch.from_numpy(targets[having])


def _learn(task: Task, parts: dict[str, tuple[Tensor, Tensor]], units: int, weighted: bool, seed: int) -> Learned:
    (texts, targets), (held_texts, held_targets) = parts[TRAIN], parts[VALIDATION]
    labels = len(task.head.labels)
    torch.manual_seed(seed)
    network = layers(texts.shape[1], labels, units=units, dropout=DROPOUT)
    scale = math.sqrt(texts.shape[1])  # vectors of length 1 have components of 1 / √hidden: the layer sees them as of size 1
    loss = nn.CrossEntropyLoss(_weights(targets, labels) if weighted else None)
    optimiser = torch.optim.AdamW(network.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    best, best_loss, worse = copy.deepcopy(network.state_dict()), math.inf, 0
    for _ in range(EPOCHS):
        network.train()
        for rows in torch.split(torch.randperm(len(texts)), BATCH):
            optimiser.zero_grad()
            loss(network(texts[rows] * scale), targets[rows]).backward()
            optimiser.step()
        network.eval()
        with torch.no_grad():
            held = float(loss(network(held_texts * scale), held_targets))
        if held < best_loss:
            best_loss, worse, best = held, 0, copy.deepcopy(network.state_dict())
        else:
            worse += 1
        if worse >= PATIENCE:
            break
    network.load_state_dict(best)
    network.eval().requires_grad_(False)
    _layer(network, 0).weight.mul_(scale)
    temperature = _calibrate(network, held_texts, held_targets)
    probabilities = torch.softmax(network(held_texts), dim=-1).numpy()  # (texts, labels)
    return Learned(network, units, weighted, temperature, measure_head(probabilities, held_targets.numpy(), task.head))


def _weights(targets: Tensor, labels: int) -> Tensor:
    """(labels,): the inverse root of each label's share, 1 on the mean text."""
    counts = torch.bincount(targets, minlength=labels).float()
    inverse = counts.rsqrt()
    return inverse * counts.sum() / (inverse * counts).sum()


def _calibrate(network: nn.Sequential, texts: Tensor, targets: Tensor) -> float:
    """Divide the logits by the temperature of the least log loss (Guo et al., 2017), within the last layer's weights."""
    logits = network(texts)  # (texts, labels)
    losses = [float(nn.functional.cross_entropy(logits / temperature, targets)) for temperature in TEMPERATURES]
    temperature = float(TEMPERATURES[int(np.argmin(losses))])
    last = _layer(network, -1)
    last.weight.div_(temperature)
    last.bias.div_(temperature)
    return temperature


def _layer(network: nn.Sequential, position: int) -> nn.Linear:
    layer = network[position]
    assert isinstance(layer, nn.Linear)
    return layer
