"""Parameter-efficient fine-tuning of the encoder's upper layers, merged into them before anything is saved.

LoRA (Hu et al., 2021, https://arxiv.org/abs/2106.09685) and AdaLoRA (Zhang et al., 2023, https://arxiv.org/abs/2303.10512) come
from the library peft. The bottleneck adapter stands parallel to a layer's feed-forward network (He et al., Towards a Unified View
of Parameter-Efficient Transfer Learning, 2021, https://arxiv.org/abs/2110.04366) and has the same activation: its units are
further units of that network, and merged it is a network that is so much wider. So all three can be exported as any encoder.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from enum import Enum
from typing import Any

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from bertrec.errors import MissingDependency
from train.bottleneck import Narrowing, Widening
from train.encoder import Encoder
from train.records import peak_memory_mb


class Tuning(str, Enum):
    """Which weights of the upper layers are trained."""

    FULL = "full"
    LORA = "lora"
    ADALORA = "adalora"
    ADAPTER = "adapter"


LEARNING_RATE_FACTOR = 5.0
"""New weights that begin at zero take larger steps than pre-trained ones; LoRA's paper has 2e-4 to 5e-4 where 2e-5 to 5e-5 is
usual for all weights."""
WARM_UP, FINAL = 0.1, 0.3
"""AdaLoRA: share of the steps before ranks are taken away, and after all are."""
STARTING_RANK = 1.5
"""AdaLoRA begins with so many times the rank that it ends with on average, as in its paper."""
ORTHOGONALITY = 0.1
"""AdaLoRA: weight of the penalty that keeps its singular vectors orthogonal; the paper tries 0.1 to 0.5."""


@dataclass(frozen=True)
class AdapterSettings:
    """rank, alpha: of LoRA and AdaLoRA, whose update is scaled by alpha / rank. bottleneck: units of the adapter.

    steps: of the whole training, in the course of which AdaLoRA gives up ranks.
    """

    tuning: Tuning
    rank: int = 8
    alpha: float = 16.0
    bottleneck: int = 32
    steps: int = 1


ALL = AdapterSettings(Tuning.FULL)


class Adapters:
    """What was put into an encoder's upper layers to be trained instead of them; this one changes nothing: all is trained."""

    learning_rate_factor = 1.0

    def __init__(self, encoder: Encoder) -> None:
        self.encoder = encoder

    def penalty(self) -> Tensor | float:
        """What is added to the loss."""
        return 0.0

    def after_step(self, step: int) -> None:
        """Called after each step of the optimiser, whose number it is told, before the gradients are forgotten."""

    def state(self) -> dict[str, Tensor]:
        """What a checkpoint needs besides the trained parameters."""
        return {}

    def restore(self, state: dict[str, Tensor]) -> None:
        """Go on from a ``state``."""

    def merge(self) -> None:
        """Put what was learned into the encoder's own weights; its vectors stay, and it is built as before."""

    def _train_only(self, mark: str) -> None:
        named = self.encoder.named_parameters()
        self.encoder.only = frozenset(name for name, value in named if value.requires_grad and mark in name)


@dataclass(frozen=True)
class TuningCost:
    """What was trained: parameters of the encoder, their share of all its parameters, and the process' peak memory in MB."""

    trained_parameters: int
    trained_share: float
    peak_memory_mb: float


def measure_cost(encoder: Encoder) -> TuningCost:
    """Count what is set to be trained; call it before the adapters are merged. The item vectors do not count."""
    sizes = [(value.numel(), value.requires_grad) for value in encoder.parameters()]
    trained = sum(size for size, requires_grad in sizes if requires_grad)
    return TuningCost(trained, round(trained / sum(size for size, _ in sizes), 5), peak_memory_mb())


def adapt(encoder: Encoder, frozen_layers: int, settings: AdapterSettings) -> Adapters:
    """Put adapters into the layers above the first ``frozen_layers``, and set them free to be trained.

    Raises MissingDependency where peft is needed and missing.
    """
    adapters: Adapters
    if settings.tuning is Tuning.FULL:
        adapters = Adapters(encoder)
    elif settings.tuning is Tuning.ADAPTER:
        adapters = Bottlenecks(encoder, list(encoder.blocks[frozen_layers:]), settings)
    else:
        adapters = LowRank(encoder, frozen_layers, settings)
    encoder.train_upper(frozen_layers)
    return adapters


