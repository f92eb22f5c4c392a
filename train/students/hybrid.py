"""The hybrid student: a smaller BERT and the static student, whose vectors are added; nothing of it is trained.

Each errs where the other does not: one reads in context, the other has a vector of every frequent pair of tokens, and costs two
look-ups. It is the mean of an ensemble (Perrone and Cooper, 1993), inside one network that any engine can be made of.
"""

from __future__ import annotations

from torch import Tensor, nn
from transformers import PreTrainedModel

from train.encoder import Encoder
from train.students.static import StaticEncoder


class HybridEncoder(Encoder):
    """ids, mask → interest vector. It is an encoder, so that all that fuses and quantises a BERT finds its layers in it."""

    def __init__(self, bert: PreTrainedModel, static: StaticEncoder, weight: float) -> None:
        super().__init__(bert)
        self.static = static
        self.weight = weight

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """(batch, tokens) int64 ids and mask → (batch, hidden) float32."""
        read = super().forward(input_ids, attention_mask)  # (batch, hidden), of length 1 as the next
        return nn.functional.normalize(read + self.weight * self.static(input_ids, attention_mask), dim=-1)
