"""Which engine to serve on a target, and why: from what was measured of each, or by rule where the machine is not here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum

from bertrec.bundle import EngineRecord, Runtime
from bertrec.errors import InvalidInput
from bertrec.tensors import ENCODER
from export.verdict import IS_REFERENCE, PASSED, REJECTED


class Target(str, Enum):
    """Where the engine is to be served."""

    CPU = "cpu"  # by Triton, behind a batcher
    EDGE = "edge"  # in an application's process, on a small machine
    GPU = "gpu"  # by Triton, with TensorRT


class Objective(str, Enum):
    """What fast means."""

    LATENCY = "latency"  # one text at a time
    THROUGHPUT = "throughput"  # many at once


TIE = 0.05
"""Times and sizes that differ by a smaller share are the same: the next build on this machine could find them the other way."""
FUSED = frozenset(
    "Attention BiasGelu DynamicQuantizeMatMul EmbedLayerNormalization FastGelu Gelu MatMulIntegerToFloat MultiHeadAttention "
    "QAttention QGemm QLinearMatMul MatMulInteger SkipLayerNormalization".split()
)
"""Operators that TensorRT does not take: ONNX Runtime's own, and quantised ones that are no pair of Q/DQ. A graph with one of
them is cut up between TensorRT and the CPU."""


@dataclass(frozen=True)
class Choice:
    """The encoder engine to serve, and why it is that one; its fields are those of Manifest.choice."""

    target: str
    objective: str
    engine: str
    why: str


def choose(
    records: Sequence[EngineRecord],
    target: Target,
    objective: Objective = Objective.LATENCY,
    *,
    allow_batch_variant: bool = False,
    max_bytes: int | None = None,
) -> Choice:
    """Choose among the encoder engines that passed, or take the reference where none did.

    cpu: the fastest on this machine; one whose vectors depend on the texts that share a batch only with ``allow_batch_variant``,
    for a batcher joins strangers' requests, and an answer must not depend on them. edge: the fastest that fits, the smallest
    of those that are as fast; requests are not joined there, so batches do not matter. max_bytes: of the engine's file; larger
    ones are left out for cpu and edge. gpu: by rule, for the machine that builds need not have one.
    Raises InvalidInput where the records hold no reference, or no engine that passed, the reference included, is within
    ``max_bytes``.
    """
    encoders = [record for record in records if record.model == ENCODER.name and record.file]
    reference = next((record for record in encoders if record.verdict == IS_REFERENCE), None)
    if reference is None:
        raise InvalidInput(
            f"no engine is the reference to fall back on; the encoder engines are: {_verdicts(encoders) or 'none'}"
        )
    if target is Target.GPU:
        chosen, why = _by_rule(encoders, reference)
    else:
        chosen, why = _measured(encoders, reference, _Wish(target, objective, allow_batch_variant, max_bytes))
    return Choice(target.value, objective.value, chosen.name, why)


@dataclass(frozen=True)
class _Wish:
    target: Target
    objective: Objective
    allow_batch_variant: bool
    max_bytes: int | None

    def seconds(self, record: EngineRecord) -> float:
        """What the objective makes small."""
        if self.objective is Objective.LATENCY:
            return record.latency["single_ms_median"] / 1e3
        return 1.0 / record.latency["texts_per_s_median"]

    def speed(self, record: EngineRecord) -> str:
        """The same in words."""
        if self.objective is Objective.LATENCY:
            return f"{record.latency['single_ms_median']:.2f} ms for one text"
        return f"{record.latency['texts_per_s_median']:,.0f} texts/s"


def _measured(encoders: Sequence[EngineRecord], reference: EngineRecord, wish: _Wish) -> tuple[EngineRecord, str]:
    """The choice among engines that were timed here."""
    good = [record for record in encoders if record.runtime == Runtime.ORT.value and record.verdict in (IS_REFERENCE, PASSED)]
    fits = [record for record in good if wish.max_bytes is None or record.size_bytes <= wish.max_bytes]
    timed = [record for record in fits if record.latency]
    if not fits:
        sizes = ", ".join(f"{record.name} {_megabytes(record.size_bytes)} {record.verdict}" for record in encoders)
        raise InvalidInput(
            f"no engine that passed has at most {_megabytes(wish.max_bytes or 0)}; there are {sizes}. Allow more, "
            "accept a larger loss, or distil a student: python -m train distil"
        )
    if fits == [reference]:
        return reference, f"the reference: no other engine passed and fits ({_verdicts(encoders)})"
    spare = reference if reference in fits else min(fits, key=lambda record: record.size_bytes)
    named = "the reference" if spare is reference else "the smallest that fits"
    if not timed:
        return spare, f"{named}: no engine was timed on this machine, so none is known to be faster"
    if wish.target is Target.EDGE:
        chosen = _best(timed, wish.seconds, lambda record: record.size_bytes)
        room = f", within {_megabytes(wish.max_bytes)}" if wish.max_bytes else ""
        why = f"the fastest that passed{room}: {wish.speed(chosen)}, {_megabytes(chosen.size_bytes)}"
        return chosen, _beside(why, chosen, reference, [])
    steady = [record for record in timed if record.batch_invariant or wish.allow_batch_variant]
    if not steady:
        return spare, f"{named}: of all engines that passed and fit, answers depend on the texts that share a batch"
    chosen = _best(steady, wish.seconds, lambda record: -record.quality.get("ndcg_at_10", 0.0))
    faster = [record for record in timed if record not in steady and wish.seconds(record) < wish.seconds(chosen)]
    kind = "engines that passed" if wish.allow_batch_variant else "engines that passed and give the same answer in any batch"
    return chosen, _beside(f"of the {kind} the fastest, {wish.speed(chosen)}", chosen, reference, faster)


def _by_rule(encoders: Sequence[EngineRecord], reference: EngineRecord) -> tuple[EngineRecord, str]:
    """The first kind of engine of which there is one that was not rejected; of several the one that ranks best."""
    source_of = {record.file: record for record in encoders}

    def source(record: EngineRecord) -> EngineRecord:
        """What a compiled engine was compiled from, which was measured where it was not."""
        return source_of.get(str(record.stamp.get("source")), record)

    usable = [record for record in encoders if REJECTED not in (record.verdict, source(record).verdict)]
    compiled = [record for record in usable if record.runtime == Runtime.TENSORRT.value]
    standard = [record for record in usable if record.runtime == Runtime.ORT.value and _standard(record)]
    rules = (
        ([record for record in compiled if record.precision == "fp16"], "compiled by TensorRT in fp16"),
        (compiled, "compiled by TensorRT; none is in fp16, which would be faster than fp32 and lose less than int8"),
        ([record for record in standard if record.precision != "int8"], f"{_PROVIDER}, in fp16 as its configuration says"),
        (standard, _PROVIDER),
    )
    for kind, why in rules:
        if kind:
            best = min(kind, key=lambda record: (-source(record).quality.get("ndcg_at_10", 0.0), record.name))
            return best, f"by rule, as nothing was timed on a GPU: {why}"
    return reference, (
        "the reference, for ONNX Runtime's CUDA provider: no engine was compiled by TensorRT, and none has standard operators "
        "only; such a one is built with --engines plain"
    )


_PROVIDER = (
    "standard operators only, so ONNX Runtime's TensorRT provider takes the whole graph and compiles it when the server starts; "
    "none was compiled beforehand, by python -m export tensorrt"
)


def _standard(record: EngineRecord) -> bool:
    """Whether TensorRT knows every operator of an ONNX file; one whose operators were not counted is taken for fused."""
    return bool(record.operators) and not any(record.operators.get(name) for name in FUSED)


def _best(
    records: Sequence[EngineRecord], first: Callable[[EngineRecord], float], then: Callable[[EngineRecord], float]
) -> EngineRecord:
    """The one with the least of ``then``, among those with about the least of ``first``; by name where all is equal."""
    least = min(first(record) for record in records)
    return min(
        (record for record in records if first(record) <= least * (1 + TIE)), key=lambda record: (then(record), record.name)
    )


def _beside(why: str, chosen: EngineRecord, reference: EngineRecord, passed_over: Sequence[EngineRecord]) -> str:
    """The reason, with what the choice means beside the reference, and the faster ones that were not taken."""
    if chosen is not reference and reference.latency:
        why += f" ({chosen.latency['latency_ratio']:.2f} times the reference's speed singly, "
        why += f"{chosen.latency['throughput_ratio']:.2f} times in batches)"
    if passed_over:
        names = ", ".join(record.name for record in passed_over)
        why += f"; {names} would be faster, but there an answer depends on the texts that share its batch"
    return why


def _verdicts(encoders: Sequence[EngineRecord]) -> str:
    return ", ".join(f"{record.name} {record.verdict}" for record in encoders)


def _megabytes(size_bytes: int) -> str:
    return f"{size_bytes / 1e6:.1f} MB"
