"""The network of the matcher, and the folder that it is read from.

matcher/matcher.json        settings, the encoder it began as, what was measured; written last
matcher/matching.json       how it is asked, see bertrec/matching.py
matcher/model.safetensors   BertForSequenceClassification, as save_pretrained writes it, with config.json
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import BertForSequenceClassification

from bertrec.errors import InvalidInput, InvalidRun
from bertrec.matching import MATCHER_FOLDER, Matching
from train.fingerprint import teacher_fingerprint
from train.matcher.settings import MATCHER_COMMAND
from train.run import Run

MATCHER_FILE = "matcher.json"
YES = 1
"""The label that says that the item fits, or that the writer recommends."""


class Matcher(nn.Module):
    """A BERT with two labels on top of its pooled first token."""

    def __init__(self, bert: BertForSequenceClassification) -> None:
        super().__init__()
        self.bert = bert

    @classmethod
    def begin(cls, encoder_folder: Path) -> Matcher:
        """A matcher that begins as a run's fine-tuned BERT, with labels that know nothing."""
        bert = BertForSequenceClassification.from_pretrained(encoder_folder, num_labels=2)
        if bert.config.model_type != "bert":
            raise InvalidInput(f"{encoder_folder} is a {bert.config.model_type!r} model; the matcher is made of a BERT")
        bert.bert.embeddings.requires_grad_(False)  # most of the weights; but the second segment is new to the encoder
        bert.bert.embeddings.token_type_embeddings.requires_grad_(True)
        return cls(bert)

    @classmethod
    def load(cls, folder: Path, *, attention: str = "sdpa") -> Matcher:
        """The trained matcher of a folder; ``attention`` is ``eager`` for exporters. Raises InvalidRun where there is none."""
        try:
            return cls(BertForSequenceClassification.from_pretrained(folder, attn_implementation=attention)).float().eval()
        except (OSError, ValueError) as error:
            raise InvalidRun(f"{folder} holds no matcher ({error}). Train it: {MATCHER_COMMAND}") from None

    @property
    def layers(self) -> int:
        """Number of transformer layers."""
        return int(self.bert.config.num_hidden_layers)

    @property
    def heads(self) -> int:
        """Attention heads of a layer."""
        return int(self.bert.config.num_attention_heads)

    @property
    def hidden(self) -> int:
        """Width of its hidden states."""
        return int(self.bert.config.hidden_size)

    def logits(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor) -> Tensor:
        """(batch, tokens) int64 → (batch, 2) float32, no and yes."""
        given = {"input_ids": input_ids, "attention_mask": attention_mask, "token_type_ids": token_type_ids}
        logits: Tensor = self.bert(**given).logits
        return logits.float()

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor) -> Tensor:
        """(batch, tokens) int64 → (batch, 1) float32: the probability of yes."""
        return torch.softmax(self.logits(input_ids, attention_mask, token_type_ids), dim=1)[:, YES:]


def load_matcher(run: Run, *, attention: str = "sdpa") -> tuple[Matcher, Matching] | None:
    """The run's finished matcher and how it is asked; None where it has none.

    Raises InvalidRun for one whose candidates another encoder found than the run's, or that cannot be read.
    """
    folder = run.folder / MATCHER_FOLDER
    path = folder / MATCHER_FILE
    if not path.is_file():
        return None
    try:
        encoder = json.loads(path.read_text(encoding="utf-8"))["encoder"]
    except (ValueError, KeyError, TypeError) as error:
        raise InvalidRun(f"{path} is not a matcher's record ({type(error).__name__}: {error}). Delete it") from None
    if encoder != teacher_fingerprint(run):
        raise InvalidRun(f"{folder} was trained beside another encoder than that of {run.folder}. Delete it: {MATCHER_COMMAND}")
    return Matcher.load(folder, attention=attention), Matching.load(folder)
