"""Trimming a word-piece vocabulary: the corpus keeps its tokens and its vectors to the bit, and every other text can be read."""

from __future__ import annotations

import dataclasses
import json
import random
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.transformers import optimizer
from tokenizers import Tokenizer

from bertrec.engine import OnnxEngine
from bertrec.errors import InvalidInput
from bertrec.session_options import SessionOptions
from bertrec.tensors import ENCODER
from export.encoder import export_plain
from export.vocabulary import TrimmedVocabulary, corpus_texts, trim_encoder, trim_wordpiece
from tests import tiny
from tests.tiny import WORDS
from train.encoder import Encoder
from train.fit import fit
from train.settings import PRESETS, Preset

CORPUS = ["a green gown", "GREEN coat, please!", "the amber hat"]
USED = {"green", "gown", "coat", "amber", "hat"}


@pytest.fixture(scope="module")
def tokenizer_file(tiny_backbone: Path) -> Path:
    return tiny_backbone / "tokenizer.json"


@pytest.fixture(scope="module")
def trimmed(tokenizer_file: Path) -> TrimmedVocabulary:
    return trim_wordpiece(tokenizer_file, CORPUS, frequent=0)


def opened(tokenizer: Path | TrimmedVocabulary) -> Tokenizer:
    read = Tokenizer.from_file(str(tokenizer)) if isinstance(tokenizer, Path) else Tokenizer.from_str(tokenizer.tokenizer)
    read.no_padding()
    return read


def vector(engine: OnnxEngine, ids: list[int]) -> NDArray[np.float32]:
    tokens = np.asarray([ids], np.int64)
    vectors: NDArray[np.float32] = engine.run({"input_ids": tokens, "attention_mask": np.ones_like(tokens)})["interest_vector"]
    return vectors


def test_the_corpus_keeps_its_tokens_and_what_it_does_not_use_is_gone(tokenizer_file: Path, trimmed: TrimmedVocabulary) -> None:
    old, new = opened(tokenizer_file), opened(trimmed)
    assert set(old.get_vocab()) - set(new.get_vocab()) == set(WORDS) - USED
    for text in CORPUS:
        assert new.encode(text).tokens == old.encode(text).tokens


def test_the_ids_are_numbered_anew_in_their_old_order(tokenizer_file: Path, trimmed: TrimmedVocabulary) -> None:
    old, new = opened(tokenizer_file), opened(trimmed)
    assert (np.diff(trimmed.kept) > 0).all()
    assert [new.id_to_token(row) for row in range(len(trimmed.kept))] == [old.id_to_token(int(row)) for row in trimmed.kept]
    assert new.get_vocab_size() == len(trimmed.kept)
    for text in CORPUS:
        assert [int(trimmed.kept[row]) for row in new.encode(text).ids] == old.encode(text).ids


def test_any_other_text_is_cut_shorter_and_no_word_is_lost_for_it(tokenizer_file: Path, trimmed: TrimmedVocabulary) -> None:
    old, new = opened(tokenizer_file), opened(trimmed)
    assert new.encode("silver é").tokens == ["[CLS]", "s", "##i", "##l", "##v", "##e", "##r", "e", "[SEP]"]
    draw = random.Random(0)
    texts = ["".join(draw.choice("abcxyz 🧥保é!-") for _ in range(30)) for _ in range(100)] + [" ".join(WORDS)]
    for text in texts:
        before, after = old.encode(text).tokens, new.encode(text).tokens
        assert after.count("[UNK]") == before.count("[UNK]")
        assert spelt(after) == spelt(before)


def spelt(tokens: list[str]) -> str:
    return "".join(token.removeprefix("##") for token in tokens)


def test_the_commonest_of_the_others_are_kept_where_asked_for(tokenizer_file: Path) -> None:
    kept = set(opened(trim_wordpiece(tokenizer_file, CORPUS, frequent=3)).get_vocab())
    assert kept & set(WORDS) == USED | {"bronze", "cobalt"}  # the third, amber, is used
    assert set(opened(trim_wordpiece(tokenizer_file, CORPUS)).get_vocab()) >= set(WORDS)


