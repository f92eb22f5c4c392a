"""Text in, ids and scores out as one graph: the tokens of tokenizer.json in any script, and the answers of the bundle's parts."""

from __future__ import annotations

import argparse
import dataclasses
import json
import random
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from tokenizers import Tokenizer

from bertrec.bundle import Bundle, seal
from bertrec.errors import InvalidBundle, InvalidData, InvalidInput
from bertrec.fusion import Gates
from bertrec.onefile import ONEFILE
from bertrec.text import TextTokenizer
from export import onefile
from export.onefile import TextRanking, build_onefile
from export.onefile_compare import ODD_TEXTS, Reference, compare, load_tokenizer, real_texts
from export.ranker import read_items
from tests import tiny
from tests.tiny import ITEMS, item_text

EMPTY = ("", "   ", "\u200b", "\u0301")
MAX_TOKENS = 64


@pytest.fixture(scope="module")
def bundle(tiny_bundle: Path) -> Bundle:
    return Bundle.open(tiny_bundle)


def in_another_script(tiny_backbone: Path, folder: Path, *, cased: bool = False) -> Path:
    """The tiny tokenizer with words and letters of other scripts; cased, it keeps accents and capitals as well."""
    state = json.loads((tiny_backbone / "tokenizer.json").read_text(encoding="utf-8"))
    vocabulary = state["model"]["vocab"]
    letters = "éüßøĐαςγжйкмعمءकसा한ᄒ각ᅡがかプ保暖不🧥👕ＡÉΣ！。，—№½"
    for token in [*letters, *(f"##{letter}" for letter in letters), "été", "жук", "##αγ", "🧥👕", "##🧥👕"]:
        vocabulary.setdefault(token, len(vocabulary))
    state["normalizer"].update(lowercase=not cased, strip_accents=False if cased else None)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.json").write_text(json.dumps(state), encoding="utf-8")
    return folder / "tokenizer.json"


def odd_texts(count: int) -> list[str]:
    """Words of characters from everywhere, the rarer and the commoner alike."""
    draw = random.Random(0)
    planes = [
        (0x20, 0x7F),
        (0x80, 0x600),
        (0x300, 0x370),
        (0x600, 0x3400),
        (0x3400, 0xD800),
        (0xF900, 0x10000),
        (0x10000, 0x2FA20),
    ]
    known = "éüßøαγжйعمकसा한がプ保暖🧥👕 !。"

    def character() -> str:
        low, high = draw.choice(planes)
        return draw.choice(known) if draw.random() < 0.5 else chr(draw.randrange(low, high))

    return ["".join(character() for _ in range(draw.randrange(1, 40))) for _ in range(count)]


@pytest.mark.parametrize("cased", [False, True])
def test_every_text_is_cut_into_the_tokens_of_tokenizer_json(tiny_backbone: Path, tmp_path: Path, cased: bool) -> None:
    path = in_another_script(tiny_backbone, tmp_path, cased=cased)
    cut = load_tokenizer(path, MAX_TOKENS)
    texts = [*ODD_TEXTS, *EMPTY, *odd_texts(400), *(item_text(item) for item in range(ITEMS))]
    wanted = [tokens.ids for tokens in TextTokenizer(path, MAX_TOKENS).tokenise(texts)]
    assert [text for text, ids in zip(texts, wanted, strict=True) if cut(text) != ids] == []
    assert len({tuple(ids) for ids in wanted}) > 350  # they are not all [UNK]


def test_what_a_reader_may_check_by_hand(tiny_backbone: Path) -> None:
    path = tiny_backbone / "tokenizer.json"
    cut, tokenizer = load_tokenizer(path, MAX_TOKENS), Tokenizer.from_file(str(path))

    def tokens(text: str) -> list[str]:
        return [tokenizer.id_to_token(token) for token in cut(text)[1:-1]]

    assert tokens("Jade COAT, é") == ["jade", "coat", ",", "e"]
    assert tokens("coat🧥 🧥 coat") == ["[UNK]", "[UNK]", "coat"]
    assert tokens("保暖coat") == ["[UNK]", "[UNK]", "coat"]
    assert tokens("e\u0301te\u0301") == ["e", "##t", "##e"]
    assert tokens("x" * 100) == ["x", *["##x"] * 61] and tokens("x" * 101) == ["[UNK]"]
    assert cut("") == cut(" \u200b\t") == [2, 3]
    assert cut("coat " * 200) == [2, *cut("coat")[1:-1] * (MAX_TOKENS - 2), 3]


