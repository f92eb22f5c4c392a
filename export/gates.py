"""What an engine lost: how its vectors and its ranking differ from the reference's, measured through the served code.

What the shape of a batch and odd texts do to it is in export/shapes.py, what it may lose in export/verdict.py.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bertrec.answers import Options
from bertrec.bundle import Bundle, EngineRecord, Runtime
from bertrec.engine import OnnxEngine
from bertrec.errors import InvalidBundle, InvalidInput, Unavailable
from bertrec.pipeline import Pipeline, Tensors
from bertrec.tensors import ATTENTION_MASK, ENCODER, INPUT_IDS, INTEREST_VECTOR, RANKER
from export.heads import HeadsOnVectors
from export.shapes import Shapes, cosines, largest_difference, probe_shapes, reads_extremes
from export.verdict import DEFAULT_BUDGETS, IS_REFERENCE, REJECTED, SAID_OF_FINITE, Budgets, Verdict, judge
from train.bootstrap import bootstrap
from train.data import TEST
from train.examples import UNSEEN, Examples, Pairs
from train.metrics import CUTOFF, ndcg
from train.progress import Advance, progress

TEXTS = 1_000
"""Held-out texts that every engine answers."""
BLOCK = 256
"""Texts that are answered at once, of similar length: four full batches."""
REFERENCE = "fp32"
"""The engine that the others are held against."""
BOOTSTRAP_SEED = 0


@dataclass(frozen=True)
class Questions:
    """What the engines are asked. held_out: False where the texts were trained on, which tell parity and no more."""

    pairs: Pairs
    held_out: bool = True


@dataclass(frozen=True)
class Measured:
    """One engine's answers.

    vectors: (texts, hidden) interest vectors. top: (texts, 10) item indices, UNSEEN where fewer came back. scores: (texts,) the
    first item's score. shapes: what the sizes and lengths of batches change. finite: no NaN or infinity, at odd texts either.
    """

    vectors: NDArray[np.float32]
    top: NDArray[np.int64]
    scores: NDArray[np.float32]
    shapes: Shapes
    finite: bool

    @property
    def batch_invariant(self) -> bool:
        """Whether a text's answer is the same whatever texts share its batch."""
        return self.shapes.batch_invariant


def questions_of(examples: Examples) -> Questions:
    """Up to TEXTS texts of the test split; training texts where nothing was held out."""
    test = examples.part(TEST)
    pairs = test if len(test) else examples.train
    return Questions(pairs.take(np.arange(min(len(pairs), TEXTS))), held_out=bool(len(test)))


def gate_engines(
    bundle: Bundle,
    questions: Questions,
    *,
    torch_vectors: Mapping[str, NDArray[np.float32]],
    reference: Measured | None = None,
    heads: HeadsOnVectors | None = None,
    budgets: Budgets = DEFAULT_BUDGETS,
) -> tuple[EngineRecord, ...]:
    """The records of all engines of the bundle, in order, with what was measured of every encoder that ONNX Runtime loads.

    torch_vectors: structure → (texts, hidden) what PyTorch makes of the texts; a structure may be absent. reference: what the
    reference answered among other signals, such as the whole ones of a bundle that was cut down since; by default it answers
    here. heads: whose accuracy on each engine's vectors is told as well.
    An engine that does not load or fails is rejected with that reason. Raises InvalidInput without texts, InvalidBundle where
    the reference departs from PyTorch: then nothing that is measured against it means anything.
    """
    here = measure(bundle, REFERENCE, questions.pairs)
    original = bundle.engine(ENCODER.name, REFERENCE)
    gate = _Gate(original, here if reference is None else reference, reference is None, questions, torch_vectors, heads, budgets)
    records = []
    for record in bundle.manifest.engines:
        if record.model == ENCODER.name and record.runtime == Runtime.ORT.value and record.file:
            try:
                measured = here if record.name == REFERENCE else measure(bundle, record.name, questions.pairs)
            except (Unavailable, InvalidBundle) as error:
                record = dataclasses.replace(record, verdict=REJECTED, why=f"does not run: {error}")
            else:
                record = gate.judged(record, measured)
        records.append(record)
    return tuple(records)


