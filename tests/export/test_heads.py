"""The heads as an engine: what it says, and how right it is on every encoder engine's vectors."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from bertrec.bundle import Bundle
from bertrec.engine import OnnxEngine
from bertrec.errors import InvalidBundle
from bertrec.labels import SENTIMENT, SENTIMENTS
from bertrec.tensors import HEADS
from export import heads as heads_module
from export.__main__ import main
from export.heads import add_heads, export_heads
from train.evaluate import run_dataset, run_examples
from train.heads import load_heads
from train.run import Run


def test_the_engine_says_what_the_trained_heads_say(whole_run: Run, whole_bundle: Bundle) -> None:
    network, labels = load_heads(whole_run)
    assert whole_bundle.labels() == labels
    assert whole_bundle.heads_engine == "fp32"
    vectors = np.random.default_rng(0).normal(size=(5, 32)).astype(np.float32)
    engine = OnnxEngine(whole_bundle.engine_path("heads", "fp32"), HEADS)
    found = engine.run({"interest_vector": vectors})["probabilities"]
    assert found.shape == (5, labels.width)
    np.testing.assert_allclose(found, network(torch.from_numpy(vectors)).detach().numpy(), atol=1e-6)
    np.testing.assert_allclose(engine.run({"interest_vector": vectors[:1]})["probabilities"], found[:1], atol=1e-6)


def test_the_record_says_what_was_measured(whole_bundle: Bundle) -> None:
    record = whole_bundle.engine("heads", "fp32")
    assert record.batch_invariant
    assert record.parity["probability_difference_to_torch_max"] < 1e-5
    assert record.parity["label_agreement"] == 1.0
    assert record.operators["Softmax"] == len((whole_bundle.labels() or pytest.fail("no labels")).heads)
    assert record.stamp["sha256"] == whole_bundle.manifest.files["heads/fp32.onnx"].sha256


def test_how_right_the_heads_are_is_told_of_every_encoder_engine(whole_run: Run, whole_bundle: Bundle) -> None:
    accuracies = [whole_bundle.engine("encoder", name).quality["sentiment_accuracy"] for name in ("fp32", "int8")]
    assert all(0.5 < accuracy <= 1.0 for accuracy in accuracies)
    assert accuracies[0] == pytest.approx(_measured_in_training(whole_run), abs=0.03)  # texts without a rating are left out


def _measured_in_training(run: Run) -> float:
    heads = json.loads((run.folder / "heads/metrics.json").read_text())["heads"]
    return float(heads[SENTIMENT]["test"]["accuracy"])


def test_a_bundle_without_heads_has_none(tiny_bundle: Path) -> None:
    bundle = Bundle.open(tiny_bundle)
    assert (bundle.labels(), bundle.heads_engine) == (None, None)
    assert SENTIMENTS == ("negative", "neutral", "positive")


def test_an_export_that_is_another_network_is_refused(whole_run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def exported(network: torch.nn.Module, path: Path, *, hidden: int) -> None:
        with torch.no_grad():
            next(network.parameters()).add_(torch.randn(1, hidden))
        export_heads(network, path, hidden=hidden)
        with torch.no_grad():
            next(network.parameters()).mul_(2.0)

    monkeypatch.setattr(heads_module, "export_heads", exported)
    dataset = run_dataset(whole_run)
    vectors = np.random.default_rng(0).normal(size=(20, 32)).astype(np.float32)
    with pytest.raises(InvalidBundle, match="the heads' engine is not what it was exported from: a probability differs by"):
        add_heads(whole_run, tmp_path, vectors, dataset=dataset, examples=run_examples(whole_run, dataset))


def test_the_report_shows_matcher_and_heads(whole_bundle: Bundle, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["report", "--bundle", str(whole_bundle.folder), "--output", str(tmp_path)]) == 0
    said = capsys.readouterr()
    printed = said.out + said.err
    matcher = next(record for record in whole_bundle.manifest.engines if (record.model, record.name) == ("matcher", "int8"))
    assert f"{matcher.quality['recommends_auc']:.4f} {matcher.quality['recommends_auc_difference']:+.4f}" in printed
    reference = whole_bundle.engine("encoder", "fp32").quality
    (name, *_) = [name for name in reference if name.endswith("_accuracy")]
    assert f"{reference[name]:.3f}" in printed
    assert "accuracy of the heads" in printed
