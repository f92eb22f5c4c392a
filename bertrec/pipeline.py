"""From texts to recommendations. The one road, taken by Triton's ``recommend`` model and by the edge alike.

What differs between them is only who runs the two engines, so they hand in two functions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bertrec.answers import Options, RankedItem, Reason, Recommendation
from bertrec.bundle import Bundle
from bertrec.diversity import diversified
from bertrec.encoding import RunModel, Tensors, TextEncoder
from bertrec.errors import InvalidBundle, InvalidInput
from bertrec.history import profile
from bertrec.reasons import Asked, Reasons
from bertrec.reranking import PairReader
from bertrec.rules import RULES_FILE, RuleBook, Wish
from bertrec.spelling import Correction
from bertrec.tensors import (
    BOOST,
    ITEM_INDEX,
    MATCHER,
    MAX_BATCH_SIZE,
    QUERY_VECTOR,
    RULES,
    SCORE,
    TERMS,
    TEXT_SIGNAL,
)
from bertrec.text import clean

__all__ = ["Pipeline", "Query", "RunModel", "Tensors"]


@dataclass(frozen=True)
class Query:
    """One text that can be answered, and how."""

    asked: Asked  # its text is cleaned and corrected
    options: Options
    corrections: tuple[Correction, ...]
    boost: NDArray[np.float32]  # (items,) what is added to the scores: −inf where an item is masked


class Pipeline:
    """Answers texts from one bundle."""

    def __init__(
        self, bundle: Bundle, *, encoder: RunModel, ranker: RunModel, engine: str, pairs: PairReader | None = None
    ) -> None:
        """``encoder`` and ``ranker`` run the bundle's engines; ``engine`` is the encoder engine's name, for the answers.

        ``pairs`` asks its matcher; without it nothing can be reranked.
        Raises InvalidBundle for rules that do not fit the catalogue, MissingDependency where the bundle corrects the spelling
        and symspellpy is not installed.
        """
        self._bundle = bundle
        self._encoder = TextEncoder(bundle, encoder, engine)
        self._ranker = ranker
        self._pairs = pairs
        self._engine = engine
        self._spelling = bundle.spelling()
        self._signals = bundle.signals()
        self._terms = (*bundle.manifest.signals, RULES)
        self._confidence = bundle.confidence
        self._catalogue = bundle.catalogue()
        self._item_text = bundle.item_text()
        self._reasons = Reasons(self._signals, self._catalogue, bundle.item_lexical())
        self._book = self._checked(bundle.rules())
        self._never = list(self._catalogue.indices(self._book.blocklist))

    def _checked(self, book: RuleBook) -> RuleBook:
        try:
            for rule in book.rules:
                rule.check(self._catalogue, self._signals.graph)
        except InvalidInput as error:
            raise InvalidBundle(f"{self._bundle.folder / RULES_FILE}: {error}. Correct it and export again") from None
        return book

    def recommend(self, texts: Sequence[str], options: Sequence[Options]) -> list[Recommendation]:
        """One recommendation for each text and its options.

        Raises InvalidInput for a text or an option that cannot be answered; then nothing of the list was computed.
        """
        return self.answer(self.queries(texts, options))

    def queries(self, texts: Sequence[object], options: Sequence[Options]) -> list[Query]:
        """What is asked, checked: the part that can fail on bad input, cheap enough to do before requests are joined.

        A text that is blank is written from the titles of the history, where there is one. Raises InvalidInput, naming the text
        by its position, for a text or an option that cannot be answered.
        """
        return [self._query(text, position, wanted) for position, (text, wanted) in enumerate(zip(texts, options, strict=True))]

    def _query(self, given: object, position: int, options: Options) -> Query:
        if options.k > self._bundle.manifest.max_k:
            raise InvalidInput(f"k is {options.k}; accepted is 1 to {self._bundle.manifest.max_k}")
        if options.rerank and self._pairs is None:
            raise InvalidInput("rerank needs a bundle with a matcher, and this one has none; ask without rerank")
        history = self._catalogue.indices(options.history)
        written = not (history and isinstance(given, str) and not given.strip())
        text = clean(given if written else profile([self._catalogue.items[item].title for item in history]), position)
        corrections: tuple[Correction, ...] = ()
        if written and options.spelling and self._spelling is not None:
            text, corrections = self._spelling.correct(text)
        boosts = self._boosts(text if written else "", options)
        allowed = self._catalogue.allowed(options.filters, options.exclude)  # (items,)
        allowed[[*history, *self._never]] = False
        boost = sum(boosts.values(), start=np.where(allowed, np.float32(0), -np.float32(np.inf)))
        return Query(Asked(text, written, history, boosts), options, corrections, boost)

    def _boosts(self, text: str, options: Options) -> dict[str, NDArray[np.float32]]:
        """Name of each rule that fires, the bundle's first → (items,) float32 what it adds to the scores."""
        for rule in options.parsed_rules:
            rule.check(self._catalogue, self._signals.graph)
        rules = (*self._book.rules, *options.parsed_rules)
        if not rules:
            return {}
        wish = Wish.read(text, self._signals.graph)
        boosts: dict[str, NDArray[np.float32]] = {}
        for rule in rules:
            if (boost := rule.boost(wish, self._catalogue)) is not None:
                boosts[rule.name] = boosts[rule.name] + boost if rule.name in boosts else boost
        return boosts

    def answer(self, queries: Sequence[Query]) -> list[Recommendation]:
        """One recommendation for each query."""
        texts = [query.asked.text for query in queries]
        tokens = self._encoder.tokenise(texts)
        vectors = self._signals.query_vectors(  # (texts, query)
            texts,
            self._encoder.encode(tokens),
            [query.asked.history for query in queries],
            [query.options.popularity for query in queries],
        )
        answers: list[Recommendation] = []
        for start in range(0, len(queries), MAX_BATCH_SIZE):
            rows = slice(start, start + MAX_BATCH_SIZE)
            boost = np.stack([query.boost for query in queries[rows]])  # (batch, items)
            ranked = self._ranker({QUERY_VECTOR.name: vectors[rows], BOOST.name: boost})
            answers += self.explained(queries[rows], ranked, [text.truncated for text in tokens[rows]], vectors[rows])
        return answers

    def explained(
        self,
        queries: Sequence[Query],
        ranked: Tensors,
        truncated: Sequence[bool],
        vectors: NDArray[np.float32] | None = None,
    ) -> list[Recommendation]:
        """The last step: what the ranker gave for the queries, row by row, as items with reasons.

        truncated: whether each text was longer than the encoder reads. vectors: (queries, query) what the ranker was given; no
        answer says whether it is sure without them.
        """
        candidates: list[Tensors] = [{name: values[row] for name, values in ranked.items()} for row in range(len(queries))]
        sure: list[bool | None] = [None] * len(queries)
        if vectors is not None:
            sure = [self._confident(one, vector) for one, vector in zip(candidates, vectors, strict=True)]
        candidates = self._reranked(queries, candidates)
        return [
            self._recommendation(query, self._items(query, found), cut, confident)
            for query, found, cut, confident in zip(queries, candidates, truncated, sure, strict=True)
        ]

    def _recommendation(
        self, query: Query, items: tuple[RankedItem, ...], truncated: bool, confident: bool | None
    ) -> Recommendation:
        rules = tuple(query.asked.boosts)
        return Recommendation(items, truncated, self._engine, self._bundle.fingerprint, rules, query.corrections, confident)

    def _confident(self, ranked: Tensors, vector: NDArray[np.float32]) -> bool | None:
        """Whether the best of one query's candidates is sure, by their scores without rules; vector: (query,) the query's."""
        if self._confidence is None:
            return None
        kept = np.isfinite(ranked[SCORE.name])  # (candidates,)
        terms = ranked[TERMS.name][kept]  # (candidates, signals + 1), the rules' last
        weight = float(np.linalg.norm(vector[: self._bundle.manifest.signals[TEXT_SIGNAL]]))  # an interest vector has length 1
        text = terms[:, self._terms.index(TEXT_SIGNAL)] / np.float32(weight or 1.0)
        return self._confidence.confident(ranked[SCORE.name][kept] - terms[:, -1], text)

    def _reranked(self, queries: Sequence[Query], ranked: list[Tensors]) -> list[Tensors]:
        """The candidates of each query, those reranked whose options ask for it."""
        if self._pairs is None or not self._pairs.weight:
            return ranked
        chosen = [row for row, query in enumerate(queries) if query.options.rerank]
        if chosen:
            texts = [queries[row].asked.text for row in chosen]
            for row, better in zip(chosen, self._pairs.rerank(texts, [ranked[row] for row in chosen]), strict=True):
                ranked[row] = better
        return ranked

    def _items(self, query: Query, ranked: Tensors) -> tuple[RankedItem, ...]:
        """The ``k`` best of the ranker's candidates for one query, as items with reasons; masked rows are dropped."""
        rows = self._rows(query.options, ranked)
        indices = ranked[ITEM_INDEX.name][rows].tolist()
        scores = ranked[SCORE.name][rows].tolist()
        names = (*self._terms, MATCHER.name)[: ranked[TERMS.name].shape[1]]  # the matcher's is the last, of reranked ones alone
        reasons: Sequence[tuple[Reason, ...]] = [()] * len(indices)
        if query.options.explain:
            reasons = self._reasons.of(query.asked, indices, names, ranked[TERMS.name][rows])
        items = [self._catalogue.items[index] for index in indices]
        return tuple(
            RankedItem(item.item_id, score, item.title, why, item.attributes)
            for item, score, why in zip(items, scores, reasons, strict=True)
        )

    def _rows(self, options: Options, ranked: Tensors) -> NDArray[np.int64]:
        """The candidates to show, in their order: the best, or the best that differ. Masked ones come last, and are dropped."""
        scores = ranked[SCORE.name]  # (candidates,)
        kept = np.flatnonzero(np.isfinite(scores))
        if not options.diversity:
            return kept[: options.k]
        vectors = self._item_text[ranked[ITEM_INDEX.name][kept]]  # (candidates, hidden)
        return kept[diversified(scores[kept], vectors, diversity=options.diversity, k=options.k)]
