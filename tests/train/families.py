"""A tiny randomly initialised backbone of each family, with a tokenizer of the kind that the family has."""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    AutoModel,
    BertConfig,
    DistilBertConfig,
    ElectraConfig,
    GPT2Config,
    PretrainedConfig,
    PreTrainedTokenizerFast,
    RobertaConfig,
    XLMRobertaConfig,
)

from tests import tiny

HIDDEN, LAYERS, POSITIONS = 32, 2, 80
_BERT_LIKE = {
    "hidden_size": HIDDEN,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": POSITIONS,
}
_DISTILBERT = {"dim": HIDDEN, "n_layers": LAYERS, "n_heads": 4, "hidden_dim": 64, "max_position_embeddings": POSITIONS}
CONFIGS: dict[str, tuple[type[PretrainedConfig], dict[str, int]]] = {
    "bert": (BertConfig, _BERT_LIKE),
    "roberta": (RobertaConfig, {**_BERT_LIKE, "pad_token_id": 1}),
    "xlm-roberta": (XLMRobertaConfig, {**_BERT_LIKE, "pad_token_id": 1}),
    "electra": (ElectraConfig, {**_BERT_LIKE, "embedding_size": 16}),
    "distilbert": (DistilBertConfig, _DISTILBERT),
    "gpt2": (GPT2Config, {"n_embd": HIDDEN, "n_layer": LAYERS, "n_head": 4, "n_positions": POSITIONS}),
}
BYTE_PAIRS = ("roberta", "xlm-roberta", "gpt2")


def write_family(name: str, folder: Path) -> Path:
    """A backbone of two layers of 32 units, as save_pretrained writes it."""
    if name in BYTE_PAIRS:
        tokenizer = _byte_pairs(name)
        tokenizer.save_pretrained(folder)
        size = len(tokenizer)
    else:
        tiny.write_backbone(folder)  # for its word-piece tokenizer; its weights are written over
        size = len(PreTrainedTokenizerFast.from_pretrained(folder))
    torch.manual_seed(0)
    kind, sizes = CONFIGS[name]
    AutoModel.from_config(kind(vocab_size=size, **sizes)).save_pretrained(folder)
    return folder


def _byte_pairs(name: str) -> PreTrainedTokenizerFast:
    """Byte-level pairs, learned from the catalogue's words; GPT-2 has no token around a text, RoBERTa has two."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<|endoftext|>"] if name == "gpt2" else ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=600, special_tokens=special, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator([f" {word}" for word in tiny.WORDS], trainer)
    if name == "gpt2":
        return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|endoftext|>")
    around = [("<s>", 0), ("</s>", 2)]
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=around)
    names = {"bos_token": "<s>", "cls_token": "<s>", "pad_token": "<pad>", "eos_token": "</s>", "sep_token": "</s>"}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", mask_token="<mask>", **names)
