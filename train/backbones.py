"""The families of backbones that an encoder can be made of: where their layers lie, and what each wants as a mask.

BERT, RoBERTa, XLM-RoBERTa, ELECTRA and DistilBERT read in both directions, and the mean over the tokens stands for a text. GPT-2
reads from left to right, so that only its last token has seen the whole text: that one stands for it (Neelakantan et al., Text
and Code Embeddings by Contrastive Pre-Training, 2022, https://arxiv.org/abs/2201.10005).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from bertrec.errors import InvalidInput


@dataclass(frozen=True)
class Family:
    """How the models of one ``model_type`` are taken apart; this one is for BERT, and for all that copy its modules.

    layers: path of the list of transformer layers. widens, narrows: a layer's two feed-forward products; units: what the width
    between them is called in the configuration. mask_argument: a layer's name for its mask. pooler: whether the model has one,
    which is left out. reserved_positions: whether positions begin behind the padding token's number. causal: whether a token sees
    only those before it. sdpa: whether transformers has its attention as one operator. fused: whether ONNX Runtime's BERT fusions
    must all be found at export; other graphs are exported in standard operators.
    """

    layers: str = "encoder.layer"
    widens: str = "intermediate.dense"
    narrows: str = "output.dense"
    units: str = "intermediate_size"
    mask_argument: str = "attention_mask"
    pooler: bool = True
    reserved_positions: bool = False
    causal: bool = False
    sdpa: bool = True
    fused: bool = False

    def blocks(self, model: PreTrainedModel) -> nn.ModuleList:
        """The transformer layers, lowest first."""
        blocks: nn.ModuleList = model.get_submodule(self.layers)
        return blocks

    def offset(self, model: PreTrainedModel) -> int:
        """The position of the first token."""
        return int(model.config.pad_token_id) + 1 if self.reserved_positions else 0

    def embed(self, model: PreTrainedModel, input_ids: Tensor) -> Tensor:
        """(batch, tokens) int64 ids → (batch, tokens, hidden): what the lowest layer reads."""
        if not self.reserved_positions:
            return _tensor(model.embeddings(input_ids=input_ids))
        # By place alone: transformers counts the tokens that are not padding, which is the same for texts padded at the right.
        positions = torch.arange(input_ids.shape[1], device=input_ids.device)[None] + self.offset(model)  # (1, tokens)
        return _tensor(model.embeddings(input_ids=input_ids, position_ids=positions.expand_as(input_ids)))

    def mask(self, model: PreTrainedModel, attention_mask: Tensor, hidden: Tensor) -> Tensor:
        """(batch, tokens) → (batch, 1, 1 or tokens, tokens), added to the attention's scores before the softmax."""
        return (attention_mask[:, None, None, :] == 0) * torch.finfo(hidden.dtype).min

    def finish(self, model: PreTrainedModel, hidden: Tensor) -> Tensor:
        """(batch, tokens, hidden) of the highest layer → the same, as the model gives it out."""
        return hidden


class _Electra(Family):
    def embed(self, model: PreTrainedModel, input_ids: Tensor) -> Tensor:
        embedded = model.embeddings(input_ids=input_ids)  # (batch, tokens, embedding size)
        return _tensor(model.embeddings_project(embedded) if hasattr(model, "embeddings_project") else embedded)


class _DistilBert(Family):
    def mask(self, model: PreTrainedModel, attention_mask: Tensor, hidden: Tensor) -> Tensor:
        # Its attention in plain operators makes the mask itself.
        return super().mask(model, attention_mask, hidden) if model.config._attn_implementation == "sdpa" else attention_mask


class _Gpt2(Family):
    def embed(self, model: PreTrainedModel, input_ids: Tensor) -> Tensor:
        positions = torch.arange(input_ids.shape[1], device=input_ids.device)  # (tokens,)
        return _tensor(model.drop(model.wte(input_ids) + model.wpe(positions)))

    def mask(self, model: PreTrainedModel, attention_mask: Tensor, hidden: Tensor) -> Tensor:
        place = torch.arange(attention_mask.shape[1], device=attention_mask.device)  # (tokens,)
        later = place[None, :] > place[:, None]  # (tokens, tokens)
        blocked = (attention_mask[:, None, None, :] == 0) | later[None, None]  # (batch, 1, tokens, tokens)
        return blocked * torch.finfo(hidden.dtype).min

    def finish(self, model: PreTrainedModel, hidden: Tensor) -> Tensor:
        return _tensor(model.ln_f(hidden))


_ROBERTA = Family(reserved_positions=True)
FAMILIES: Mapping[str, Family] = {
    "bert": Family(fused=True),
    "roberta": _ROBERTA,
    "xlm-roberta": _ROBERTA,
    "electra": _Electra(pooler=False, sdpa=False),
    "distilbert": _DistilBert(
        layers="transformer.layer",
        widens="ffn.lin1",
        narrows="ffn.lin2",
        units="hidden_dim",
        mask_argument="attn_mask",
        pooler=False,
    ),
    "gpt2": _Gpt2(layers="h", widens="mlp.c_fc", narrows="mlp.c_proj", units="n_inner", pooler=False, causal=True),
}
"""By transformers' ``model_type``."""


def family_of(model_type: str, backbone: object) -> Family:
    """The family of a model. Raises InvalidInput, naming those that are known, for any other."""
    if model_type not in FAMILIES:
        raise InvalidInput(f"backbone {str(backbone)!r} is a {model_type!r} model; accepted are {', '.join(FAMILIES)}")
    return FAMILIES[model_type]


def mean_pool(hidden: Tensor, attention_mask: Tensor) -> Tensor:
    """(batch, tokens, hidden) → (batch, hidden): mean over the text's tokens, scaled to length 1."""
    weights = attention_mask.unsqueeze(-1).to(hidden.dtype)  # (batch, tokens, 1)
    mean = (hidden * weights).sum(1) / weights.sum(1)
    return nn.functional.normalize(mean, dim=-1)


def last_pool(hidden: Tensor, attention_mask: Tensor) -> Tensor:
    """(batch, tokens, hidden) → (batch, hidden): the last token of a text that is padded at the right, scaled to length 1."""
    last = attention_mask.sum(1)[:, None, None] - 1  # (batch, 1, 1)
    chosen = hidden.gather(1, last.expand(-1, 1, hidden.shape[-1])).squeeze(1)  # (batch, hidden)
    return nn.functional.normalize(chosen, dim=-1)


def _tensor(given: Tensor) -> Tensor:
    """What comes out of a module of transformers, whose types are not known here."""
    return given
