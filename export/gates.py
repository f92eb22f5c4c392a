"""What an engine lost: parity with the reference and the quality of its ranking, measured through the served code."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bertrec.answers import Options
from bertrec.bundle import Bundle
from bertrec.engine import OnnxEngine
from bertrec.pipeline import Pipeline
from bertrec.tensors import ENCODER, RANKER
from train.examples import Pairs
from train.metrics import CUTOFF, ndcg
from train.progress import progress

TEXTS = 1_000
"""Held-out texts that every engine answers."""
MAX_NDCG_LOSS = 0.01
"""An engine may lose this share of the reference's NDCG@10."""
MIN_OVERLAP = 0.95
"""The mean share of the reference's top 10 that an engine's top 10 must hold."""
INVARIANCE_TEXTS = 64
INVARIANCE_TOLERANCE = 1e-5
"""Single and batched vectors may differ by so much in any component: float32 rounding, no more."""


@dataclass(frozen=True)
class Measured:
    """One engine's answers to the held-out texts.

    vectors: (texts, hidden) interest vectors. top: (texts, 10) item indices, −1 where fewer came back. scores: (texts,) the
    first item's score. batch_difference: largest change of a vector's component when texts are read singly instead of together.
    """

    vectors: NDArray[np.float32]
    top: NDArray[np.int64]
    scores: NDArray[np.float32]
    batch_difference: float

    @property
    def batch_invariant(self) -> bool:
        """Whether an answer is the same whatever texts share its batch."""
        return self.batch_difference <= INVARIANCE_TOLERANCE


@dataclass(frozen=True)
class Verdict:
    """Whether an engine is good enough, and why."""

    verdict: str  # reference, passed or rejected
    why: str


def measure(bundle: Bundle, engine: str, queries: Pairs) -> Measured:
    """Answer the queries with one encoder engine of the bundle, the way the edge would."""
    texts = queries.texts
    encoder = OnnxEngine(bundle.engine_path(ENCODER.name, engine), ENCODER)
    ranker = OnnxEngine(bundle.engine_path(RANKER.name, "fp32"), RANKER)
    pipeline = Pipeline(bundle, encoder=encoder.run, ranker=ranker.run, engine=engine)
    ids = [item.item_id for item in bundle.catalogue().items]
    index_of = {item_id: index for index, item_id in enumerate(ids)}
    options = [Options(k=CUTOFF, history=[ids[item] for item in history], spelling=False) for history in queries.histories]
    top = np.full((len(texts), CUTOFF), -1, np.int64)
    scores = np.zeros(len(texts), np.float32)
    with progress(f"answering {len(texts)} held-out texts with {engine}", len(texts)) as advance:
        for start in range(0, len(texts), INVARIANCE_TEXTS):
            rows = slice(start, start + INVARIANCE_TEXTS)
            part = texts[rows]
            for row, answer in enumerate(pipeline.recommend(part, options[rows]), start):
                top[row, : len(answer.items)] = [index_of[item.item_id] for item in answer.items]
                scores[row] = answer.items[0].score if answer.items else 0.0
            advance(len(part))
    vectors = pipeline.encode(bundle.tokenizer(engine).tokenise(texts))
    few = list(texts[:INVARIANCE_TEXTS])
    together = pipeline.encode(bundle.tokenizer(engine).tokenise(few))
    singly = np.vstack([pipeline.encode(bundle.tokenizer(engine).tokenise([text])) for text in few])
    return Measured(vectors, top, scores, float(np.abs(together - singly).max()))


def parity(measured: Measured, reference: Measured, torch_vectors: NDArray[np.float32]) -> dict[str, float]:
    """Distances to the reference engine, and of the vectors to PyTorch's."""
    cosines = (measured.vectors * torch_vectors).sum(axis=1)
    shared = [
        len(set(mine) & set(theirs)) / CUTOFF for mine, theirs in zip(measured.top.tolist(), reference.top.tolist(), strict=True)
    ]
    return {
        "cosine_to_torch_mean": float(cosines.mean()),
        "cosine_to_torch_min": float(cosines.min()),
        "vector_difference_to_torch_max": float(np.abs(measured.vectors - torch_vectors).max()),
        "top10_overlap": float(np.mean(shared)),
        "score_difference_max": float(np.abs(measured.scores - reference.scores).max()),
        "batch_difference_max": measured.batch_difference,
    }


def quality(measured: Measured, queries: Pairs) -> dict[str, float]:
    """Ranking quality on the queries that were answered."""
    gains = ndcg(measured.top, queries.items)
    return {"texts": len(queries), "ndcg_at_10": float(gains.mean()), "recall_at_10": float((gains > 0).mean())}


def judge(measured: Mapping[str, float], reference: Mapping[str, float], distances: Mapping[str, float]) -> Verdict:
    """Hold an engine's quality and overlap against the budgets."""
    loss = 1.0 - measured["ndcg_at_10"] / reference["ndcg_at_10"] if reference["ndcg_at_10"] else 0.0
    overlap = distances["top10_overlap"]
    said = f"NDCG@10 {loss:+.2%} lost (accepted {MAX_NDCG_LOSS:.0%}), top-10 overlap {overlap:.3f} (accepted {MIN_OVERLAP})"
    good = loss <= MAX_NDCG_LOSS and overlap >= MIN_OVERLAP
    return Verdict("passed" if good else "rejected", said)
