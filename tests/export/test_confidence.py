"""From questions to a served flag: what ``train threshold`` decided is what the bundle of the run says, question by question."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import pytest

from bertrec.answers import Options
from bertrec.bundle import Bundle
from bertrec.engine import OnnxEngine
from bertrec.errors import InvalidInput, InvalidRun
from bertrec.pipeline import Pipeline
from bertrec.session_options import SessionOptions
from bertrec.tensors import ENCODER, RANKER
from export.build import BuildSettings, build_bundle
from tests import tiny
from tests.export.conftest import LENIENT
from train.fit import fit
from train.run import Run, open_run
from train.settings import PRESETS, Preset
from train.threshold import THRESHOLD_FILE, find_threshold, run_confidence

NOTHING = ["nothing please", "what is very long", "wish wish wish", "that catalogue", "please want", "what knows that"]
FP32 = BuildSettings(engines="fp32", budgets=LENIENT, without=("matcher", "heads"))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, tiny_backbone: Path) -> Run:
    data = tiny.write_data(tmp_path_factory.mktemp("data") / "checkerboard", per_item=6)
    settings = dataclasses.replace(PRESETS[Preset.QUICK], backbone=str(tiny_backbone), batch_size=8, max_minutes=None)
    return fit(str(data), settings, tmp_path_factory.mktemp("runs") / "tiny")


def test_the_bundle_decides_as_the_threshold_did(run: Run, tmp_path: Path) -> None:
    assert run_confidence(run) is None
    before = build_bundle(run, tmp_path / "before", FP32)
    assert before.confidence is None
    path = tmp_path / "nothing.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in NOTHING))
    found = find_threshold(run, path)
    bundle = build_bundle(run, tmp_path / "after", FP32)
    assert bundle.confidence == run_confidence(run)
    assert bundle.confidence is not None
    assert (bundle.confidence.measure, bundle.confidence.threshold) == (found.judgement.measure, found.judgement.threshold)
    pipeline = Pipeline(
        Bundle.open(bundle.folder),
        encoder=OnnxEngine(bundle.engine_path("encoder", "fp32"), ENCODER, SessionOptions(1)).run,
        ranker=OnnxEngine(bundle.engine_path("ranker", "fp32"), RANKER, SessionOptions(1)).run,
        engine="fp32",
    )
    texts = [str(example["text"]) for example in found.examples]
    answers = pipeline.recommend(texts, [Options(spelling=False)] * len(texts))
    assert [answer.confident for answer in answers] == [example["answered"] for example in found.examples]
    assert {answer.confident for answer in answers} == {True, False}
    with pytest.raises(InvalidInput, match="holds a bundle of another run, or with other"):
        build_bundle(run, before.folder, FP32)  # it lacks the threshold that the run has now


def test_a_threshold_of_another_run_and_a_broken_one_are_refused(run: Run, tmp_path: Path) -> None:
    copy = open_run(shutil.copytree(run.folder, tmp_path / "run"))
    path = copy.folder / THRESHOLD_FILE
    judgement = {"measure": "text", "threshold": 1.0}
    path.write_text(json.dumps({"run_created": "2020-01-01", "judgement": judgement}))
    with pytest.raises(InvalidRun, match="was found for a run of 2020-01-01"):
        run_confidence(copy)
    for broken in ("{", "[]", '{"judgement": {"measure": "luck", "threshold": 1}, "run_created": ""}'):
        path.write_text(broken)
        with pytest.raises(InvalidRun, match="holds no threshold"):
            run_confidence(copy)