def measure(bundle: Bundle, engine: str, queries: Pairs, *, ranker: str | None = None) -> Measured:
    """Answer the queries with one encoder engine of the bundle, the way the edge would; each text is encoded once.

    ranker: the ranker's engine, by default that which the bundle answers with.
    Raises InvalidInput without texts, InvalidBundle or Unavailable where the engine does not load or fails.
    """
    if not len(queries):
        raise InvalidInput("there are no texts to measure engines with; give the data interactions or items with a text")
    encoder = OnnxEngine(bundle.engine_path(ENCODER.name, engine), ENCODER)
    ranking = OnnxEngine(bundle.engine_path(RANKER.name, ranker or bundle.ranker_engine), RANKER)
    tokenizer = bundle.tokenizer(engine)
    tokens = tokenizer.tokenise(queries.texts)
    order = np.argsort([len(text.ids) for text in tokens], kind="stable")
    with progress(f"answering {len(queries)} held-out texts with {engine}", len(queries)) as advance:
        kept = _Kept(encoder, advance)
        pipeline = Pipeline(bundle, encoder=kept.run, ranker=ranking.run, engine=engine)
        top, scores = _answers(pipeline, bundle, queries, order)
    vectors = np.stack([kept.vectors[tuple(text.ids)] for text in tokens])
    finite = bool(np.isfinite(vectors).all()) and reads_extremes(encoder, tokenizer)
    return Measured(vectors, top, scores, probe_shapes(encoder, tokenizer, tokens), finite)


def parity(measured: Measured, reference: Measured, torch_vectors: NDArray[np.float32] | None = None) -> dict[str, float]:
    """Distances to the reference engine, and of the vectors to PyTorch's where they are given; none is NaN."""
    shared = [
        len((set(mine) & set(theirs)) - {UNSEEN}) / max(len(set(theirs) - {UNSEEN}), 1)
        for mine, theirs in zip(measured.top.tolist(), reference.top.tolist(), strict=True)
    ]
    distances = {
        **_cosines("reference", measured.vectors, reference.vectors),
        "top10_overlap": float(np.mean(shared)),
        "score_difference_max": largest_difference(measured.scores, reference.scores),
        "batch_difference_max": measured.shapes.batch_difference,
        "padding_difference_max": measured.shapes.padding_difference,
        "shape_cosine_min": measured.shapes.cosine_min,
        "finite": float(measured.finite),
    }
    if torch_vectors is not None:
        distances |= _cosines("torch", measured.vectors, torch_vectors)
        distances["vector_difference_to_torch_max"] = largest_difference(measured.vectors, torch_vectors)
    return distances


def quality(measured: Measured, queries: Pairs, *, reference: Measured | None = None) -> dict[str, float]:
    """Ranking quality on the queries that were answered.

    With a reference also the differences from it, engine minus reference, with their paired 95% intervals.
    """
    gains = ndcg(measured.top, queries.items)
    found = {"texts": len(queries), "ndcg_at_10": float(gains.mean()), "recall_at_10": float((gains > 0).mean())}
    if reference is not None:
        before = ndcg(reference.top, queries.items)
        hits = (gains > 0).astype(np.float64) - (before > 0)
        ndcgs, recalls = bootstrap(np.stack([gains - before, hits]), BOOTSTRAP_SEED)
        for name, difference in (("ndcg", ndcgs), ("recall", recalls)):
            found[f"{name}_difference"] = difference.value
            found[f"{name}_difference_low"] = float(difference.low or 0.0)
            found[f"{name}_difference_high"] = float(difference.high or 0.0)
    return found


