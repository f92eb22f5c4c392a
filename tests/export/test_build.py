"""From a run to a sealed bundle: what is measured, what is reused, what is refused, what an interruption leaves."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from bertrec.bundle import Bundle
from bertrec.engine import OnnxEngine
from bertrec.errors import InvalidBundle, InvalidInput
from bertrec.tensors import ENCODER, RANKER
from export import gates
from export.__main__ import main
from export.build import EngineName, build_bundle
from export.encoder import export_plain, fuse
from export.ranker import export_ranker, read_items
from tests import tiny
from tests.full_disk import run_on_full_disk
from train.encoder import Encoder
from train.examples import Pairs
from train.fit import fit
from train.run import Run
from train.settings import PRESETS, Preset


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, tiny_backbone: Path) -> Run:
    folder = tmp_path_factory.mktemp("export")
    settings = dataclasses.replace(PRESETS[Preset.QUICK], backbone=str(tiny_backbone))
    return fit(str(tiny.write_data(folder / "data")), settings, folder / "run")


@pytest.fixture(scope="module")
def bundle(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return build_bundle(run, tmp_path_factory.mktemp("bundles") / "tiny")


def test_every_engine_was_measured_and_the_manifest_says_so(bundle: Bundle) -> None:
    fp32, int8 = bundle.engine("encoder", "fp32"), bundle.engine("encoder", "int8")
    assert (fp32.verdict, int8.verdict) == ("reference", "passed")
    assert fp32.batch_invariant
    assert fp32.parity["cosine_to_torch_min"] > 1 - 1e-6
    assert fp32.parity["top10_overlap"] == 1.0
    assert 0.95 <= int8.parity["top10_overlap"] <= 1.0
    assert int8.parity["vector_difference_to_torch_max"] > fp32.parity["vector_difference_to_torch_max"]
    assert fp32.quality["ndcg_at_10"] == 1.0  # the checkerboard's right answers
    assert "accepted 1%" in int8.why


def test_the_plain_engine_has_standard_operators_only(run: Run, tmp_path: Path) -> None:
    bundle = build_bundle(run, tmp_path / "plain", [EngineName.PLAIN])
    operators = {name: onnx.load(str(bundle.engine_path("encoder", name))) for name in ("fp32", "plain")}
    domains = {name: {node.domain for node in model.graph.node} for name, model in operators.items()}
    assert domains == {"fp32": {"", "com.microsoft"}, "plain": {""}}
    assert bundle.engine("encoder", "plain").parity["top10_overlap"] == 1.0
    assert not (bundle.folder / "encoder" / "int8.onnx").exists()


def test_a_second_build_reuses_the_bundle_and_says_so(run: Run, bundle: Bundle, capsys: pytest.CaptureFixture[str]) -> None:
    again = build_bundle(run, bundle.folder, [EngineName.INT8])
    assert again.manifest == bundle.manifest
    assert "reused" in capsys.readouterr().err


def test_a_folder_that_holds_something_else_is_left_alone(run: Run, bundle: Bundle, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(InvalidInput, match="exists and is no bundle"):
        build_bundle(run, tmp_path)
    assert (tmp_path / "notes.txt").read_text() == "mine"
    only_fp32 = build_bundle(run, tmp_path / "fp32", [EngineName.FP32])
    with pytest.raises(InvalidInput, match=r"other rules or engines \(fp32\).*never changed: delete it"):
        build_bundle(run, only_fp32.folder, [EngineName.INT8])
    rules = tmp_path / "rules.json"
    rules.write_text('{"blocklist": ["3"]}')
    with pytest.raises(InvalidInput, match="other rules"):
        build_bundle(run, only_fp32.folder, [EngineName.FP32], rules=rules)
    blocking = build_bundle(run, tmp_path / "blocking", [EngineName.FP32], rules=rules)
    assert blocking.rules().blocklist == ("3",)
    rules.write_text('{"blocked": []}')
    with pytest.raises(InvalidBundle, match="cannot be read as rules"):
        build_bundle(run, tmp_path / "wrong", [EngineName.FP32], rules=rules)
    assert not (tmp_path / "wrong").exists()
    (only_fp32.folder / "tokenizer.json").unlink()
    with pytest.raises(InvalidInput, match=r"does not open \(.*tokenizer\.json is missing"):
        build_bundle(run, only_fp32.folder)


def test_an_interrupted_export_leaves_nothing_that_opens(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> gates.Measured:
        raise KeyboardInterrupt

    monkeypatch.setattr(gates, "measure", interrupted)
    with pytest.raises(KeyboardInterrupt):
        build_bundle(run, tmp_path / "bundle")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(InvalidBundle):
        Bundle.open(tmp_path / "bundle")


def test_a_disk_that_is_full_is_one_clear_error(run: Run, tmp_path: Path) -> None:
    done = run_on_full_disk("export", "build", "--run", str(run.folder), "--output", str(tmp_path / "bundle"))
    assert done.returncode == 2
    assert "cannot be written" in done.stderr
    assert "Free some space" in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--engines", "fp64"], "engine 'fp64' is unknown; accepted are fp32, int8, plain"),
        (["--engines", ""], "engine '' is unknown"),
        (["--run", "/nowhere"], "/nowhere holds no run; one is made by: python -m train fit"),
    ],
)
def test_bad_arguments_are_one_line(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert main(["build", "--run", str(run.folder), "--output", str(tmp_path / "bundle"), *arguments]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "bundle").exists()


def test_the_command_line_prints_what_was_measured(run: Run, bundle: Bundle, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["build", "--run", str(run.folder), "--output", str(bundle.folder)]) == 0
    printed = capsys.readouterr().out
    assert "top-10 overlap" in printed
    assert "reference" in printed


def test_the_exported_encoder_is_torchs_at_every_shape(tiny_backbone: Path, tmp_path: Path) -> None:
    encoder = Encoder.load(tiny_backbone, attention="eager")
    encoder.train()  # the exporter must not leave dropout in
    export_plain(encoder, tmp_path / "plain.onnx")
    found = fuse(
        tmp_path / "plain.onnx", tmp_path / "fused.onnx", heads=encoder.heads, hidden=encoder.hidden, layers=encoder.layers
    )
    assert found == {"Attention": 2, "SkipLayerNormalization": 4, "BiasGelu": 2}
    encoder.eval()
    random = np.random.default_rng(0)
    for name in ("plain.onnx", "fused.onnx"):
        engine = OnnxEngine(tmp_path / name, ENCODER)
        for batch, tokens in ((1, 1), (3, 17), (8, 128)):
            ids = random.integers(5, 40, (batch, tokens))
            mask = (np.arange(tokens)[None] < random.integers(1, tokens + 1, (batch, 1))).astype(np.int64)
            with torch.inference_mode():
                expected = encoder(torch.from_numpy(ids), torch.from_numpy(mask)).numpy()
            np.testing.assert_allclose(
                engine.run({"input_ids": ids, "attention_mask": mask})["interest_vector"], expected, atol=1e-5
            )


def test_padding_changes_nothing(tiny_backbone: Path) -> None:
    encoder = Encoder.load(tiny_backbone).eval()
    ids = torch.randint(5, 40, (1, 10))
    padded = torch.cat([ids, torch.zeros(1, 22, dtype=torch.int64)], 1)
    mask = (torch.arange(32) < 10).long()[None]
    with torch.inference_mode():
        np.testing.assert_allclose(encoder(ids, torch.ones_like(ids)), encoder(padded, mask), atol=1e-6)
        lower = encoder.lower(padded, mask, 1)
        np.testing.assert_allclose(encoder.upper(lower, mask, 1), encoder(padded, mask), atol=1e-6)


@pytest.mark.parametrize("items", [30, 1_000])
def test_the_exported_ranker_is_numpys(tmp_path: Path, items: int) -> None:
    random = np.random.default_rng(0)
    text, words = random.normal(size=(items, 8)).astype(np.float32), random.normal(size=(items, 5)).astype(np.float32)
    prior = random.normal(size=(items, 1)).astype(np.float32)
    sides = {"text": text, "lexical": words, "prior": prior}
    export_ranker(sides, tmp_path / "ranker.onnx")
    query = random.normal(size=(4, 14)).astype(np.float32)
    boost = np.where(random.random((4, items)) < 0.9, random.normal(size=(4, items)), -np.inf).astype(np.float32)
    ranked = OnnxEngine(tmp_path / "ranker.onnx", RANKER).run({"query_vector": query, "boost": boost})
    scores = query @ np.hstack(list(sides.values())).T + boost
    expected = np.argsort(-scores, axis=1, kind="stable")[:, : min(items, 200)]
    np.testing.assert_array_equal(ranked["item_index"], expected)
    np.testing.assert_allclose(ranked["score"], np.take_along_axis(scores, expected, 1), atol=1e-5)
    kept = np.isfinite(ranked["score"])
    np.testing.assert_allclose(ranked["terms"].sum(-1)[kept], ranked["score"][kept], atol=1e-5)
    np.testing.assert_allclose(ranked["terms"][..., 2], query[:, -1:] * prior[expected, 0], atol=1e-6)
    np.testing.assert_array_equal(ranked["terms"][..., 3], np.take_along_axis(boost, expected, 1))
    read = read_items(tmp_path / "ranker.onnx")
    assert list(read) == list(sides)
    np.testing.assert_array_equal(read["lexical"], words)


def test_an_engine_that_lost_too_much_is_rejected_with_the_reason() -> None:
    reference, worse = {"ndcg_at_10": 0.5}, {"ndcg_at_10": 0.49}
    assert gates.judge(worse, reference, {"top10_overlap": 0.99}).verdict == "rejected"
    assert gates.judge(reference, reference, {"top10_overlap": 0.94}).verdict == "rejected"
    verdict = gates.judge({"ndcg_at_10": 0.497}, reference, {"top10_overlap": 0.97})
    assert verdict.verdict == "passed"
    assert "+0.60% lost (accepted 1%), top-10 overlap 0.970 (accepted 0.95)" in verdict.why


def test_parity_counts_shared_items_and_cosines() -> None:
    vectors = np.eye(2, dtype=np.float32)
    mine = gates.Measured(vectors, np.arange(20).reshape(2, 10), np.asarray([1.0, 2.0], np.float32), 0.5)
    theirs = gates.Measured(vectors, np.arange(5, 25).reshape(2, 10), np.asarray([1.0, 2.5], np.float32), 0.0)
    distances = gates.parity(mine, theirs, vectors)
    assert distances["top10_overlap"] == 0.5
    assert distances["score_difference_max"] == 0.5
    assert distances["cosine_to_torch_min"] == 1.0
    assert not mine.batch_invariant
    assert gates.quality(mine, Pairs(["a", "b"], np.asarray([1, 30])))["recall_at_10"] == 0.5