class LowRank(Adapters):
    """LoRA or AdaLoRA on every matrix product of the upper layers, through peft."""

    learning_rate_factor = LEARNING_RATE_FACTOR

    def __init__(self, encoder: Encoder, frozen_layers: int, settings: AdapterSettings) -> None:
        super().__init__(encoder)
        try:
            from peft import AdaLoraConfig, LoraConfig
            from peft.tuners import AdaLoraModel, LoraModel
        except ImportError:
            raise MissingDependency("peft", "train") from None
        path = re.escape(encoder.family.layers)
        upper = "|".join(str(layer) for layer in range(frozen_layers, encoder.layers))
        products = _products(encoder.blocks[-1])
        common: dict[str, Any] = {
            "target_modules": rf"{path}\.({upper})\.({'|'.join(map(re.escape, products))})",
            "lora_alpha": settings.alpha,
            "fan_in_fan_out": isinstance(encoder.blocks[-1].get_submodule(products[0]), Conv1D),
        }
        self._adaptive = settings.tuning is Tuning.ADALORA
        self._model: Any
        if self._adaptive:
            self._config = AdaLoraConfig(
                **common,
                target_r=settings.rank,
                init_r=max(math.ceil(STARTING_RANK * settings.rank), settings.rank + 1),
                tinit=int(WARM_UP * settings.steps),
                tfinal=int(FINAL * settings.steps),
                deltaT=max(1, settings.steps // 100),
                total_step=settings.steps,
            )
            self._model = AdaLoraModel(encoder.bert, self._config, "default")
        else:
            self._model = LoraModel(encoder.bert, LoraConfig(**common, r=settings.rank), "default")
        self._train_only("lora_")

    def penalty(self) -> Tensor | float:
        """How far AdaLoRA's singular vectors are from orthogonal ones, on average."""
        if not self._adaptive:
            return 0.0
        found = []
        for name, value in self._model.model.named_parameters():
            if "lora_A." in name or "lora_B." in name:
                product = value @ value.T if "lora_A." in name else value.T @ value  # (rank, rank)
                found.append(torch.linalg.matrix_norm(product - torch.eye(len(product), device=product.device)))
        return ORTHOGONALITY * torch.stack(found).mean()

    def after_step(self, step: int) -> None:
        """Let AdaLoRA take ranks away where they matter least."""
        if self._adaptive:
            self._model.update_and_allocate(step)

    def state(self) -> dict[str, Tensor]:
        """AdaLoRA's smoothed sensitivities, and which ranks are left."""
        if not self._adaptive:
            return {}
        allocator = self._model.rankallocator
        kept = {"sensitivity": allocator.exp_avg_ipt, "uncertainty": allocator.exp_avg_unc}
        found = {f"{kind}.{name}": value for kind, values in kept.items() for name, value in values.items()}
        ranks = self._config.rank_pattern or {}
        return {**found, **{f"ranks.{name}": torch.tensor(value) for name, value in ranks.items()}}

    def restore(self, state: dict[str, Tensor]) -> None:
        """Go on from a ``state``."""
        if not self._adaptive:
            return
        kept: dict[str, dict[str, Tensor]] = {"sensitivity": {}, "uncertainty": {}, "ranks": {}}
        for full_name, value in state.items():
            kind, _, name = full_name.partition(".")
            kept[kind][name] = value
        allocator = self._model.rankallocator
        allocator.exp_avg_ipt, allocator.exp_avg_unc = kept["sensitivity"], kept["uncertainty"]
        allocator.ipt = {name: torch.zeros_like(value) for name, value in kept["sensitivity"].items()}
        self._config.rank_pattern = {name: value.tolist() for name, value in kept["ranks"].items()} or None

    def merge(self) -> None:
        """Add the low-rank updates to the weights."""
        self.encoder.bert = self._model.merge_and_unload()
        self.encoder.only = None


class Bottlenecks(Adapters):
    """A bottleneck adapter parallel to the feed-forward network of each upper layer."""

    learning_rate_factor = LEARNING_RATE_FACTOR

    def __init__(self, encoder: Encoder, layers: list[nn.Module], settings: AdapterSettings) -> None:
        super().__init__(encoder)
        self._bottleneck = settings.bottleneck
        family = encoder.family
        for layer in layers:
            widens, narrows = layer.get_submodule(family.widens), layer.get_submodule(family.narrows)
            layer.set_submodule(family.widens, Widening(widens, settings.bottleneck))
            layer.set_submodule(family.narrows, Narrowing(narrows, settings.bottleneck))
        self._train_only("extra.")

    def merge(self) -> None:
        """Make the feed-forward networks wider by the adapters' units; those of the frozen layers by units that do nothing."""
        family = self.encoder.family
        units = 0
        for layer in self.encoder.blocks:
            widens, narrows = layer.get_submodule(family.widens), layer.get_submodule(family.narrows)
            if not isinstance(widens, Widening):
                widens = Widening(widens, self._bottleneck)
                nn.init.zeros_(widens.extra.weight)
            if not isinstance(narrows, Narrowing):
                narrows = Narrowing(narrows, self._bottleneck)
            units = narrows.units + self._bottleneck
            layer.set_submodule(family.widens, widens.merged())
            layer.set_submodule(family.narrows, narrows.merged())
        setattr(self.encoder.bert.config, family.units, units)
        self.encoder.only = None


def _products(layer: nn.Module) -> list[str]:
    return [name for name, module in layer.named_modules() if isinstance(module, nn.Linear | Conv1D)]