@dataclass(frozen=True)
class _Gate:
    """The reference, and all that engines are held against it with. same_signals: it answered among the bundle's own."""

    record: EngineRecord
    reference: Measured
    same_signals: bool
    questions: Questions
    torch_vectors: Mapping[str, NDArray[np.float32]]
    heads: HeadsOnVectors | None
    budgets: Budgets

    def judged(self, record: EngineRecord, measured: Measured) -> EngineRecord:
        """The engine's record with what was measured, and the verdict. Raises InvalidBundle as :func:`gate_engines` says."""
        distances = parity(measured, self.reference, self.torch_vectors.get(record.structure))
        ranked = self._ranked(measured, None if measured is self.reference else self.reference)
        re_encoded = self.same_signals and record.structure == self.record.structure
        verdict = Verdict(IS_REFERENCE, "")
        if measured is not self.reference:
            before = self._ranked(self.reference, None)
            verdict = judge(ranked, before, distances, budgets=self.budgets, re_encoded=re_encoded)
        if record.name == self.record.name:
            self._check(distances)
            verdict = Verdict(IS_REFERENCE, f"among the signals here: {verdict.why}" if verdict.why else "")
        return dataclasses.replace(
            record,
            batch_invariant=measured.batch_invariant,
            parity=distances,
            quality={**ranked, **(self.heads.accuracies(measured.vectors) if self.heads and measured.finite else {})},
            verdict=verdict.verdict,
            why=verdict.why,
        )

    def _ranked(self, measured: Measured, reference: Measured | None) -> dict[str, float]:
        return quality(measured, self.questions.pairs, reference=reference) if self.questions.held_out else {}

    def _check(self, distances: Mapping[str, float]) -> None:
        """Raises InvalidBundle where the reference engine is not what it was exported from."""
        cosine, least = distances.get("cosine_to_torch_min", 1.0), self.budgets.reference_cosine
        if cosine < least or not distances["finite"]:
            raise InvalidBundle(
                f"the engine {self.record.name} is not what it was exported from: least cosine to PyTorch {cosine:.5f}, "
                f"accepted {least:g}, {SAID_OF_FINITE[distances['finite']]}. The exporter of this version of torch gives "
                "another network; install the versions of constraints.txt"
            )


class _Kept:
    """Runs the encoder for the pipeline, and keeps the vector of every text by its token ids."""

    def __init__(self, encoder: OnnxEngine, advance: Advance) -> None:
        self.vectors: dict[tuple[int, ...], NDArray[np.float32]] = {}
        self._encoder, self._advance = encoder, advance

    def run(self, inputs: Tensors) -> Tensors:
        outputs = self._encoder.run(inputs)
        lengths = inputs[ATTENTION_MASK.name].sum(axis=1)  # (batch,)
        for ids, length, vector in zip(inputs[INPUT_IDS.name], lengths, outputs[INTEREST_VECTOR.name], strict=True):
            self.vectors[tuple(ids[:length].tolist())] = vector
        self._advance(len(lengths))
        return outputs


def _answers(
    pipeline: Pipeline, bundle: Bundle, queries: Pairs, order: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """(texts, 10) item indices and (texts,) first scores; asked in ``order``, so that batches are full and padded little."""
    ids = [item.item_id for item in bundle.catalogue().items]
    index_of = {item_id: index for index, item_id in enumerate(ids)}
    top = np.full((len(queries), CUTOFF), UNSEEN, np.int64)
    scores = np.zeros(len(queries), np.float32)
    for start in range(0, len(order), BLOCK):
        rows = order[start : start + BLOCK]
        part = queries.take(rows)
        options = [Options(k=CUTOFF, history=[ids[item] for item in history], spelling=False) for history in part.histories]
        for row, answer in zip(rows.tolist(), pipeline.recommend(part.texts, options), strict=True):
            top[row, : len(answer.items)] = [index_of[item.item_id] for item in answer.items]
            scores[row] = answer.items[0].score if answer.items else 0.0
    return top, scores


def _cosines(name: str, vectors: NDArray[np.float32], others: NDArray[np.float32]) -> dict[str, float]:
    found = cosines(vectors, others)
    summary = {"mean": found.mean(), "p1": np.percentile(found, 1.0), "min": found.min()}
    return {f"cosine_to_{name}_{part}": float(value) for part, value in summary.items()}
