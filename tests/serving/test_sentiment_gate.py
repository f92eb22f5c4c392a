"""Sentiment as a feature of the gate: learned where it tells whom to believe, and served by the same code."""

from __future__ import annotations

import dataclasses
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from bertrec import sentiment
from bertrec.answers import Options
from bertrec.bundle import SIGNALS_FOLDER, Bundle, seal
from bertrec.engine import OnnxEngine
from bertrec.errors import InvalidBundle, MissingDependency
from bertrec.fusion import FEATURES, GATES_FILE, SENTIMENT, Gates
from bertrec.pipeline import Pipeline
from bertrec.session_options import SessionOptions
from bertrec.tensors import ENCODER, RANKER, SIGNALS
from serving.assemble import REPOSITORY_FILE, Target, assemble
from tests import tiny
from train.fit import fit
from train.fusion import Asked, choose_fusion
from train.settings import PRESETS, Preset

BOTH = (*FEATURES, SENTIMENT)
ITEMS, QUERIES = 30, 200


def with_gates(bundle: Path, folder: Path, gates: Gates) -> Path:
    shutil.copytree(bundle, folder)
    gates.save(folder / SIGNALS_FOLDER)
    seal(folder, Bundle.open(bundle).manifest)
    return folder


@pytest.mark.parametrize("told", [True, False])
def test_the_gate_looks_at_it_where_it_tells_whom_to_believe(told: bool) -> None:
    """Of texts that complain the lexical signal knows the answer, of the others the text signal; or no feature tells which."""
    relevant = np.random.default_rng(0).integers(ITEMS, size=QUERIES)
    complains = np.random.default_rng(1).random(QUERIES) < 0.5
    right = np.eye(ITEMS, dtype=np.float32)[relevant]
    wrong = np.roll(right, 1, axis=1)
    features = np.zeros((QUERIES, len(BOTH)), np.float32)
    features[:, -1] = np.where(complains, -0.8, 0.8) if told else 0.5
    sides = {"text": np.where(complains[:, None], wrong, right), "lexical": np.where(complains[:, None], right, wrong)}
    items = {"text": np.eye(ITEMS, dtype=np.float32), "lexical": np.eye(ITEMS, dtype=np.float32)}
    asked = Asked({**sides, "prior": np.ones((QUERIES, 1), np.float32)}, features, [()] * QUERIES, relevant, BOTH)
    fusion = choose_fusion(asked, {**items, "prior": np.zeros((ITEMS, 1), np.float32)}, 0.5)
    if told:
        assert fusion.gates.features == BOTH
        assert fusion.gates.weights["text"][-1] > 0 > fusion.gates.weights["lexical"][-1]
        assert fusion.gated_ndcg_at_10 > fusion.constant_ndcg_at_10
    else:
        assert (fusion.gates.features, dict(fusion.gates.weights)) == (FEATURES, {})  # and VADER need not be there


def test_what_is_served_weighs_by_it(tiny_bundle: Path, tmp_path: Path) -> None:
    """The text signal's share of a score is exp(compound) times what it is without the gate; of a list, each text by its own."""
    flat = dict.fromkeys(SIGNALS, 0.0)
    gates = Gates(flat, {"text": [0.0, 0.0, 0.0, 0.0, 1.0]}, BOTH)
    texts = ["a horrible denim dress", "i love this denim dress", "denim dress"]
    compounds = sentiment.sentiments(texts)
    assert compounds[0] < 0 < compounds[1] and compounds[2] == 0
    shares = []
    for folder in (tiny_bundle, with_gates(tiny_bundle, tmp_path / "gated", gates)):
        bundle = Bundle.open(folder)
        encoder = OnnxEngine(bundle.engine_path("encoder", "fp32"), ENCODER, SessionOptions(1))
        ranker = OnnxEngine(bundle.engine_path("ranker", "fp32"), RANKER, SessionOptions(1))
        pipeline = Pipeline(bundle, encoder=encoder.run, ranker=ranker.run, engine="fp32")
        answers = pipeline.recommend(texts, [Options(k=tiny.ITEMS, spelling=False)] * len(texts))
        shares.append([_text_share(answer.items[0].reasons) for answer in answers])
    np.testing.assert_allclose(np.asarray(shares[1]) / np.asarray(shares[0]), np.exp(compounds), rtol=1e-4)


def test_the_repository_says_what_its_container_needs(tiny_bundle: Path, tmp_path: Path) -> None:
    gated = with_gates(tiny_bundle, tmp_path / "gated", Gates(dict.fromkeys(SIGNALS, 0.0), {}, BOTH))
    said = []
    for name, bundle in (("plain", tiny_bundle), ("asking", gated)):
        repository = assemble(bundle, tmp_path / name, target=Target.CPU)
        wanted = "pip install editdistpy symspellpy tokenizers vaderSentiment &&"
        said.append(wanted in (repository / REPOSITORY_FILE).read_text())
    assert said == [False, True]


def _text_share(reasons: tuple[object, ...]) -> float:
    (share,) = [reason.score for reason in reasons if reason.signal == "text"]  # type: ignore[attr-defined]
    return float(share)


def test_gates_of_both_kinds_are_read_again_and_others_refused(tmp_path: Path) -> None:
    for gates in (Gates({"text": 0.5}, {"text": [1.0, 0, 0, 0]}), Gates({"text": 0.5}, {"text": [1.0, 0, 0, 0, 2.0]}, BOTH)):
        gates.save(tmp_path)
        assert Gates.load(tmp_path) == gates
        assert gates.without("lexical") == gates
    path = tmp_path / GATES_FILE
    path.write_text(json.dumps({**json.loads(path.read_text()), "features": [*FEATURES, "mood"]}))
    with pytest.raises(InvalidBundle, match="weighs by words, known words, entities, history, mood; this release knows"):
        Gates.load(tmp_path)


def test_without_vader_only_a_gate_that_asks_for_it_is_refused(
    tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_backbone: Path
) -> None:
    gated = with_gates(tiny_bundle, tmp_path / "gated", Gates(dict.fromkeys(SIGNALS, 0.0), {}, BOTH))
    monkeypatch.setitem(sys.modules, "vaderSentiment.vaderSentiment", None)
    sentiment.open_analyser.cache_clear()
    assert Bundle.open(tiny_bundle).signals().features(["a dress"], [()]).shape == (1, len(FEATURES))
    with pytest.raises(MissingDependency, match=r"comes with: pip install 'bertrec\[sentiment\]'"):
        Bundle.open(gated).signals()
    data = tiny.write_data(tmp_path / "checkerboard")
    settings = dataclasses.replace(PRESETS[Preset.QUICK], backbone=str(tiny_backbone), gate_by_sentiment=True, max_minutes=None)
    with pytest.raises(MissingDependency, match="vaderSentiment is not installed"):
        fit(str(data), settings, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_run_says_what_its_gate_looks_at(tmp_path: Path, tiny_backbone: Path) -> None:
    data = tiny.write_data(tmp_path / "checkerboard")
    settings = dataclasses.replace(PRESETS[Preset.QUICK], backbone=str(tiny_backbone), gate_by_sentiment=True, max_minutes=None)
    run = fit(str(data), settings, tmp_path / "run")
    fusion = run.record["fusion"]
    assert fusion["features"] == list(BOTH if fusion["gated"] else FEATURES)
    assert Gates.load(run.signals_folder).features == tuple(fusion["features"])
