"""Asks a bundle's matcher: which items fit a text, who recommends what he writes about, and in which order candidates belong."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from bertrec.bundle import Bundle
from bertrec.catalogue import Catalogue
from bertrec.encoding import RunModel, Tensors
from bertrec.matching import log_odds, probabilities, tokenised_items
from bertrec.tensors import ITEM_INDEX, MATCHER, SCORE, TERMS
from bertrec.text import Tokens


class PairReader:
    """The matcher of one bundle.

    engine: its name. top, weight, recommends: see :class:`bertrec.matching.Matching`.
    """

    def __init__(self, bundle: Bundle, run: RunModel, catalogue: Callable[[], Catalogue]) -> None:
        """``run`` runs the bundle's ``matcher_engine``. The bundle must have one: see :func:`bertrec.services.open_services`.

        catalogue: reads it, when items are first asked about; who recommends is said without.
        """
        matching, engine = bundle.matching(), bundle.matcher_engine
        assert matching is not None and engine is not None
        self.engine = engine
        self.top, self.weight, self.recommends = matching.top, matching.weight, matching.recommends
        self._item_tokens = matching.item_tokens
        self._tokenizer = bundle.tokenizer(engine, model=MATCHER.name)
        self._catalogue = catalogue
        self._run = run

    @cached_property
    def _items(self) -> list[list[int]]:
        """The token ids of each item. Made when they are first asked for: a bundle opens faster than its catalogue is read."""
        return tokenised_items(self._catalogue(), self._tokenizer, self._item_tokens)

    def tokenise(self, texts: Sequence[str]) -> list[Tokens]:
        """The texts as the matcher reads them."""
        return self._tokenizer.tokenise(texts)

    def fits(self, texts: Sequence[Tokens], items: Sequence[Sequence[int]]) -> list[NDArray[np.float32]]:
        """For each text, (its items,) float32: the probability that it fits, for each of the catalogue indices."""
        pairs = [(text, self._items[item]) for text, wanted in zip(texts, items, strict=True) for item in wanted]
        found = probabilities(self._run, [text for text, _ in pairs], [item for _, item in pairs])  # (pairs,)
        return np.split(found, np.cumsum([len(wanted) for wanted in items])[:-1])

    def recommending(self, texts: Sequence[Tokens]) -> NDArray[np.float32]:
        """(texts,) float32: the probability that the writer recommends what the text is about."""
        return probabilities(self._run, texts, [[] for _ in texts])

    def rerank(self, texts: Sequence[str], ranked: Sequence[Tensors]) -> list[Tensors]:
        """The ranker's candidates for each text, the best ``top`` of them reordered; those below keep their places.

        To the score of each is added ``weight`` · the log-odds of the matcher, which is one more column of the terms.
        Masked candidates, whose score is −inf, are left where they are.
        """
        best = [np.flatnonzero(np.isfinite(one[SCORE.name]))[: self.top] for one in ranked]  # each (≤ top,)
        items = [one[ITEM_INDEX.name][rows].tolist() for one, rows in zip(ranked, best, strict=True)]
        fits = self.fits(self.tokenise(texts), items)
        return [_reranked(*one, weight=self.weight) for one in zip(ranked, best, fits, strict=True)]


def _reranked(ranked: Tensors, best: NDArray[np.int64], fits: NDArray[np.float32], *, weight: float) -> Tensors:
    """best: (b,) the rows that were read with the text. fits: (b,)."""
    added = np.zeros(len(ranked[SCORE.name]), np.float32)  # (candidates,)
    added[best] = np.float32(weight) * log_odds(fits)
    scores = ranked[SCORE.name] + added
    order = np.arange(len(scores))
    order[best] = best[np.argsort(-scores[best], kind="stable")]
    terms = np.concatenate([ranked[TERMS.name], added[:, None]], axis=1)  # (candidates, signals + 1)
    return {ITEM_INDEX.name: ranked[ITEM_INDEX.name][order], SCORE.name: scores[order], TERMS.name: terms[order]}
