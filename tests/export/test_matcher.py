"""The matcher as engines: what they say, what was measured, which one answers, what a target gets, what is refused."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from sklearn.metrics import roc_auc_score

from bertrec.bundle import Bundle, EngineRecord, fastest
from bertrec.engine import OnnxEngine
from bertrec.errors import InvalidBundle, InvalidInput
from bertrec.matching import Matching, probabilities, tokenised_items
from bertrec.tensors import MATCHER
from export.build import BuildSettings, build_bundle
from export.choose import Target
from export.matcher_gate import PairQuestions, Told, gate_matcher, judge_matcher, matcher_quality, pair_questions
from export.shapes import Shapes
from export.verdict import Budgets
from tests import tiny
from tests.export.conftest import LENIENT
from train.evaluate import run_dataset, run_examples
from train.matcher import load_matcher
from train.matcher.lessons import UNKNOWN, answers
from train.run import Run


def by_name(bundle: Bundle) -> dict[str, EngineRecord]:
    return {record.name: record for record in bundle.manifest.engines if record.model == "matcher"}


def test_engines_say_what_the_trained_matcher_says(whole_run: Run, whole_bundle: Bundle) -> None:
    loaded = load_matcher(whole_run)
    assert loaded is not None
    matcher, matching = loaded
    tokenizer = whole_bundle.tokenizer("fp32", model="matcher")
    items = tokenised_items(whole_bundle.catalogue(), tokenizer, matching.item_tokens)
    texts = tokenizer.tokenise([f"{tiny.item_text(3)} please", tiny.item_text(3), "i want an amber apron", "my coat is old"])
    pairs = [items[3], items[4], [], []]
    wanted = answers(matcher, texts, pairs, "reading", precision="fp32")
    found = {
        name: probabilities(OnnxEngine(whole_bundle.engine_path("matcher", name), MATCHER).run, texts, pairs)
        for name in ("fp32", "int8")
    }
    np.testing.assert_allclose(found["fp32"], wanted, atol=1e-5)
    np.testing.assert_allclose(found["int8"], wanted, atol=0.2)
    assert not np.array_equal(found["int8"], found["fp32"])


def test_every_engine_was_measured_and_the_manifest_says_so(whole_bundle: Bundle) -> None:
    fp32, int8 = by_name(whole_bundle).values()
    assert (fp32.name, fp32.verdict, int8.name, int8.verdict) == ("fp32", "reference", "int8", "passed")
    assert fp32.batch_invariant
    assert int8.batch_invariant
    assert fp32.parity["probability_difference_to_torch_max"] < 1e-5
    assert fp32.parity["decision_agreement"] == fp32.parity["finite"] == int8.parity["finite"] == 1.0
    assert 0 < int8.parity["probability_difference_mean"] <= int8.parity["probability_difference_max"] < 0.3
    assert fp32.quality["recommends_auc"] > 0.95
    difference = int8.quality["recommends_auc"] - fp32.quality["recommends_auc"]
    assert int8.quality["recommends_auc_difference"] == pytest.approx(difference)
    assert int8.quality["fits_auc_difference_low"] <= int8.quality["fits_auc_difference"]
    assert int8.quality["fits_auc_difference"] <= int8.quality["fits_auc_difference_high"]
    assert "AUC of fits" in int8.why
    assert int8.quality["fits_auc_difference_low"] < int8.quality["fits_auc_difference_high"]
    assert fp32.operators["Attention"] == 2
    assert int8.operators["QAttention"] == 2
    assert fp32.latency["throughput_ratio"] == 1.0
    assert int8.size_bytes == (whole_bundle.folder / int8.file).stat().st_size < fp32.size_bytes
    assert int8.stamp["sha256"] == whole_bundle.manifest.files["matcher/int8.onnx"].sha256
    assert whole_bundle.manifest.tensors["matcher"]["outputs"][0]["name"] == "probability"


def test_a_bundle_says_how_its_matcher_is_asked_and_by_which_engine(whole_bundle: Bundle, tiny_bundle: Path) -> None:
    matching = whole_bundle.matching()
    assert matching is not None
    assert (matching.item_tokens, matching.top, matching.recommends) == (8, 5, True)
    fastest_name = max(by_name(whole_bundle).values(), key=lambda record: record.latency["texts_per_s_median"]).name
    assert whole_bundle.matcher_engine == fastest_name
    without = Bundle.open(tiny_bundle)
    assert (without.matching(), without.matcher_engine) == (None, None)


def test_engines_that_were_rejected_or_hang_on_their_neighbours_do_not_answer() -> None:
    def engine(name: str, speed: float, **changed: object) -> EngineRecord:
        record = EngineRecord("matcher", name, f"matcher/{name}.onnx", "fp32", batch_invariant=True, verdict="passed")
        return dataclasses.replace(record, latency={"texts_per_s_median": speed}, **changed)  # type: ignore[arg-type]

    records = [
        engine("fp32", 1.0, verdict="reference"),
        engine("int8", 2.0),
        engine("wrong", 9.0, verdict="rejected"),
        engine("dynamic", 8.0, batch_invariant=False),
        engine("compiled", 7.0, runtime="tensorrt"),
        engine("gone", 6.0, file=""),
        engine("other", 5.0, model="heads"),
    ]
    assert fastest(records, "matcher") == "int8"
    assert fastest(records[2:], "matcher") is None


def test_a_cpu_gets_reference_and_choice_a_gpu_the_plain_one_too(whole_run: Run, tmp_path: Path) -> None:
    cpu = build_bundle(whole_run, tmp_path / "cpu", BuildSettings("fp32", target=Target.CPU, budgets=LENIENT))
    shipped = {name for name, record in by_name(cpu).items() if record.file}
    assert set(by_name(cpu)) == {"fp32", "int8"}
    assert shipped == {"fp32", cpu.matcher_engine}
    gpu = build_bundle(whole_run, tmp_path / "gpu", BuildSettings("fp32,plain", target=Target.GPU, budgets=LENIENT))
    assert {path.name for path in (gpu.folder / "matcher").iterdir()} == {"fp32.onnx", "plain.onnx", "matching.json"}
    assert {node.domain for node in onnx.load(str(gpu.engine_path("matcher", "plain"))).graph.node} == {""}
    untargeted = build_bundle(whole_run, tmp_path / "any", BuildSettings("fp32,plain", budgets=LENIENT))
    assert {name for name, record in by_name(untargeted).items() if record.file} == {"fp32", "int8", "plain"}


def test_the_edge_gets_the_matcher_where_it_fits_and_always_the_heads(whole_run: Run, tmp_path: Path) -> None:
    settings = BuildSettings("trimmed-int8", target=Target.EDGE, budgets=LENIENT)
    roomy = build_bundle(whole_run, tmp_path / "roomy", settings)
    assert [path.name for path in (roomy.folder / "matcher").glob("*.onnx")] == [f"{roomy.matcher_engine}.onnx"]
    assert roomy.tokenizer(roomy.matcher_engine or "", model="matcher").tokenise(["amber"])
    sizes = {name: record.size_bytes for name, record in roomy.manifest.files.items()}
    encoders = [size for name, size in sizes.items() if name.startswith("encoder/")]  # which is kept, timing decides
    apart = ("matcher", "signals/spell", "encoder/")
    size = min(encoders) + sum(size for name, size in sizes.items() if not name.startswith(apart))
    tight = build_bundle(whole_run, tmp_path / "tight", dataclasses.replace(settings, max_bytes=size))
    assert (tight.matching(), by_name(tight)) == (None, {})
    assert tight.heads_engine == roomy.heads_engine == "fp32"


def test_what_is_not_wanted_is_left_out(whole_run: Run, tmp_path: Path) -> None:
    settings = BuildSettings("fp32", budgets=LENIENT, without=("matcher", "heads"))
    bundle = build_bundle(whole_run, tmp_path / "without", settings)
    assert {record.model for record in bundle.manifest.engines} == {"encoder", "ranker"}
    with pytest.raises(InvalidInput, match="there is no 'spelling' to leave out of a bundle; accepted are matcher, heads"):
        BuildSettings(without=("spelling",))


def test_two_exports_give_the_same_engines(whole_run: Run, whole_bundle: Bundle, tmp_path: Path) -> None:
    again = build_bundle(whole_run, tmp_path / "again", BuildSettings("fp32", budgets=LENIENT))
    names = ("matcher/fp32.onnx", "matcher/int8.onnx", "matcher/matching.json", "heads/fp32.onnx", "heads/labels.json")
    assert all(again.manifest.files[name] == whole_bundle.manifest.files[name] for name in names)


@pytest.fixture(scope="module")
def questions(whole_run: Run) -> PairQuestions:
    dataset = run_dataset(whole_run)
    matching = Matching(item_tokens=8, top=5, weight=0.0, recommends=True)
    return pair_questions(whole_run, matching, dataset=dataset, examples=run_examples(whole_run, dataset))


def test_questions_are_right_pairs_wrong_pairs_and_texts_alone(questions: PairQuestions) -> None:
    fits, recommends = questions.pairs["fits"], questions.pairs["recommends"]
    half = len(fits) // 2
    assert questions.labels["fits"].tolist() == [1] * half + [0] * half
    assert [pair[0] for pair in fits[:half]] == [pair[0] for pair in fits[half:]]
    assert all(right[1] != wrong[1] for right, wrong in zip(fits[:half], fits[half:], strict=True))
    assert all(item == [] for _, item in recommends)
    assert len(questions.asked) == len(fits) + len(recommends)
    found = np.linspace(0, 1, len(questions.asked), dtype=np.float32)
    labels, probability = questions.judged(found)["recommends"]
    np.testing.assert_array_equal(probability, found[len(fits) :])
    assert labels.tolist() == questions.labels["recommends"].tolist()
    some = questions.labels["recommends"].copy()
    some[0] = UNKNOWN
    unknown = dataclasses.replace(questions, labels={**questions.labels, "recommends": some})
    np.testing.assert_array_equal(unknown.judged(found)["recommends"][1], found[len(fits) + 1 :])
    assert dataclasses.replace(questions, held_out=False).judged(found) == {}


def test_the_area_is_that_of_scikit_learn() -> None:
    random = np.random.default_rng(0)
    labels, values = random.integers(2, size=90), random.integers(20, size=90).astype(np.float32)  # many of them equal
    found = Told(values / 20, Shapes(0.0, 0.0, 1.0), True)
    asked = PairQuestions({"fits": []}, {"fits": labels}, [], 72, True)
    assert matcher_quality(found, asked, reference=None)["fits_auc"] == pytest.approx(roc_auc_score(labels, values))
    same = matcher_quality(found, asked, reference=found)
    assert [same[f"fits_auc_difference{end}"] for end in ("", "_low", "_high")] == [0.0, 0.0, 0.0]


def test_an_export_that_is_another_network_is_refused(whole_run: Run, whole_bundle: Bundle, questions: PairQuestions) -> None:
    loaded = load_matcher(whole_run)
    assert loaded is not None
    with torch.no_grad():
        loaded[0].bert.classifier.bias += torch.tensor([1.0, -1.0])
    with pytest.raises(InvalidBundle, match="fp32 is not what it was exported from: a probability differs by 0"):
        gate_matcher(whole_bundle.folder, [by_name(whole_bundle)["fp32"]], questions, matcher=loaded[0], budgets=LENIENT)


@pytest.mark.parametrize(
    ("quality", "distances", "verdict", "why"),
    [
        ({"fits": -0.004}, {}, "passed", "AUC of fits +0.0040 lost (accepted 0.005; 95% interval -0.0060 to +0.0140)"),
        ({"fits": -0.006}, {}, "rejected", "AUC of fits +0.0060 lost"),
        ({"fits": 0.1, "recommends": -0.02}, {}, "rejected", "AUC of recommends +0.0200 lost"),
        ({}, {"decision_agreement": 0.9}, "rejected", "decides alike on 0.900 of the texts (accepted 0.95)"),
        ({}, {"finite": 0.0}, "rejected", "gives NaN or infinity"),
        ({}, {}, "passed", "decides alike on 1.000"),
    ],
)
def test_verdicts(quality: dict[str, float], distances: dict[str, float], verdict: str, why: str) -> None:
    told: dict[str, float] = {}
    for kind, difference in quality.items():
        name = f"{kind}_auc_difference"
        told |= {name: difference, f"{name}_low": difference - 0.01, f"{name}_high": difference + 0.01}
    found = judge_matcher(told, {"decision_agreement": 1.0, "finite": 1.0, **distances}, Budgets())
    assert found[0] == verdict
    assert why in found[1]
