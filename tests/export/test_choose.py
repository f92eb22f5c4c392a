"""Which engine is chosen for a target, and what is said of the choice."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from bertrec.bundle import EngineRecord
from bertrec.errors import InvalidInput
from export.choose import Choice, Objective, Target, choose

STANDARD = {"MatMul": 36, "Softmax": 6}
FUSED = {"Attention": 6, "SkipLayerNormalization": 12}


def engine(name: str, *, ms: float, per_s: float, mb: float, **others: Any) -> EngineRecord:
    """A record as the gates and the timing leave it; the reference takes 10 ms and reads 100 texts a second."""
    latency = {
        "single_ms_median": ms,
        "texts_per_s_median": per_s,
        "latency_ratio": 10.0 / ms,
        "throughput_ratio": per_s / 100.0,
    }
    about: dict[str, Any] = {
        "precision": name,
        "size_bytes": round(mb * 1e6),
        "latency": latency,
        "quality": {"ndcg_at_10": 0.39},
        "verdict": "passed",
        "batch_invariant": True,
    }
    return EngineRecord("encoder", name, f"encoder/{name}.onnx", **{**about, **others})


REFERENCE = engine("fp32", ms=10, per_s=100, mb=90, verdict="reference", operators=FUSED)
DYNAMIC = engine("int8", ms=5, per_s=160, mb=28, batch_invariant=False)
STATIC = engine("int8-static", ms=7, per_s=150, mb=28.5)
STUDENT = engine("layers-2", ms=4, per_s=290, mb=60, structure="layers-2")
TINY = engine(
    "static", ms=0.2, per_s=9_000, mb=5, structure="static", verdict="rejected", why="NDCG@10 +4.00% lost (accepted 1%)"
)
RANKER = EngineRecord("ranker", "fp32", "ranker/fp32.onnx", "fp32", batch_invariant=True)
ALL = (REFERENCE, DYNAMIC, STATIC, STUDENT, TINY, RANKER)


def test_a_server_gets_the_fastest_that_passed_and_the_reason_has_its_numbers() -> None:
    assert choose(ALL, Target.CPU) == Choice(
        "cpu",
        "latency",
        "layers-2",
        "of the engines that passed and give the same answer in any batch the fastest, 4.00 ms for one text (2.50 times the "
        "reference's speed singly, 2.90 times in batches)",
    )


def test_behind_a_batcher_an_engine_whose_answers_depend_on_it_must_be_allowed() -> None:
    records = (REFERENCE, DYNAMIC, STATIC, RANKER)
    steady = choose(records, Target.CPU)
    assert steady.engine == "int8-static"
    assert "int8 would be faster, but there an answer depends on the texts that share its batch" in steady.why
    allowed = choose(records, Target.CPU, allow_batch_variant=True)
    assert allowed.engine == "int8"
    assert "any batch" not in allowed.why
    assert choose((REFERENCE, DYNAMIC), Target.CPU).engine == "fp32"


def test_latency_and_throughput_choose_by_their_own_measure() -> None:
    quick = engine("quick", ms=3, per_s=120, mb=50)
    wide = engine("wide", ms=6, per_s=400, mb=50)
    records = (REFERENCE, quick, wide)
    assert choose(records, Target.CPU, Objective.LATENCY).engine == "quick"
    most = choose(records, Target.CPU, Objective.THROUGHPUT)
    assert (most.engine, most.objective) == ("wide", "throughput")
    assert "the fastest, 400 texts/s" in most.why


def test_of_engines_that_are_as_fast_the_better_one_is_taken() -> None:
    better = engine("better", ms=4.1, per_s=280, mb=60, quality={"ndcg_at_10": 0.395})
    slower = engine("slower", ms=4.5, per_s=280, mb=60, quality={"ndcg_at_10": 0.42})
    assert choose((*ALL, better, slower), Target.CPU).engine == "better"


def test_the_edge_gets_the_fastest_that_fits_and_no_rejected_one() -> None:
    chosen = choose(ALL, Target.EDGE, max_bytes=30_000_000)
    assert chosen.engine == "int8"  # batches do not matter there
    assert chosen.why.startswith("the fastest that passed, within 30.0 MB: 5.00 ms for one text, 28.0 MB")
    as_fast = engine("trimmed-int8", ms=5.1, per_s=110, mb=14)
    assert choose((*ALL, as_fast), Target.EDGE, max_bytes=30_000_000).engine == "trimmed-int8"


def test_a_limit_of_size_leaves_larger_ones_out_and_is_never_exceeded() -> None:
    assert choose(ALL, Target.CPU, max_bytes=30_000_000).engine == "int8-static"
    with pytest.raises(
        InvalidInput, match=r"no engine that passed has at most 15\.0 MB; there are .*int8 28\.0 MB passed.*distil"
    ):
        choose(ALL, Target.EDGE, max_bytes=15_000_000)
    untimed = dataclasses.replace(STATIC, latency={})
    little = choose((REFERENCE, untimed), Target.EDGE, max_bytes=30_000_000)
    assert (little.engine, little.why.split(":")[0]) == ("int8-static", "the smallest that fits")


@pytest.mark.parametrize("target", [Target.CPU, Target.EDGE])
def test_where_none_passed_the_reference_is_served_and_it_is_said(target: Target) -> None:
    choice = choose((REFERENCE, TINY, RANKER), target)
    assert choice.engine == "fp32"
    assert choice.why == "the reference: no other engine passed and fits (fp32 reference, static rejected)"
    unmeasured = dataclasses.replace(STUDENT, verdict="unmeasured")
    left_out = dataclasses.replace(STATIC, file="")
    assert choose((REFERENCE, unmeasured, left_out), target).engine == "fp32"


def test_without_times_the_reference_is_served_and_it_is_said() -> None:
    untimed = [dataclasses.replace(record, latency={}) for record in (REFERENCE, STATIC)]
    assert choose(untimed, Target.CPU).why == "the reference: no engine was timed on this machine, so none is known to be faster"
    assert choose([REFERENCE, untimed[1]], Target.CPU).engine == "fp32"


def plan(name: str, precision: str, source: str, **others: Any) -> EngineRecord:
    about: dict[str, Any] = {"runtime": "tensorrt", "verdict": "unmeasured", "stamp": {"source": source}}
    return EngineRecord("encoder", name, f"encoder/{name}", precision, **{**about, **others})


def test_a_gpu_gets_what_tensorrt_compiled_then_what_it_can_compile_then_the_reference() -> None:
    plain = engine("plain", ms=10, per_s=100, mb=90, precision="fp32", operators=STANDARD)
    half = plan("fp16.plan", "fp16", "encoder/fp16.onnx")
    whole = plan("plain.plan", "fp32", "encoder/plain.onnx")
    desktop = plan("fp16.rtx", "fp16", "encoder/fp16.onnx", runtime="tensorrt_rtx")
    steps = [
        ((*ALL, plain, whole, half, desktop), "fp16.plan", "compiled by TensorRT in fp16"),
        ((*ALL, plain, whole, desktop), "plain.plan", "none is in fp16"),
        ((*ALL, plain, desktop), "plain", "TensorRT provider takes the whole graph"),
        ((*ALL, desktop), "fp32", "built with --engines plain"),
    ]
    for records, name, reason in steps:
        choice = choose(records, Target.GPU)
        assert choice.engine == name
        assert reason in choice.why
        assert ("by rule, as nothing was timed on a GPU" in choice.why) == (name != "fp32")


def test_what_was_compiled_from_a_rejected_engine_is_not_taken_and_of_several_the_best() -> None:
    good = engine("fp16", ms=10, per_s=100, mb=45, precision="fp16", operators=STANDARD)
    small = engine("layers-2-fp16", ms=4, per_s=290, mb=30, precision="fp16", quality={"ndcg_at_10": 0.38}, operators=STANDARD)
    plans = (
        plan("fp16.plan", "fp16", "encoder/fp16.onnx"),
        plan("layers-2-fp16.plan", "fp16", "encoder/layers-2-fp16.onnx"),
    )
    assert choose((REFERENCE, small, good, *reversed(plans)), Target.GPU).engine == "fp16.plan"
    rejected = dataclasses.replace(good, verdict="rejected")
    assert choose((REFERENCE, small, rejected, *plans), Target.GPU).engine == "layers-2-fp16.plan"


def test_records_without_a_reference_are_refused() -> None:
    with pytest.raises(
        InvalidInput, match="no engine is the reference to fall back on; the encoder engines are: static rejected"
    ):
        choose((TINY, RANKER), Target.CPU)