def test_a_token_that_is_rare_in_the_corpus_is_dropped_where_asked_for(tokenizer_file: Path) -> None:
    kept = set(opened(trim_wordpiece(tokenizer_file, CORPUS, frequent=0, at_least=2)).get_vocab())
    assert kept & set(WORDS) == {"green"}


def test_special_tokens_and_padding_follow_their_ids(tokenizer_file: Path, tmp_path: Path) -> None:
    state = json.loads(tokenizer_file.read_text(encoding="utf-8"))
    order = sorted(state["model"]["vocab"], key=state["model"]["vocab"].__getitem__)
    order = [*order[5:], *order[:5]]  # the special tokens come last, where their ids move
    state["model"]["vocab"] = {token: row for row, token in enumerate(order)}
    for token in state["added_tokens"]:
        token["id"] = order.index(token["content"])
    around = {name: [f"[{name.upper()}]", order.index(f"[{name.upper()}]")] for name in ("sep", "cls")}
    state["post_processor"] = {"type": "BertProcessing", **around}
    pad = order.index("[PAD]")
    shape = {"strategy": {"Fixed": 8}, "direction": "Right", "pad_to_multiple_of": None, "pad_type_id": 0, "pad_token": "[PAD]"}
    state["padding"] = {**shape, "pad_id": pad}
    (tmp_path / "tokenizer.json").write_text(json.dumps(state), encoding="utf-8")
    trimmed = trim_wordpiece(tmp_path / "tokenizer.json", CORPUS, frequent=0)
    new = Tokenizer.from_str(trimmed.tokenizer)
    for text in ("green [MASK]", "silver"):
        ids = new.encode(text).ids
        assert [int(trimmed.kept[row]) for row in ids[:3]] == [order.index("[CLS]"), *trimmed.kept[ids[1:3]]]
        assert [new.id_to_token(row) for row in ids][-1] in ("[PAD]", "[SEP]")
    assert new.encode("green [MASK]").tokens == ["[CLS]", "green", "[MASK]", "[SEP]", *["[PAD]"] * 4]
    assert [new.token_to_id(name) for name in ("[PAD]", "[SEP]")] == new.encode("green").ids[-1:] + new.encode("green").ids[2:3]


def test_places_that_nothing_uses_are_dropped_and_odd_characters_keep_their_tokens(tokenizer_file: Path, tmp_path: Path) -> None:
    state = json.loads(tokenizer_file.read_text(encoding="utf-8"))
    for token in ("[unused0]", "ñandu", "##ñ"):  # ñ cannot begin a word, so that the whole word has to stay
        state["model"]["vocab"][token] = len(state["model"]["vocab"])
    state["normalizer"]["strip_accents"] = False
    (tmp_path / "tokenizer.json").write_text(json.dumps(state), encoding="utf-8")
    new = opened(trim_wordpiece(tmp_path / "tokenizer.json", CORPUS, frequent=0))
    assert {"ñandu", "##ñ"} <= set(new.get_vocab())
    assert "[unused0]" not in new.get_vocab()
    assert new.encode("ñandu").tokens == ["[CLS]", "ñandu", "[SEP]"]


def test_what_cannot_be_trimmed_is_refused(tokenizer_file: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="frequent is -1 and at_least 1"):
        trim_wordpiece(tokenizer_file, CORPUS, frequent=-1)
    with pytest.raises(InvalidInput, match="at_least 0"):
        trim_wordpiece(tokenizer_file, CORPUS, at_least=0)
    (tmp_path / "unigram.json").write_text('{"model": {"type": "Unigram"}}')
    with pytest.raises(InvalidInput, match="is Unigram; accepted is WordPiece"):
        trim_wordpiece(tmp_path / "unigram.json", CORPUS)


