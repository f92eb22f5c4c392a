"""What is measured of an engine, and what rejects one: on real engines, some of them broken on purpose."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import ModelProto, helper, numpy_helper

from bertrec.bundle import Bundle, EngineRecord, seal
from bertrec.engine import OnnxEngine
from bertrec.errors import InvalidBundle, InvalidInput
from export import gates
from export.gates import Measured, Questions, gate_engines, measure, questions_of
from export.shapes import EXTREMES, Shapes
from export.verdict import Budgets, judge
from tests import tiny
from train.encoder import Encoder
from train.examples import UNSEEN, Examples, Pairs
from train.states import encode_texts

SAME = Shapes(batch_difference=0.0, padding_difference=0.0, cosine_min=1.0)
WISHES = ("{}", "i want the {} please", "what a very long and warm {} that nothing in the catalogue knows , " * 2)
TEXTS = [
    wish.format(tiny.item_text(item)) if "long" not in wish else wish.format(*[tiny.item_text(item)] * 2)
    for wish in WISHES
    for item in range(tiny.ITEMS)
]


@pytest.fixture(scope="module")
def questions() -> Questions:
    return Questions(Pairs(TEXTS, np.tile(np.arange(tiny.ITEMS), len(WISHES))))


@pytest.fixture(scope="module")
def torch_vectors(tiny_bundle: Path, tiny_backbone: Path) -> dict[str, NDArray[np.float32]]:
    return {"bert": encode_texts(Encoder.load(tiny_backbone), Bundle.open(tiny_bundle).tokenizer("fp32"), TEXTS, "torch")}


def with_engine(source: Path, folder: Path, change: Callable[[ModelProto], None] | None, **about: Any) -> Bundle:
    """The tiny bundle with one more engine, ``other``: its fp32 engine, changed, or a file that is no engine."""
    shutil.copytree(source, folder)
    path = folder / "encoder" / "other.onnx"
    if change is None:
        path.write_bytes(b"no engine at all")
    else:
        model = onnx.load(str(folder / "encoder" / "fp32.onnx"))
        change(model)
        onnx.save_model(model, str(path))
    manifest = Bundle.open(source).manifest
    seal(
        folder,
        dataclasses.replace(
            manifest, engines=(*manifest.engines, EngineRecord("encoder", "other", "encoder/other.onnx", "fp32", **about))
        ),
    )
    return Bundle.open(folder)


def leave(_: ModelProto) -> None:
    """Another file of the same engine."""


def read_padding_as_text(model: ModelProto) -> None:
    """The mask's consumers get ones."""
    for node in model.graph.node:
        for position, name in enumerate(node.input):
            if name == "attention_mask":
                node.input[position] = "ones"
    model.graph.node.insert(0, helper.make_node("Cos", ["zeros"], ["float_ones"]))
    model.graph.node.insert(0, helper.make_node("Sub", ["float_mask", "float_mask"], ["zeros"]))
    model.graph.node.insert(0, helper.make_node("Cast", ["attention_mask"], ["float_mask"], to=onnx.TensorProto.FLOAT))
    model.graph.node.insert(3, helper.make_node("Cast", ["float_ones"], ["ones"], to=onnx.TensorProto.INT64))


def divide_by_the_words(model: ModelProto) -> None:
    """The vector times words / words, which is no number where a text has none but the special tokens."""
    (output,) = (node for node in model.graph.node if "interest_vector" in node.output)
    output.output[list(output.output).index("interest_vector")] = "vector"
    model.graph.initializer.append(numpy_helper.from_array(np.asarray([1], np.int64), "tokens_axis"))
    model.graph.initializer.append(numpy_helper.from_array(np.asarray(2, np.float32), "special"))
    model.graph.node.extend(
        [
            helper.make_node("Cast", ["attention_mask"], ["mask_numbers"], to=onnx.TensorProto.FLOAT),
            helper.make_node("ReduceSum", ["mask_numbers", "tokens_axis"], ["length"], keepdims=1),
            helper.make_node("Sub", ["length", "special"], ["words"]),
            helper.make_node("Div", ["words", "words"], ["one"]),
            helper.make_node("Mul", ["vector", "one"], ["interest_vector"]),
        ]
    )


