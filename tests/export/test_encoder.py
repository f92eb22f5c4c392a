"""The encoder as ONNX: its inputs, its fusions, and what is said where one is missing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from bertrec.engine import OnnxEngine
from bertrec.errors import InvalidBundle
from bertrec.tensors import ENCODER
from export.encoder import export_plain, fuse
from export.graphs import count_operators, products
from train.encoder import Encoder

FUSED = {"Attention": 2, "SkipLayerNormalization": 4, "BiasGelu": 2}


@pytest.fixture(scope="module")
def plain(tiny_backbone: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("encoder") / "plain.onnx"
    export_plain(Encoder.load(tiny_backbone, attention="eager"), path)
    return path


@pytest.fixture(scope="module")
def fused(plain: Path) -> Path:
    path = plain.with_name("fused.onnx")
    assert fuse(plain, path, heads=4, hidden=32, layers=2) == FUSED
    return path


def test_there_is_no_token_type_input_since_texts_have_one_segment(plain: Path, fused: Path) -> None:
    for path in (plain, fused):
        graph = onnx.load(str(path)).graph
        assert [tensor.name for tensor in graph.input] == ["input_ids", "attention_mask"]
        assert [[size.dim_param for size in tensor.type.tensor_type.shape.dim] for tensor in graph.input] == [
            ["batch", "tokens"],
            ["batch", "tokens"],
        ]


def test_operators_are_counted(plain: Path, fused: Path) -> None:
    before, after = count_operators(plain), count_operators(fused)
    assert {name: after[name] for name in FUSED} == FUSED
    assert not set(FUSED) & set(before)
    assert (before["MatMul"], after["MatMul"]) == (16, 6)
    assert list(after.values()) == sorted(after.values(), reverse=True)
    assert sum(after.values()) == len(onnx.load(str(fused)).graph.node)
    assert "EmbedLayerNormalization" not in after  # else the embedding table could not be kept in int8


def test_the_products_of_a_layer_are_found_in_both_graphs(plain: Path, fused: Path) -> None:
    names = [
        *("0.qkv", "0.attention_output", "0.intermediate", "0.output"),
        *("1.qkv", "1.attention_output", "1.intermediate", "1.output"),
    ]
    for path, qkv_nodes in ((plain, 3), (fused, 1)):
        found = products(onnx.load(str(path)))
        assert [product.name for product in found] == names
        assert [len(product.nodes) for product in found] == [qkv_nodes, 1, 1, 1] * 2
        assert [product.weights for product in found] == [3 * 32 * 32, 32 * 32, 32 * 64, 64 * 32] * 2


def test_a_missing_fusion_is_an_error_and_leaves_no_file(tiny_backbone: Path, tmp_path: Path) -> None:
    encoder = Encoder.load(tiny_backbone, attention="eager")
    encoder.bert.encoder.layer[1].intermediate.intermediate_act_fn = torch.nn.ReLU()  # nothing to fuse into BiasGelu
    export_plain(encoder, tmp_path / "plain.onnx")
    with pytest.raises(InvalidBundle, match=r"2 layers and was not fused whole: BiasGelu 1 of 2\..*constraints\.txt"):
        fuse(tmp_path / "plain.onnx", tmp_path / "fused.onnx", heads=4, hidden=32, layers=2)
    assert [path.name for path in tmp_path.iterdir()] == ["plain.onnx"]


def test_layers_with_pruned_heads_are_fused_too_and_quietly(
    tiny_backbone: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    encoder = Encoder.load(tiny_backbone, attention="eager")
    for layer, heads in enumerate(({0, 2}, {1, 3})):
        encoder.bert.encoder.layer[layer].attention.prune_heads(heads)
    export_plain(encoder, tmp_path / "plain.onnx")
    assert fuse(tmp_path / "plain.onnx", tmp_path / "fused.onnx", heads=4, hidden=32, layers=2) == FUSED
    assert "hidden size" not in caplog.text
    ids = np.random.default_rng(0).integers(5, 40, (3, 9))
    mask = np.ones_like(ids)
    mask[1, 4:] = 0
    with torch.inference_mode():
        expected = encoder(torch.from_numpy(ids), torch.from_numpy(mask)).numpy()
    given = OnnxEngine(tmp_path / "fused.onnx", ENCODER).run({"input_ids": ids, "attention_mask": mask})
    np.testing.assert_allclose(given["interest_vector"], expected, atol=1e-6)


def test_two_exports_of_one_encoder_are_the_same_bytes(tiny_backbone: Path, plain: Path, fused: Path, tmp_path: Path) -> None:
    export_plain(Encoder.load(tiny_backbone, attention="eager"), tmp_path / "plain.onnx")
    fuse(tmp_path / "plain.onnx", tmp_path / "fused.onnx", heads=4, hidden=32, layers=2)
    assert (tmp_path / "plain.onnx").read_bytes() == plain.read_bytes()
    assert (tmp_path / "fused.onnx").read_bytes() == fused.read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["fused.onnx", "plain.onnx"]
