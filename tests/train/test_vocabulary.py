"""Trimming a vocabulary: the data's texts keep pieces and vectors to the bit, and every other text can still be read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from transformers import PreTrainedTokenizerFast

from bertrec.errors import InvalidInput
from bertrec.text import TextTokenizer
from tests import tiny_multilingual as tiny
from train import vocabulary
from train.encoder import Encoder, load_tokenizer
from train.multilingual import convert
from train.vocabulary import load_encoder, trim_vocabulary

TEXTS = ["music player", "播放音乐", "我 é"]
DROPPED = {"▁edit", "▁chess", "编辑", "下棋"}


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("multilingual")
    tiny.write_weights(folder / "weights.bin")
    convert(folder / "weights.bin", folder / "backbone")
    return folder / "backbone"


@pytest.fixture(autouse=True)
def always_worthwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vocabulary, "WORTHWHILE", 1.0)


def pieces(tokenizer: PreTrainedTokenizerFast, text: str) -> list[str]:
    return [str(piece) for piece in tokenizer.convert_ids_to_tokens(tokenizer(text)["input_ids"])]


def vector(encoder: Encoder, tokenizer: PreTrainedTokenizerFast, text: str) -> torch.Tensor:
    ids = torch.tensor([tokenizer(text)["input_ids"]])
    with torch.inference_mode():
        return encoder.eval().forward(ids, torch.ones_like(ids))


def test_the_texts_of_the_data_keep_their_pieces_and_their_vectors_to_the_bit(backbone: Path) -> None:
    original = load_tokenizer(backbone)
    trimmed = trim_vocabulary(original, TEXTS, frequent=0)
    assert set(original.get_vocab()) - set(trimmed.get_vocab()) == DROPPED
    encoder = load_encoder(backbone, trimmed)
    assert encoder.bert.get_input_embeddings().weight.shape == (len(tiny.PIECES) - len(DROPPED), tiny.HIDDEN)
    assert encoder.bert.config.vocab_size == len(trimmed)
    for text in TEXTS:
        assert pieces(trimmed, text) == pieces(original, text)
        assert torch.equal(vector(encoder, trimmed, text), vector(Encoder.load(backbone), original, text))


def test_other_texts_are_cut_shorter_but_not_lost(backbone: Path) -> None:
    original = load_tokenizer(backbone)
    trimmed = trim_vocabulary(original, TEXTS, frequent=0)
    assert pieces(original, "edit 编辑") == ["<s>", "▁que", "ry", ":", "▁edit", "▁", "编辑", "</s>"]
    assert pieces(trimmed, "edit 编辑") == ["<s>", "▁que", "ry", ":", "▁", *"edit", "▁", "编", "辑", "</s>"]
    assert pieces(trimmed, "x ж") == pieces(original, "x ж") == ["<s>", "▁que", "ry", ":", "▁", "x", "▁", "<unk>", "</s>"]


def test_frequent_pieces_in_the_characters_of_the_texts_stay(backbone: Path) -> None:
    trimmed = trim_vocabulary(load_tokenizer(backbone), ["music player edt"], frequent=1_000)
    assert set(load_tokenizer(backbone).get_vocab()) - set(trimmed.get_vocab()) == {"▁chess", "音乐", "播放", "编辑", "下棋"}


def test_the_file_that_serves_reads_as_the_trimmed_tokenizer_does(backbone: Path, tmp_path: Path) -> None:
    trimmed = trim_vocabulary(load_tokenizer(backbone), TEXTS, frequent=0)
    trimmed.save_pretrained(tmp_path)
    served = TextTokenizer(tmp_path / "tokenizer.json", 64).tokenise(["edit music 播放"])
    assert served[0].ids == trimmed("edit music 播放")["input_ids"]
    assert json.loads((tmp_path / "tokenizer.json").read_text())["model"]["unk_id"] == trimmed.unk_token_id == 3
    assert trimmed.mask_token_id == len(trimmed) - 1
    assert load_tokenizer(tmp_path).get_vocab() == trimmed.get_vocab()


def test_a_run_saved_with_a_trimmed_vocabulary_loads_again(backbone: Path, tmp_path: Path) -> None:
    trimmed = trim_vocabulary(load_tokenizer(backbone), TEXTS, frequent=0)
    encoder = load_encoder(backbone, trimmed)
    encoder.bert.save_pretrained(tmp_path)
    assert torch.equal(vector(Encoder.load(tmp_path), trimmed, TEXTS[0]), vector(encoder, trimmed, TEXTS[0]))


def test_nothing_is_trimmed_where_little_would_be_gained(
    backbone: Path, tiny_backbone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vocabulary, "WORTHWHILE", 0.5)
    for folder in (backbone, tiny_backbone):
        tokenizer = load_tokenizer(folder)
        assert trim_vocabulary(tokenizer, TEXTS) is tokenizer
        weights = load_encoder(folder, tokenizer).bert.get_input_embeddings().weight
        assert torch.equal(weights, Encoder.load(folder).bert.get_input_embeddings().weight)


def test_a_tokenizer_of_another_backbone_is_refused(backbone: Path, tiny_backbone: Path) -> None:
    with pytest.raises(InvalidInput, match=r"lacks \d+ of the tokenizer's \d+ tokens, such as '!'"):
        load_encoder(backbone, load_tokenizer(tiny_backbone))