def rank_the_other_way(model: ModelProto) -> None:
    """Every vector points away from where it should."""
    (output,) = (node for node in model.graph.node if "interest_vector" in node.output)
    output.output[list(output.output).index("interest_vector")] = "vector"
    model.graph.node.append(helper.make_node("Neg", ["vector"], ["interest_vector"]))


def test_every_engine_is_held_against_the_reference_and_against_pytorch(
    tiny_bundle: Path, questions: Questions, torch_vectors: Mapping[str, NDArray[np.float32]]
) -> None:
    records = gate_engines(Bundle.open(tiny_bundle), questions, torch_vectors=torch_vectors)
    assert [(record.model, record.name) for record in records] == [("encoder", "fp32"), ("encoder", "int8"), ("ranker", "fp32")]
    fp32, int8, ranker = records
    assert ranker == Bundle.open(tiny_bundle).engine("ranker", "fp32")
    assert (fp32.verdict, fp32.why) == ("reference", "")
    assert fp32.parity["cosine_to_torch_min"] > 1 - 1e-6
    assert fp32.parity["cosine_to_reference_min"] == pytest.approx(1.0)
    assert fp32.parity["top10_overlap"] == 1.0
    assert fp32.quality == {"texts": len(TEXTS), "ndcg_at_10": 1.0, "recall_at_10": 1.0}  # the checkerboard's right answers
    assert (
        int8.parity["cosine_to_reference_min"]
        < int8.parity["cosine_to_reference_p1"]
        < int8.parity["cosine_to_reference_mean"]
        < 1
    )
    assert int8.parity["cosine_to_torch_mean"] == pytest.approx(int8.parity["cosine_to_reference_mean"], abs=1e-5)
    assert int8.quality["ndcg_difference"] == 0.0
    assert int8.verdict == "passed"
    assert "NDCG@10 +0.00% lost (accepted 1%; 95% interval +0.00% to +0.00%)" in int8.why
    assert "top-10 overlap" in int8.why


def test_scales_taken_at_run_time_are_found_out(tiny_bundle: Path, questions: Questions) -> None:
    bundle = Bundle.open(tiny_bundle)
    fp32, int8 = (measure(bundle, name, questions.pairs) for name in ("fp32", "int8"))
    assert fp32.batch_invariant
    assert fp32.shapes.padding_difference < 1e-5
    assert not int8.batch_invariant
    assert int8.shapes.padding_difference > 1e-5
    assert 0.95 < int8.shapes.cosine_min < fp32.shapes.cosine_min


