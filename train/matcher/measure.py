"""What a matcher tells, measured: which item fits, what a writer thinks, and what reranking gains."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import accuracy_score, f1_score, roc_auc_score

from bertrec.matching import log_odds
from train.bootstrap import bootstrap
from train.examples import UNSEEN
from train.matcher.lessons import Lessons, answers
from train.matcher.network import Matcher
from train.metrics import CUTOFF, exposure_metrics, ndcg

Told = dict[str, float]
WEIGHTS = (0.0, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5)
"""What the matcher's log-odds may count beside the recommender's score, in nats as they are."""


def tell_apart(matcher: Matcher, lessons: Lessons, *, seed: int, precision: str) -> Told:
    """How well right items are told from wrong ones that the run recommends: one pair of each for every text.

    Empty without texts. ``ranked_right``: share of texts whose right item has the higher probability.
    """
    lessons = lessons.take(np.flatnonzero(lessons.items != UNSEEN))
    if not len(lessons):
        return {}
    wrong = lessons.wrong(np.random.default_rng([seed, 10]), np.arange(len(lessons)))
    items = [lessons.item_ids[item] for item in (*lessons.items.tolist(), *wrong.tolist())]
    found = answers(matcher, [*lessons.tokens, *lessons.tokens], items, "reading pairs", precision=precision)
    labels = np.repeat([1, 0], len(lessons))
    return {**told(labels, found), "ranked_right": float((found[: len(lessons)] > found[len(lessons) :]).mean())}


def verdicts(matcher: Matcher, lessons: Lessons, *, precision: str) -> Told:
    """How well the writers' verdicts are told from their texts alone; empty where none, or all, recommend."""
    lessons = lessons.take(lessons.judged)
    if len(set(lessons.verdicts.tolist())) < 2:
        return {}
    found = answers(matcher, lessons.tokens, [[]] * len(lessons), "reading verdicts", precision=precision)
    return told(lessons.verdicts, found)


def told(labels: NDArray[np.int64], probability: NDArray[np.float32]) -> Told:
    """Accuracy and F1 at a probability of one half, AUC, the share of the commoner label, the number of texts."""
    guessed = probability > 0.5
    share = float(labels.mean())
    return {
        "texts": float(len(labels)),
        "majority": max(share, 1.0 - share),
        "accuracy": float(accuracy_score(labels, guessed)),
        "f1": float(f1_score(labels, guessed, zero_division=0)),
        "f1_of_no": float(f1_score(1 - labels, ~guessed, zero_division=0)),
        "auc": float(roc_auc_score(labels, probability)),
    }


def fit_odds(matcher: Matcher, lessons: Lessons, *, precision: str) -> NDArray[np.float32]:
    """(texts, top) float32: the matcher's log-odds for every candidate, −∞ where there is none."""
    rows, places = np.nonzero(lessons.candidates != UNSEEN)
    texts = [lessons.tokens[row] for row in rows.tolist()]
    items = [lessons.item_ids[item] for item in lessons.candidates[rows, places].tolist()]
    odds = np.full(lessons.candidates.shape, -np.inf, np.float32)
    odds[rows, places] = log_odds(answers(matcher, texts, items, "reading candidates", precision=precision))
    return odds


def choose_weight(matcher: Matcher, lessons: Lessons, *, precision: str) -> float:
    """The weight by which reranking the lessons' candidates gives the highest NDCG@10; the smallest of equals."""
    if not len(lessons):
        return 0.0
    odds = fit_odds(matcher, lessons, precision=precision)
    gained = [float(ndcg(reordered(lessons, odds, weight), lessons.items).mean()) for weight in WEIGHTS]
    return WEIGHTS[int(np.argmax(gained))]


def reordered(lessons: Lessons, odds: NDArray[np.float32], weight: float) -> NDArray[np.int64]:
    """(texts, 10) the candidates by score + weight · log-odds, ties as they were."""
    scores = lessons.scores + weight * odds if weight else lessons.scores
    order = np.argsort(-scores, axis=1, kind="stable")[:, :CUTOFF]
    return np.take_along_axis(lessons.candidates, order, axis=1)


def reranked(matcher: Matcher, lessons: Lessons, *, weight: float, items: int, precision: str) -> dict[str, Any]:
    """What reranking gains and moves: NDCG@10 and exposure without and with it, by the matcher alone, and what it could reach.

    difference: of NDCG@10 with its paired 95% interval. Empty without texts.
    """
    if not len(lessons):
        return {}
    odds = fit_odds(matcher, lessons, precision=precision)
    before, after = reordered(lessons, odds, 0.0), reordered(lessons, odds, weight)
    alone = np.take_along_axis(lessons.candidates, np.argsort(-odds, axis=1, kind="stable")[:, :CUTOFF], axis=1)
    gains = [ndcg(top, lessons.items) for top in (before, after, alone)]
    (difference,) = bootstrap((gains[1] - gains[0])[None, :], seed=0)
    return {
        "texts": len(lessons),
        "weight": weight,
        "candidate_recall": float((lessons.candidates == lessons.items[:, None]).any(axis=1).mean()),
        "ndcg_at_10": {"recommender": _mean(gains[0]), "reranked": _mean(gains[1]), "matcher alone": _mean(gains[2])},
        "difference": [difference.value, difference.low, difference.high],
        "exposure": {"recommender": exposure_metrics(before, items), "reranked": exposure_metrics(after, items)},
    }


def _mean(values: NDArray[np.float64]) -> float:
    return float(values.mean())