@pytest.fixture(scope="module")
def plain(tiny_backbone: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("plain") / "plain.onnx"
    export_plain(Encoder.load(tiny_backbone, attention="eager"), path)
    return path


@pytest.mark.parametrize("engine", ["plain", "embeddings fused", "fp32", "int8"])
def test_vectors_are_the_same_to_the_bit(
    tiny_bundle: Path, plain: Path, tokenizer_file: Path, trimmed: TrimmedVocabulary, tmp_path: Path, engine: str
) -> None:
    source = {"plain": plain, "embeddings fused": tmp_path / "fused.onnx"}.get(engine, tiny_bundle / f"encoder/{engine}.onnx")
    if engine == "embeddings fused":
        fused = optimizer.optimize_model(str(plain), model_type="bert", num_heads=4, hidden_size=32, opt_level=0)
        assert "EmbedLayerNormalization" in {node.op_type for node in fused.model.graph.node}
        fused.save_model_to_file(str(source))
    trim_encoder(source, tmp_path / "deep/trimmed.onnx", trimmed.kept)
    onnx.checker.check_model(onnx.load(str(tmp_path / "deep/trimmed.onnx")))
    shapes = [shapes_of(path) for path in (source, tmp_path / "deep/trimmed.onnx")]
    changed = [(shapes[0][name], shapes[1][name]) for name in shapes[0] if shapes[0][name] != shapes[1][name]]
    rows = opened(tokenizer_file).get_vocab_size(), len(trimmed.kept)
    assert ([rows[0], 32], [rows[1], 32]) in changed
    assert all((before, after) == ([rows[0], *after[1:]], [rows[1], *before[1:]]) for before, after in changed)
    before, after = (
        OnnxEngine(source, ENCODER, SessionOptions(1)),
        OnnxEngine(tmp_path / "deep/trimmed.onnx", ENCODER, SessionOptions(1)),
    )
    old, new = opened(tokenizer_file), opened(trimmed)
    for text in CORPUS:
        np.testing.assert_array_equal(vector(after, new.encode(text).ids), vector(before, old.encode(text).ids))


@pytest.mark.parametrize("engine", ["plain", "fp32", "int8"])
def test_places_beyond_what_a_text_is_cut_to_are_dropped(
    tiny_bundle: Path, plain: Path, trimmed: TrimmedVocabulary, tmp_path: Path, engine: str
) -> None:
    source = plain if engine == "plain" else tiny_bundle / f"encoder/{engine}.onnx"
    trim_encoder(source, tmp_path / "whole.onnx", trimmed.kept)
    trim_encoder(source, tmp_path / "cut.onnx", trimmed.kept, positions=48)
    assert (tmp_path / "cut.onnx").stat().st_size < (tmp_path / "whole.onnx").stat().st_size
    before, after = (OnnxEngine(tmp_path / f"{name}.onnx", ENCODER, SessionOptions(1)) for name in ("whole", "cut"))
    ids = (np.arange(48) % len(trimmed.kept)).tolist()
    np.testing.assert_array_equal(vector(after, ids), vector(before, ids))


def shapes_of(path: Path) -> dict[str, list[int]]:
    return {tensor.name: list(tensor.dims) for tensor in onnx.load(str(path)).graph.initializer}


def by_hand(path: Path, nodes: list[onnx.NodeProto], tables: dict[str, NDArray[np.generic]]) -> Path:
    """A graph with the tensors of an encoder: the sum of what ``nodes`` make of the ids, as ``values`` (batch, tokens, 2)."""
    constants = [numpy_helper.from_array(table, name) for name, table in tables.items()]
    constants.append(numpy_helper.from_array(np.asarray([1], np.int64), "tokens_axis"))
    total = helper.make_node("ReduceSum", ["values", "tokens_axis"], ["interest_vector"], keepdims=0)
    inputs = [helper.make_tensor_value_info(name, TensorProto.INT64, ["b", "t"]) for name in ("input_ids", "attention_mask")]
    output = helper.make_tensor_value_info("interest_vector", TensorProto.FLOAT, ["b", 2])
    graph = helper.make_graph([*nodes, total], "by_hand", inputs, [output], constants)
    onnx.save_model(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), str(path))
    return path


