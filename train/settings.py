"""Settings of a training run: one frozen dataclass, two presets."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from bertrec.errors import InvalidInput
from bertrec.tensors import BEHAVIOUR, GRAPH
from train.adaptation.kinds import Adaptation
from train.adapters import Tuning
from train.adversarial import AdversarialSettings
from train.augmentation.settings import AugmentationSettings
from train.encoder import DEFAULT_BACKBONE
from train.items import FIRST_SCALE
from train.multi_task import MultiTaskSettings
from train.precision import Precision

OPTIONAL_SIGNALS = (GRAPH, BEHAVIOUR)
"""The signals that a run can be trained without; any can be switched off when it is measured."""


class Preset(str, Enum):
    """How much to spend."""

    QUICK = "quick"
    FULL = "full"


@dataclass(frozen=True)
class FitSettings:
    """Everything that decides a run's result, besides the data.

    max_tokens: the encoder reads so many tokens of a text. trained_layers: upper layers that are fine-tuned; the layers below
    them and the embeddings stay as pre-trained. item_epochs: passes over the frozen vectors that fit the item vectors before the
    encoder moves. epochs: passes that fine-tune encoder and items together; the pass that ranks validation texts best is kept.
    matryoshka: first dimensions of the interest vector that must rank on their own as well.
    full_softmax_items: a larger catalogue is learned by ``negatives`` sampled ones a step. without: signals that are left out.
    augmentation, adversarial: none by default. correct_spelling: of the training texts, before they are read. weigh_by_sentiment:
    texts that complain count less (train/sentiment.py). gate_by_sentiment: the fusion's gate may look at it.
    precision: of matrix products in reading and fine-tuning.
    tuning: which weights of the trained layers move; rank, alpha, bottleneck: see train/adapters.py.
    adapt: what the upper layers learn first, from the training texts without their labels, in so many epochs and minutes at most.
    labels: share of the training texts that keep their item; with self_train the others get the item that a first recommender
    gives them with at least ``confidence``.
    multi_task: heads that are learned together with the recommendation; none by default (train/heads/joint.py).
    text_scale: inverse temperature that the text signal begins with, as the length of its item vectors; learned from there.
    """

    preset: Preset
    seed: int = 0
    backbone: str = DEFAULT_BACKBONE
    max_tokens: int = 64
    trained_layers: int = 1
    epochs: int = 1
    batch_size: int = 32
    encoder_learning_rate: float = 2e-4
    item_learning_rate: float = 3e-3
    item_epochs: int = 4
    item_batch_size: int = 256
    item_first_learning_rate: float = 1e-2
    matryoshka: tuple[int, ...] = ()
    full_softmax_items: int = 20_000
    negatives: int = 4_096
    lexical_dimensions: int = 256
    lexical_terms: int = 10_000
    lexical_epochs: int = 3
    lexical_learning_rate: float = 1e-3
    graph_dimensions: int = 64
    behaviour_dimensions: int = 64
    without: tuple[str, ...] = ()
    prior_weight: float = 0.5  # β in the training softmax; what is served is chosen on validation
    max_minutes: float | None = None
    augmentation: AugmentationSettings | None = None
    adversarial: AdversarialSettings | None = None
    correct_spelling: bool = False
    weigh_by_sentiment: bool = False
    gate_by_sentiment: bool = False
    precision: Precision = Precision.FP32
    tuning: Tuning = Tuning.FULL
    rank: int = 8
    alpha: float = 16.0
    bottleneck: int = 32
    adapt: Adaptation = Adaptation.NONE
    adapt_epochs: int = 1
    adapt_minutes: float | None = None
    labels: float = 1.0
    self_train: bool = False
    confidence: float = 0.9
    multi_task: MultiTaskSettings | None = None
    text_scale: float = FIRST_SCALE

    def __post_init__(self) -> None:
        positive = (
            "max_tokens",
            "trained_layers",
            "epochs",
            "batch_size",
            "item_batch_size",
            "negatives",
            "graph_dimensions",
            "behaviour_dimensions",
            "lexical_dimensions",
            "lexical_terms",
            "rank",
            "bottleneck",
            "adapt_epochs",
        )
        for name in positive:
            if getattr(self, name) < 1:
                raise InvalidInput(f"{name} is {getattr(self, name)}; accepted is 1 or more")
        self._check_learning()
        if self.max_minutes is not None and not self.max_minutes > 0:
            raise InvalidInput(f"max_minutes is {self.max_minutes}; accepted is a number above 0")
        if unknown := [name for name in self.without if name not in OPTIONAL_SIGNALS]:
            raise InvalidInput(f"without names {unknown[0]!r}; accepted are {', '.join(OPTIONAL_SIGNALS)}")
        if self.seed < 0:
            raise InvalidInput(f"seed is {self.seed}; accepted is 0 or more")

    def _check_learning(self) -> None:
        """Of adapters, adaptation and labels."""
        for name in ("alpha", "text_scale"):
            if not getattr(self, name) > 0:
                raise InvalidInput(f"{name} is {getattr(self, name)}; accepted is a number above 0")
        if self.adapt_minutes is not None and not self.adapt_minutes > 0:
            raise InvalidInput(f"adapt_minutes is {self.adapt_minutes}; accepted is a number above 0")
        for name in ("labels", "confidence"):
            if not 0 < getattr(self, name) <= 1:
                raise InvalidInput(f"{name} is {getattr(self, name)}; accepted is a share above 0 and up to 1, such as 0.1")
        if self.self_train and self.labels == 1:
            raise InvalidInput("self_train needs texts without a label; give labels below 1, such as 0.1")


PRESETS = {
    # The top layer moves, on states of the lower ones that are computed once: minutes on two cores.
    Preset.QUICK: FitSettings(Preset.QUICK, max_minutes=5.0),
    # The upper four layers move, in three passes: about forty minutes on two cores.
    Preset.FULL: FitSettings(
        Preset.FULL,
        max_tokens=96,
        trained_layers=4,
        epochs=3,
        encoder_learning_rate=1e-4,
        item_learning_rate=5e-3,
        matryoshka=(128, 64),
    ),
}