def test_each_text_is_encoded_once(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [f"{word} {other}" for word in tiny.WORDS for other in tiny.WORDS][:600]
    rows = 0
    run = OnnxEngine.run

    def counting(self: OnnxEngine, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        nonlocal rows
        rows += len(inputs["input_ids"]) if "input_ids" in inputs else 0
        return run(self, inputs)

    monkeypatch.setattr(OnnxEngine, "run", counting)
    measured = measure(Bundle.open(tiny_bundle), "fp32", Pairs(texts, np.full(len(texts), UNSEEN)))
    assert measured.vectors.shape == (600, 32)
    assert 600 < rows < 800


def test_an_engine_that_reads_padding_as_text_is_rejected(tiny_bundle: Path, tmp_path: Path, questions: Questions) -> None:
    bundle = with_engine(tiny_bundle, tmp_path / "bundle", read_padding_as_text, structure="another")
    budgets = Budgets(shape_cosine=0.98)  # the tiny network tells texts apart little, so padding moves them less than real ones
    *_, record = (one for one in gate_engines(bundle, questions, torch_vectors={}, budgets=budgets) if one.model == "encoder")
    assert record.parity["padding_difference_max"] > 0.1
    assert (record.verdict, record.why) == (
        "rejected",
        "cosine 0.970 of a text to itself in batches of other shapes (accepted 0.98)",
    )


def test_an_engine_that_odd_texts_break_is_rejected(tiny_bundle: Path, tmp_path: Path, questions: Questions) -> None:
    bundle = with_engine(tiny_bundle, tmp_path / "bundle", divide_by_the_words)
    *_, record = (one for one in gate_engines(bundle, questions, torch_vectors={}) if one.model == "encoder")
    assert (record.verdict, record.why) == ("rejected", "gives NaN or infinity")
    assert record.parity["cosine_to_reference_min"] == pytest.approx(1.0)  # no held-out text shows it


def test_the_odd_texts_are_as_odd_as_they_say(tiny_bundle: Path) -> None:
    tokenizer = Bundle.open(tiny_bundle).tokenizer("fp32")
    tokens = dict(zip(EXTREMES, tokenizer.tokenise(list(EXTREMES.values())), strict=True))
    assert tokens["accents alone, which many tokenizers strip"].ids == [2, 3]  # [CLS] [SEP]
    assert len(tokens["one letter"].ids) == 3
    assert set(tokens["letters that no vocabulary holds"].ids) == {1, 2, 3}  # [UNK] between them
    again = tokens["one word again and again, cut at the greatest length"]
    assert (len(again.ids), again.truncated, len(set(again.ids))) == (64, True, 3)


def test_an_engine_that_does_not_load_is_rejected_and_the_others_are_measured(
    tiny_bundle: Path, tmp_path: Path, questions: Questions
) -> None:
    records = gate_engines(with_engine(tiny_bundle, tmp_path / "bundle", None), questions, torch_vectors={})
    verdicts = {record.name: record.verdict for record in records if record.model == "encoder"}
    assert verdicts == {"fp32": "reference", "int8": "passed", "other": "rejected"}
    assert "does not run" in records[-1].why
    assert "other.onnx does not load in onnxruntime" in records[-1].why


def test_another_network_is_held_to_its_ranking_and_the_same_one_to_its_overlap_too(
    tiny_bundle: Path, tmp_path: Path, questions: Questions
) -> None:
    verdicts = {}
    for structure in ("bert", "student"):
        bundle = with_engine(tiny_bundle, tmp_path / structure, rank_the_other_way, structure=structure)
        *_, record = (one for one in gate_engines(bundle, questions, torch_vectors={}) if one.model == "encoder")
        assert record.parity["top10_overlap"] < 0.95
        assert record.parity["cosine_to_reference_mean"] == pytest.approx(-1.0)
        assert record.quality["ndcg_at_10"] == 1.0  # the words alone give the right item
        verdicts[structure] = record.verdict
    assert verdicts == {"bert": "rejected", "student": "passed"}


def test_a_reference_that_is_not_what_it_was_exported_from_stops_everything(
    tiny_bundle: Path, questions: Questions, torch_vectors: Mapping[str, NDArray[np.float32]]
) -> None:
    other = {"bert": np.roll(torch_vectors["bert"], 1, axis=1)}
    with pytest.raises(InvalidBundle, match=r"fp32 is not what it was exported from: least cosine to PyTorch .*accepted 0\.999"):
        gate_engines(Bundle.open(tiny_bundle), questions, torch_vectors=other)


def test_a_bundle_that_was_cut_down_is_held_against_what_the_whole_one_answered(tiny_bundle: Path, questions: Questions) -> None:
    bundle = Bundle.open(tiny_bundle)
    whole = measure(bundle, "fp32", questions.pairs)
    elsewhere = dataclasses.replace(whole, top=np.where(np.arange(10) < 1, whole.top, UNSEEN))  # the right item, and others
    fp32, int8, _ = gate_engines(bundle, questions, torch_vectors={}, reference=elsewhere)
    assert (fp32.verdict, int8.verdict) == ("reference", "passed")
    assert "of another network or other signals, so NDCG@10 decides" in int8.why
    assert fp32.why.startswith("among the signals here: NDCG@10 +0.00% lost")
    missing = dataclasses.replace(whole, top=np.roll(whole.top, 1, axis=1))  # the right item comes second
    better, _, _ = gate_engines(bundle, questions, torch_vectors={}, reference=missing)
    assert better.quality["ndcg_difference"] > 0.3


def test_where_nothing_was_held_out_parity_decides_and_another_network_stays_unmeasured(
    tiny_bundle: Path, tmp_path: Path, questions: Questions
) -> None:
    trained_on = dataclasses.replace(questions, held_out=False)
    bundle = with_engine(tiny_bundle, tmp_path / "bundle", leave, structure="student")
    _, int8, _, student = gate_engines(bundle, trained_on, torch_vectors={})
    assert (int8.quality, int8.verdict, student.verdict) == ({}, "passed", "unmeasured")
    assert int8.why.startswith("nothing was held out, so parity alone decides: top-10 overlap")
    examples = Examples(
        np.arange(1),
        np.ones(1, np.int64),
        [""],
        Pairs(["a", "b"], np.zeros(2, np.int64)),
        *[Pairs([], np.zeros(0, np.int64))] * 2,
    )
    assert (questions_of(examples).pairs.texts, questions_of(examples).held_out) == (["a", "b"], False)
    many = dataclasses.replace(examples, test=Pairs(["c"] * 1_200, np.zeros(1_200, np.int64)))
    assert (len(questions_of(many).pairs), questions_of(many).held_out) == (1_000, True)
    with pytest.raises(InvalidInput, match="there are no texts to measure engines with"):
        gate_engines(bundle, Questions(Pairs([], np.zeros(0, np.int64))), torch_vectors={})


def test_parity_counts_shared_items_and_cosines() -> None:
    vectors = np.eye(2, dtype=np.float32)
    mine = Measured(vectors, np.arange(20).reshape(2, 10), np.asarray([1.0, 2.0], np.float32), Shapes(0.5, 0.0, 0.9), True)
    theirs = Measured(vectors, np.arange(5, 25).reshape(2, 10), np.asarray([1.0, 2.5], np.float32), SAME, True)
    distances = gates.parity(mine, theirs, vectors)
    assert distances["top10_overlap"] == 0.5
    assert distances["score_difference_max"] == 0.5
    assert distances["cosine_to_torch_min"] == 1.0
    assert (distances["batch_difference_max"], mine.batch_invariant, theirs.batch_invariant) == (0.5, False, True)
    short = dataclasses.replace(theirs, top=np.where(np.arange(10) < 4, theirs.top, UNSEEN))
    assert gates.parity(short, short)["top10_overlap"] == 1.0  # a catalogue of four items


def test_what_is_no_number_is_measured_as_far_off_and_never_written() -> None:
    vectors = np.eye(2, dtype=np.float32)
    broken = Measured(np.full((2, 2), np.nan, np.float32), np.full((2, 10), UNSEEN), np.zeros(2, np.float32), SAME, False)
    whole = Measured(vectors, np.arange(20).reshape(2, 10), np.ones(2, np.float32), SAME, True)
    distances = gates.parity(broken, whole, vectors)
    assert (distances["cosine_to_torch_mean"], distances["top10_overlap"], distances["finite"]) == (0.0, 0.0, 0.0)
    json.dumps(distances, allow_nan=False)


def test_the_difference_in_quality_is_paired_and_has_an_interval() -> None:
    items = np.arange(100)
    top = np.tile(np.arange(100)[:, None], (1, 10)) + np.arange(10)  # the right item comes first
    right = Measured(np.zeros((100, 2), np.float32), top, np.zeros(100, np.float32), SAME, True)
    missed = dataclasses.replace(right, top=np.where(np.arange(100)[:, None] < 20, UNSEEN, top))
    found = gates.quality(missed, Pairs(["a"] * 100, items), reference=right)
    assert (found["ndcg_at_10"], found["ndcg_difference"], found["recall_difference"]) == (0.8, -0.2, -0.2)
    assert -0.3 < found["ndcg_difference_low"] < -0.2 < found["ndcg_difference_high"] < -0.1
    verdict = judge(found, gates.quality(right, Pairs(["a"] * 100, items)), gates.parity(right, right))
    assert verdict.verdict == "rejected"
    assert verdict.why.startswith("NDCG@10 +20.00% lost (accepted 1%; 95% interval +1")
