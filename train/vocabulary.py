"""A multilingual backbone cut down to the tokens that a data set needs.

Four fifths of multilingual-e5-small are embeddings of the words of a hundred languages. Abdaoui et al., Load What You Need:
Smaller Versions of Multilingual BERT, 2020, https://arxiv.org/abs/2010.05609.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from torch import nn
from transformers import PreTrainedTokenizerFast

from bertrec.errors import InvalidInput
from train.encoder import Encoder, load_tokenizer

SPACE = "▁"
"""What a unigram tokenizer writes for the space before a word."""
FREQUENT = 20_000
"""Pieces kept for texts to come. Of held-out app descriptions and shop reviews, 95 % kept a cosine to their untrimmed vector of
.968 to .971 or more without any, .972 to .983 with 20,000 (20 MB), .986 to .989 with 40,000."""
WORTHWHILE = 0.5
"""A vocabulary is trimmed where at most this share of it is kept."""


def trim_vocabulary(
    tokenizer: PreTrainedTokenizerFast, texts: Sequence[str], *, frequent: int = FREQUENT
) -> PreTrainedTokenizerFast:
    """The tokenizer with the pieces of ``texts``, every piece of one character, and the ``frequent`` likeliest in their script.

    These texts are cut into the same pieces as before and, with ``load_encoder``, have the same vectors; only the ids change.
    Another text is cut shorter where a piece of its own is gone, and only what was <unk> before is <unk> now. Returned as given
    is a tokenizer that is no unigram one, and one of which more than half would be kept.
    """
    state = json.loads(tokenizer.backend_tokenizer.to_str())
    if state["model"]["type"] != "Unigram":
        return tokenizer
    vocabulary = state["model"]["vocab"]
    reader = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    reader.encode_special_tokens = True  # as bertrec/text.py reads
    encodings = reader.encode_batch(list(texts))
    used = {row for encoding in encodings for row in encoding.ids}  # with <s> and what else stands around a text
    added = {token["id"] for token in state["added_tokens"]}
    kept = sorted(used | added | _fallback(vocabulary, used, frequent))
    if len(kept) > WORTHWHILE * len(tokenizer):
        return tokenizer
    _renumber(state, kept)
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(state)),
        model_max_length=tokenizer.model_max_length,
        **tokenizer.special_tokens_map,
    )


def load_encoder(backbone: str | Path, tokenizer: PreTrainedTokenizerFast) -> Encoder:
    """The pre-trained encoder with the embeddings of those tokens that ``tokenizer`` has, in its order.

    ``tokenizer`` is the backbone's own or a trimmed one. Raises InvalidInput where it has a token that the backbone lacks, and
    what ``Encoder.load`` raises.
    """
    encoder = Encoder.load(backbone)
    original, wanted = load_tokenizer(backbone).get_vocab(), tokenizer.get_vocab()
    if original == wanted:
        return encoder
    if unknown := wanted.keys() - original.keys():
        raise InvalidInput(
            f"backbone {str(backbone)!r} lacks {len(unknown)} of the tokenizer's {len(wanted)} tokens, such as {min(unknown)!r}; "
            "give the backbone that the tokenizer was trimmed from"
        )
    rows = torch.tensor([original[token] for token in sorted(wanted, key=wanted.__getitem__)])
    bert = encoder.bert
    padding = tokenizer.pad_token_id
    weights = bert.get_input_embeddings().weight.detach()[rows].clone()  # (kept, hidden)
    embeddings = nn.Embedding(len(rows), encoder.hidden, padding_idx=padding)
    embeddings.weight = nn.Parameter(weights)
    bert.set_input_embeddings(embeddings)
    bert.config.vocab_size, bert.config.pad_token_id = len(rows), padding
    return encoder


def _fallback(vocabulary: Sequence[tuple[str, float]], used: set[int], frequent: int) -> set[int]:
    """The ids that other texts are cut into.

    The least probable piece is among them, because a unigram model derives the penalty of <unk> from it.
    """
    characters = {SPACE}.union(*(vocabulary[row][0] for row in used if row < len(vocabulary)))
    ranked = sorted(range(len(vocabulary)), key=lambda row: -vocabulary[row][1])
    familiar = [row for row in ranked if characters.issuperset(vocabulary[row][0])]
    single = {row for row, (piece, _) in enumerate(vocabulary) if len(piece.removeprefix(SPACE)) <= 1}
    return single.union(familiar[:frequent], ranked[-1:])


def _renumber(state: dict[str, Any], kept: list[int]) -> None:
    """Rewrite the parsed tokenizer.json for the tokens ``kept``, which are numbered anew from 0 in their old order."""
    new = {old: row for row, old in enumerate(kept)}
    model = state["model"]
    model["vocab"] = [model["vocab"][old] for old in kept if old < len(model["vocab"])]
    model["unk_id"] = new[model["unk_id"]]
    renumber_special(state, new)


def renumber_special(state: dict[str, Any], new: Mapping[int, int]) -> None:
    """Give the special tokens of a parsed tokenizer.json their new ids: where they are named, around a text, and as padding."""
    for token in state["added_tokens"]:
        token["id"] = new[token["id"]]
    around = state["post_processor"]
    for token in around.get("special_tokens", {}).values():  # TemplateProcessing
        token["ids"] = [new[old] for old in token["ids"]]
    for name in {"sep", "cls"} & around.keys():  # BertProcessing
        around[name][1] = new[around[name][1]]
    if state.get("padding"):
        state["padding"]["pad_id"] = new[state["padding"]["pad_id"]]