def test_a_vocabulary_without_every_single_character_is_warned_of(
    tiny_backbone: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    load_tokenizer(tiny_backbone / "tokenizer.json", MAX_TOKENS)
    assert caplog.text == ""
    state = json.loads((tiny_backbone / "tokenizer.json").read_text(encoding="utf-8"))
    state["model"]["vocab"]["été"] = len(state["model"]["vocab"])
    state["normalizer"]["strip_accents"] = False
    (tmp_path / "tokenizer.json").write_text(json.dumps(state), encoding="utf-8")
    load_tokenizer(tmp_path / "tokenizer.json", MAX_TOKENS)
    assert "words with ['é']" in caplog.text


def test_the_operator_alone_reads_ascii_alike_and_accents_and_emoji_differently(bundle: Bundle, tmp_path: Path) -> None:
    texts = ["a jade coat, please", "a crème coat", "coat🧥 jade"]
    built = build_onefile(bundle, "fp32", tmp_path / "one.onnx")
    found = compare(built, reference_of(bundle, "fp32"), texts)
    assert (found.same_tokens, found.same_top, found.differing) == (3, 3, ())
    assert found.plain_tokens == 1
    assert dict(found.causes) == {"è": 1, "🧥": 1}
    assert found.named_causes() == "è latin small letter e with grave (1), 🧥 coat (1)"


def reference_of(bundle: Bundle, engine: str) -> Reference:
    ranking = TextRanking.read(bundle)
    return Reference(bundle, engine, ranking.items, ranking.prior)


@pytest.mark.parametrize("engine", ["fp32", "int8"])
def test_the_answers_are_those_of_the_bundles_parts(bundle: Bundle, tmp_path: Path, engine: str) -> None:
    built = build_onefile(bundle, engine, tmp_path / "one.onnx")
    assert (built.bundle, built.engine, built.max_k) == (bundle.fingerprint, engine, ITEMS)
    reference = reference_of(bundle, engine)
    ids = [item.item_id for item in bundle.catalogue().items]
    for text in ["a green gown", "crème brûlée", "保暖的外套", "hat " * 300, *(item_text(item) for item in range(ITEMS))]:
        scores = reference.scores(reference.tokens(text))
        order = np.argsort(-scores, kind="stable")
        found = built.recommend(text, ITEMS)
        assert [item.index for item in found] == order.tolist()
        assert [item.item_id for item in found] == [ids[index] for index in order]
        np.testing.assert_allclose([item.score for item in found], scores[order], atol=1e-5)


def test_the_weights_are_the_gates(bundle: Bundle, tmp_path: Path) -> None:
    sides = read_items(bundle.engine_path("ranker", "fp32"))
    weighed = with_gates(bundle, tmp_path / "weighed", Gates({"text": np.log(2.0), "prior": np.log(0.5)}))
    ranking = TextRanking.read(weighed, popularity=3.0)
    np.testing.assert_allclose(ranking.items, 2.0 * sides["text"], rtol=1e-6)
    np.testing.assert_allclose(ranking.prior, 1.5 * sides["prior"][:, 0], rtol=1e-6)
    without = with_gates(bundle, tmp_path / "without", Gates({"text": 0.0}))
    assert not TextRanking.read(without).prior.any()


def test_a_gate_that_weighs_by_the_query_becomes_its_mean_and_is_warned_of(
    bundle: Bundle, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    gates = Gates({"text": 0.0, "prior": 0.0}, {"text": [1.0, 0.0, 0.0, 0.0]})
    ranking = TextRanking.read(with_gates(bundle, tmp_path / "gate", gates))
    words = np.log1p(2) / np.log1p(60)  # every item's text has two words
    np.testing.assert_allclose(ranking.items, np.exp(words) * read_items(bundle.engine_path("ranker", "fp32"))["text"], rtol=1e-5)
    assert "weighs by the query" in caplog.text


def with_gates(bundle: Bundle, folder: Path, gates: Gates) -> Bundle:
    shutil.copytree(bundle.folder, folder)
    gates.save(folder / "signals")
    seal(folder, dataclasses.replace(bundle.manifest, files={}))
    return Bundle.open(folder)


def test_the_file_is_one_valid_graph_with_the_tensors_that_were_said(bundle: Bundle, tmp_path: Path) -> None:
    build_onefile(bundle, "fp32", tmp_path / "deep" / "one.onnx")
    model = onnx.load(str(tmp_path / "deep" / "one.onnx"))
    onnx.checker.check_model(model)
    assert [tensor.name for tensor in model.graph.input] == [tensor.name for tensor in ONEFILE.inputs]
    assert [tensor.name for tensor in model.graph.output] == [tensor.name for tensor in ONEFILE.outputs]
    assert {one.domain for one in model.opset_import} == {"", "com.microsoft", "ai.onnx.contrib"}
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["one.onnx"]


def test_two_exports_are_equal_to_the_byte(bundle: Bundle, tmp_path: Path) -> None:
    for name in ("one", "two"):
        build_onefile(bundle, "fp32", tmp_path / name)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_a_graph_that_answers_differently_is_refused(bundle: Bundle, tmp_path: Path) -> None:
    built = build_onefile(bundle, "fp32", tmp_path / "one.onnx")
    ranking = TextRanking.read(bundle)
    moved = ranking.items.copy()
    moved[3] *= 1.1
    with pytest.raises(InvalidBundle, match="answers .* differently: scores differ by 0"):
        onefile._check(built, Reference(bundle, "fp32", moved, ranking.prior))


def test_what_cannot_be_joined_is_refused_and_nothing_is_left(bundle: Bundle, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InvalidInput, match="cannot be written"):
        build_onefile(bundle, "fp32", tmp_path / "file" / "one.onnx")
    with pytest.raises(InvalidInput, match=r"no encoder engine 'fp64'; it has fp32, int8"):
        build_onefile(bundle, "fp64", tmp_path / "one.onnx")
    compiled = [dataclasses.replace(record, runtime="tensorrt") for record in bundle.manifest.engines]
    of_tensorrt = dataclasses.replace(bundle, manifest=dataclasses.replace(bundle.manifest, engines=tuple(compiled)))
    with pytest.raises(InvalidInput, match="compiled for tensorrt; a one-file recommender takes an ONNX file"):
        build_onefile(of_tensorrt, "fp32", tmp_path / "one.onnx")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"type": "Unigram"}, "has \\('Unigram', 'BertNormalizer'"),
        ({"max_input_chars_per_word": 50}, "cuts words in another way"),
        ({"vocab": {"[UNK]": 0, "[CLS]": 2, "[SEP]": 3}}, "not 0 to 2"),
    ],
)
def test_another_tokenizer_is_refused(tiny_backbone: Path, tmp_path: Path, change: dict[str, object], message: str) -> None:
    state = json.loads((tiny_backbone / "tokenizer.json").read_text(encoding="utf-8"))
    state["model"].update(change)
    (tmp_path / "tokenizer.json").write_text(json.dumps(state), encoding="utf-8")
    with pytest.raises(InvalidInput, match=message):
        load_tokenizer(tmp_path / "tokenizer.json", MAX_TOKENS)


def test_the_command_writes_the_file_and_prints_the_shares(
    bundle: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    parser = argparse.ArgumentParser()
    onefile.add_parser(parser.add_subparsers())
    data = str(tiny.write_data(tmp_path / "data"))
    arguments = ["onefile", "--bundle", str(bundle.folder), "--output", str(tmp_path / "one.onnx"), "--data", data]
    assert onefile.run(parser.parse_args([*arguments, "--compare", "5"])) == 0
    printed = capsys.readouterr()
    assert "5 (100.00%)" in printed.out
    assert f"{len(ODD_TEXTS)} (100.00%)" in printed.out
    assert "differing although normalised: none" in printed.err
    assert (tmp_path / "one.onnx").is_file()


def test_texts_to_compare_on_are_different_ones_and_must_be_there(tmp_path: Path) -> None:
    data = str(tiny.write_data(tmp_path / "data"))
    assert len(set(real_texts(data, 30))) == len(real_texts(data, 30)) == 30
    with pytest.raises(InvalidInput, match="--compare is 0"):
        real_texts(data, 0)
    with pytest.raises(InvalidData, match="neither a known data set nor a folder"):
        real_texts("nowhere", 1)
