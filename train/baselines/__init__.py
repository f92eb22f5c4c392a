"""What a recommender must beat, under the same protocol: each a few lines over a library.

A baseline is fitted on the training interactions alone, chooses what it has to choose on validation, and scores every item of
the catalogue for every query.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from train.baselines.collaborative import fit_als, fit_item_knn
from train.baselines.contract import Context, PlainSettings, Ranker
from train.baselines.logistic import fit_logistic_regression
from train.baselines.plain import PlainRecipe, fit_plain_recipe
from train.baselines.popular import fit_popularity
from train.baselines.words import fit_bm25, fit_knn, fit_tfidf_centroid
from train.baselines.zero_shot import fit_zero_shot

__all__ = ["BASELINES", "CHEAP", "COLLABORATIVE", "Context", "PlainRecipe", "PlainSettings", "Ranker"]

BASELINES: Mapping[str, Callable[[Context], Ranker]] = {
    "popularity": fit_popularity,
    "bm25": fit_bm25,
    "tfidf": fit_tfidf_centroid,
    "knn": fit_knn,
    "logreg": fit_logistic_regression,
    "zero-shot": fit_zero_shot,
    "als": fit_als,
    "itemknn": fit_item_knn,
    "plain-recipe": fit_plain_recipe,
}
"""Name → what fits the baseline on ``context.examples.train`` and returns its ranker."""
CHEAP = ("popularity", "bm25", "tfidf", "knn", "zero-shot")
"""Seconds to a minute each, on any data. ``logreg`` takes minutes, ``plain-recipe`` hours."""
COLLABORATIVE = ("als", "itemknn")
"""They read histories and no words: InvalidData where training interactions name no users."""
