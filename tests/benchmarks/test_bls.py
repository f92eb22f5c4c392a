"""BLS beside the ensemble: both answer alike in a real Triton, both are measured, and the page says who was faster."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from google.protobuf import text_format  # type: ignore[import-untyped]  # its stubs are a package of their own
from tritonclient.grpc import model_config_pb2

from benchmarks.__main__ import main
from benchmarks.beside import Middle
from benchmarks.bls import Compared, compare_answers, figures
from benchmarks.bls_page import decision
from benchmarks.ensemble import ENSEMBLE, STEPS, EnsembleOptions, add_ensemble, configs, join_ranker
from benchmarks.measures import READERS
from benchmarks.servers import served_encoder_threads, triton
from bertrec.answers import Options, Recommendation
from bertrec.bundle import Bundle
from bertrec.errors import InvalidAnswer, InvalidInput
from client.backends import Backend, connect
from tests.tiny import ITEMS, item_text

TEXTS = [
    item_text(3),
    "a gren gown please",
    "what i want is a very long warm coat that nothing in the catalogue knows " * 3,
    "zzz",
]


@pytest.fixture(scope="module")
def backend(tiny_bundle: Path) -> Iterator[Backend]:
    bundle = Bundle.open(tiny_bundle)
    with triton(tiny_bundle, engine="fp32", threads=1, alter=lambda repository: add_ensemble(repository, bundle)) as served:
        assert served_encoder_threads(served.urls["http"]) == 1
        found = connect(served.urls["grpc"])
        yield found
        found.close()


def ask(backend: Backend, texts: list[str], question: Options) -> list[Recommendation]:
    return backend.answer(texts, question, timeout_s=30.0)


def test_the_ensemble_answers_as_recommend_does(backend: Backend) -> None:
    compared = compare_answers(backend, TEXTS)
    assert compared["answers"] == 5 * len(TEXTS)
    assert compared["largest_score_difference"] <= 1e-5
    (found,) = ask(backend, [TEXTS[1]], EnsembleOptions())
    assert [(one.given, one.meant) for one in found.corrections] == [("gren", "green")]
    assert ask(backend, [TEXTS[2]], EnsembleOptions())[0].truncated


def test_a_request_of_several_texts_is_answered_row_by_row(backend: Backend) -> None:
    texts = [item_text(item) for item in range(ITEMS)] + TEXTS[:3]
    for mine, theirs in zip(ask(backend, texts, EnsembleOptions(k=5)), ask(backend, texts, Options(k=5)), strict=True):
        assert [item.item_id for item in mine.items] == [item.item_id for item in theirs.items]
        np.testing.assert_allclose([item.score for item in mine.items], [item.score for item in theirs.items], atol=1e-4)


def test_rules_and_a_history_without_a_text_reach_the_ensemble(backend: Backend) -> None:
    rule = {"name": "no gowns", "then": {"attribute": "kind", "equals": ["gown"], "effect": "exclude"}}
    for given in ({"history": ["1", "2"]}, {"rules": [rule]}):
        text = "" if "history" in given else "a green gown below $50"
        (mine,), (theirs,) = (ask(backend, [text], kind(**given)) for kind in (EnsembleOptions, Options))
        assert mine == theirs


def test_what_an_ensemble_cannot_do_and_bad_input_are_refused(backend: Backend) -> None:
    with pytest.raises(InvalidInput, match="rerank is true, and an ensemble cannot"):
        ask(backend, ["a coat"], EnsembleOptions(rerank=True))
    with pytest.raises(InvalidInput, match="text 0 is empty"):
        ask(backend, [" "], EnsembleOptions())
    assert ask(backend, ["a coat"], EnsembleOptions())[0].items


def test_answers_that_differ_are_not_measured(backend: Backend) -> None:
    class Forgetful:
        """The real server, but that the ensemble forgets an item."""

        def answer(self, texts: list[str], question: Options, *, timeout_s: float, **more: Any) -> list[Any]:
            given = ask(backend, texts, question)
            return (
                [Recommendation(one.items[1:], one.truncated, one.engine, one.bundle) for one in given]
                if (question.model is ENSEMBLE)
                else given
            )

        def close(self) -> None:
            pass

    with pytest.raises(InvalidAnswer, match="the ensemble answers 'red' with {} unlike recommend"):
        compare_answers(Forgetful(), ["red"])  # type: ignore[arg-type]


def test_the_configs_are_tritons_own(tiny_bundle: Path) -> None:
    read: dict[str, Any] = {name: text_format.Parse(text, model_config_pb2.ModelConfig()) for name, text in configs().items()}
    assert [step.model_name for step in read[ENSEMBLE.name].ensemble_scheduling.step] == [spec.name for spec in STEPS]
    made = {"TEXT", "OPTIONS"}
    for step in read[ENSEMBLE.name].ensemble_scheduling.step:  # every input of a step was there before it
        assert set(step.input_map.values()) <= made
        assert step.model_version == 1
        made |= set(step.output_map.values())
    assert "ANSWER" in made


def test_the_joined_ranker_ranks_as_the_ranker(tiny_bundle: Path, tmp_path: Path) -> None:
    bundle = Bundle.open(tiny_bundle)
    ranker, hidden = bundle.engine_path("ranker", "fp32"), bundle.manifest.signals["text"]
    join_ranker(ranker, tmp_path / "joined.onnx", hidden=hidden)
    random = np.random.default_rng(0)
    interest, weight, others = (
        random.normal(size=(4, width)).astype(np.float32) for width in (hidden, 1, sum(bundle.manifest.signals.values()) - hidden)
    )
    boost = np.zeros((4, ITEMS), np.float32)
    joined = onnxruntime.InferenceSession(str(tmp_path / "joined.onnx")).run(
        None, {"interest_vector": interest, "text_weight": weight, "other_sides": others, "boost": boost}
    )
    query = np.hstack([interest * weight, others])
    for mine, wanted in zip(
        joined, onnxruntime.InferenceSession(str(ranker)).run(None, {"query_vector": query, "boost": boost}), strict=True
    ):
        np.testing.assert_array_equal(mine, wanted)


def compared(ratio: float, low: float, high: float, *, higher_is_better: bool | None, rounds: int = 3) -> Compared:
    return Compared(Middle(10.0, 9.0, 11.0), Middle(10.0 * ratio, 1.0, 99.0), Middle(ratio, low, high), higher_is_better, rounds)


@pytest.mark.parametrize(
    ("p50", "rate", "said"),
    [
        ((1.0, 0.9, 1.1), (0.99, 0.9, 1.1), "Neither was faster by more than noise. BLS is kept"),
        (
            (1.0, 0.9, 1.1),
            (0.5, 0.4, 0.6),
            "BLS was faster by more than noise in 16 clients, texts/s with fp32 (10.00 by BLS, 5.00",
        ),
        (
            (0.8, 0.7, 0.9),
            (0.5, 0.4, 0.6),
            "**The ensemble was faster by more than noise** in one text, p50 ms with fp32 (10.00 by",
        ),
        (
            (1.2, 1.1, 1.3),
            (1.5, 1.4, 1.6),
            "**The ensemble was faster by more than noise** in 16 clients, texts/s with fp32 (10.00",
        ),
    ],
)
def test_the_page_says_who_was_faster(p50: tuple[float, ...], rate: tuple[float, ...], said: str) -> None:
    measured = {
        "fp32": {
            "one text, p50 ms": compared(*p50, higher_is_better=False),
            "16 clients, texts/s": compared(*rate, higher_is_better=True),
        }
    }
    assert decision(measured).startswith(said)
    assert "Nothing was measured" in decision({})


def test_neither_is_called_faster_after_too_few_rounds_or_where_nothing_is_better() -> None:
    assert compared(0.5, 0.4, 0.6, higher_is_better=True).verdict == "BLS"
    assert compared(0.5, 0.4, 0.6, higher_is_better=True, rounds=2).verdict == "–"
    assert compared(0.5, 0.4, 0.6, higher_is_better=None).verdict == "–"
    few = compared(0.5, 0.4, 0.6, higher_is_better=True, rounds=2)
    assert decision({"fp32": dict.fromkeys(("one text, p50 ms", "16 clients, texts/s"), few)}).startswith("Too few rounds")


def test_both_are_measured_in_one_real_triton(tiny_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output, page, texts = tmp_path / "results/bls.json", tmp_path / "docs/decisions/bls.md", tmp_path / "texts.txt"
    texts.write_text("\n".join(TEXTS))
    asked = ["--seconds", "0.15", "--rounds", "2", "--threads", "1", "--output", str(output), "--page", str(page)]
    assert main(["bls", "--bundle", str(tiny_bundle), "--texts", str(texts), *asked]) == 0
    written: dict[str, Any] = json.loads(output.read_text())
    assert written["complete"]
    assert written["compared"]["fp32"]["answers"] == 5 * len(TEXTS)
    kinds = Counter((row["kind"], row.get("way", "")) for row in written["rows"])
    assert kinds == {("latency", ""): 2, ("throughput", "BLS"): 2, ("throughput", "ensemble"): 2}
    for row in written["rows"]:
        if row["kind"] == "throughput":
            assert row["encoder_texts"] >= row["answered"] > 0
            assert row["server_cpu_s"] > 0
    assert set(figures(written["rows"], "fp32")) >= {"one text, p50 ms", "16 clients, texts/s"}
    assert "## Kept: BLS" in page.read_text()
    assert "ensemble ÷ BLS" in capsys.readouterr().out
    assert "fp32, ensemble, texts/s" in READERS["bls"](written)
