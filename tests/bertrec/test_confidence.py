"""Whether an answer is sure: by each measure, without the rules, of what the filters leave; and what older ones say."""

from __future__ import annotations

import dataclasses
import json
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bertrec.answers import Options, Recommendation
from bertrec.bundle import MANIFEST_FILE, SIGNALS_FOLDER, Bundle, seal
from bertrec.confidence import CONFIDENCE, SURENESS, Confidence
from bertrec.engine import OnnxEngine
from bertrec.errors import InvalidBundle
from bertrec.fusion import Gates
from bertrec.pipeline import Pipeline
from bertrec.session_options import SessionOptions
from bertrec.tensors import ENCODER, RANKER, SIGNALS
from tests.tiny import item_text

TEXT = f"{item_text(6)} please"


def with_confidence(bundle: Path, folder: Path, given: Any, gates: Gates | None = None) -> Path:
    shutil.copytree(bundle, folder)
    if gates is not None:
        gates.save(folder / SIGNALS_FOLDER)
    manifest = Bundle.open(bundle).manifest
    seal(folder, dataclasses.replace(manifest, model={**manifest.model, CONFIDENCE: given}))
    return folder


def one(folder: Path, text: str = TEXT, **options: object) -> Recommendation:
    bundle = Bundle.open(folder)
    encoder = OnnxEngine(bundle.engine_path("encoder", "fp32"), ENCODER, SessionOptions(1))
    ranker = OnnxEngine(bundle.engine_path("ranker", "fp32"), RANKER, SessionOptions(1))
    pipeline = Pipeline(bundle, encoder=encoder.run, ranker=ranker.run, engine="fp32")
    (answer,) = pipeline.recommend([text], [Options(k=21, **options)])  # type: ignore[arg-type]
    return answer


def expected(answer: Recommendation, measure: str, gate: float = 1.0) -> float:
    """The sureness by what the reasons of all items say."""
    scores = np.asarray([[item.score for item in answer.items]], np.float32)
    text = [[reason.score / gate for item in answer.items for reason in item.reasons if reason.signal == "text"]]
    return float(SURENESS[measure](scores, np.asarray(text, np.float32))[0])


@pytest.mark.parametrize("measure", list(SURENESS))
def test_an_answer_is_sure_from_the_threshold_on(tiny_bundle: Path, tmp_path: Path, measure: str) -> None:
    """The text signal weighs double here: its own sureness is told without the weight."""
    gates = Gates({**dict.fromkeys(SIGNALS, 0.0), "text": math.log(2.0)})
    found = {}
    plain = one(with_confidence(tiny_bundle, tmp_path / "plain", None, gates))
    assert plain.confident is None
    for name, shift in (("below", -1e-3), ("above", 1e-3)):
        threshold = expected(plain, measure, gate=2.0) + shift
        given = {"measure": measure, "threshold": threshold}
        found[name] = one(with_confidence(tiny_bundle, tmp_path / name, given, gates)).confident
    assert found == {"below": True, "above": False}


def test_rules_do_not_make_it_sure_and_filters_are_looked_through(full_bundle: Path) -> None:
    assert one(full_bundle).confident is True
    assert one(full_bundle, "nothing that the catalogue knows").confident is False
    lift: Any = ({"name": "lift", "then": {"attribute": "colour", "equals": ["red"], "effect": "boost", "by": 30.0}},)
    lifted = one(full_bundle, "nothing that the catalogue knows", rules=lift)
    assert (lifted.items[0].score > 10, lifted.confident) == (True, False)
    assert one(full_bundle, filters={"colour": ["red"]}).confident is False
    assert one(full_bundle, exclude=[str(item) for item in range(21)]).confident is False  # nothing is left


def test_an_older_bundle_and_an_older_server_say_nothing(tiny_bundle: Path) -> None:
    assert Bundle.open(tiny_bundle).confidence is None
    answer = one(tiny_bundle)
    assert (answer.confident, json.loads(answer.to_json())["confident"]) == (None, None)
    older = json.loads(answer.to_json())
    del older["confident"]
    assert Recommendation.from_json(json.dumps(older)) == answer
    sure = dataclasses.replace(answer, confident=False)
    assert Recommendation.from_json(sure.to_json()).confident is False


def test_the_manifest_has_no_field_that_an_older_release_would_refuse(full_bundle: Path) -> None:
    manifest = json.loads((full_bundle / MANIFEST_FILE).read_text())
    assert CONFIDENCE not in manifest
    assert manifest["model"][CONFIDENCE] == {"measure": "score", "threshold": 10.0}
    assert Bundle.open(full_bundle).confidence == Confidence("score", 10.0)


@pytest.mark.parametrize(
    "given", [7, [], {"measure": "score"}, {"measure": "luck", "threshold": 1}, {"measure": "score", "threshold": "x"}]
)
def test_what_is_no_threshold_is_refused(tiny_bundle: Path, tmp_path: Path, given: Any) -> None:
    with pytest.raises(InvalidBundle, match="confidence is "):
        one(with_confidence(tiny_bundle, tmp_path / "broken", given))