def test_rows_with_a_scale_each_are_cut_together(tmp_path: Path) -> None:
    codes, scales = np.arange(-10, 10, dtype=np.int8).reshape(10, 2), np.linspace(0.1, 1, 10).astype(np.float32)
    nodes = [
        helper.make_node("DequantizeLinear", ["codes", "scales", "zeros"], ["table"], axis=0),
        helper.make_node("Gather", ["table", "input_ids"], ["values"]),
    ]
    source = by_hand(tmp_path / "source.onnx", nodes, {"codes": codes, "scales": scales, "zeros": np.zeros(10, np.int8)})
    trim_encoder(source, tmp_path / "trimmed.onnx", [1, 4, 9])
    assert shapes_of(tmp_path / "trimmed.onnx") == {"codes": [3, 2], "scales": [3], "zeros": [3], "tokens_axis": [1]}
    found = vector(OnnxEngine(tmp_path / "trimmed.onnx", ENCODER, SessionOptions(1)), [0, 2, 2])
    np.testing.assert_array_equal(found[0], (codes * scales[:, None])[[1, 9, 9]].sum(axis=0))


def test_where_the_ids_are_computed_with_the_old_ones_are_looked_up(tmp_path: Path) -> None:
    table = np.arange(20, dtype=np.float32).reshape(10, 2)
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["own"]),
        helper.make_node("Mul", ["input_ids", "input_ids"], ["squares"]),
        helper.make_node("Cast", ["squares"], ["numbers"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["numbers", "last_axis"], ["column"]),
        helper.make_node("Add", ["own", "column"], ["values"]),
    ]
    source = by_hand(tmp_path / "source.onnx", nodes, {"table": table, "last_axis": np.asarray([2], np.int64)})
    trim_encoder(source, tmp_path / "trimmed.onnx", np.asarray([1, 4, 9]))
    engines = [OnnxEngine(tmp_path / name, ENCODER, SessionOptions(1)) for name in ("source.onnx", "trimmed.onnx")]
    np.testing.assert_array_equal(vector(engines[1], [0, 2, 1]), vector(engines[0], [1, 9, 4]))


def test_a_graph_without_such_a_table_and_an_id_beyond_it_are_refused(tmp_path: Path, plain: Path) -> None:
    with pytest.raises(InvalidInput, match="the ids to keep are 2 up to 5000; .* has embeddings of 0 to"):
        trim_encoder(plain, tmp_path / "trimmed.onnx", [1, 5000])
    with pytest.raises(InvalidInput, match="the ids to keep are 0"):
        trim_encoder(plain, tmp_path / "trimmed.onnx", [])
    nodes = [helper.make_node("Gather", ["table", "attention_mask"], ["values"])]
    other = by_hand(tmp_path / "other.onnx", nodes, {"table": np.zeros((3, 2), np.float32)})
    with pytest.raises(InvalidInput, match="has no table that input_ids chooses rows of"):
        trim_encoder(other, tmp_path / "trimmed.onnx", [1])
    assert not (tmp_path / "trimmed.onnx").exists()


def test_the_corpus_is_the_training_texts_the_catalogue_and_the_lexicon(tiny_backbone: Path, tmp_path: Path) -> None:
    settings = dataclasses.replace(PRESETS[Preset.QUICK], backbone=str(tiny_backbone))
    texts = set(corpus_texts(fit(str(tiny.write_data(tmp_path / "data")), settings, tmp_path / "run")))
    assert {"Item 3", "colour", WORDS[3], "i want " + tiny.item_text(3)} <= texts
    assert "sundress" in texts
