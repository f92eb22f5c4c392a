"""What one bundle can be asked: a service for each of ``recommend``, ``match``, ``classify`` and ``embed`` that it has.

Triton's python models, the edge in a process and the edge server all answer through these, so all give the same answers. Whoever
opens them says how models are run.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from bertrec.bundle import Bundle
from bertrec.catalogue import Catalogue
from bertrec.encoding import RunModel, TextEncoder
from bertrec.engine import OnnxEngine
from bertrec.errors import InvalidInput
from bertrec.labels import Labels
from bertrec.pipeline import Pipeline
from bertrec.questions import NEEDED, Classification, Classifying, Embedding, Match, Matches, Pairing, remedy
from bertrec.reranking import PairReader
from bertrec.session_options import SessionOptions
from bertrec.tensors import (
    CLASSIFY,
    EMBED,
    ENCODER,
    HEADS,
    INTEREST_VECTOR,
    MATCH,
    MATCHER,
    MAX_BATCH_SIZE,
    PROBABILITIES,
    QUESTIONS,
    RANKER,
    RECOMMEND,
    ModelSpec,
)
from bertrec.text import clean

Run = Callable[[ModelSpec], RunModel]
"""Gives the function that runs one of the models encoder, ranker, matcher and heads."""


class Service(Protocol):
    """Answers one kind of question."""

    def queries(self, texts: Sequence[object], questions: Sequence[Any]) -> list[Any]:
        """What is asked, checked: cheap. Raises InvalidInput for what cannot be answered, naming a text by its position."""

    def answer(self, queries: Sequence[Any]) -> list[Any]:
        """One answer for each query."""


@dataclass(frozen=True)
class MatchQuery:
    """One cleaned text and the catalogue indices of the items asked about."""

    text: str
    items: tuple[int, ...]


@dataclass(frozen=True)
class MatchService:
    """Answers Pairing by Matches."""

    pairs: PairReader
    catalogue: Catalogue
    bundle: str

    def queries(self, texts: Sequence[object], questions: Sequence[Pairing]) -> list[MatchQuery]:
        """Raises InvalidInput, naming them, for item ids that are not in the catalogue."""
        found = []
        for position, (text, question) in enumerate(zip(texts, questions, strict=True)):
            if unknown := [item for item in question.items if not self.catalogue.indices([item])]:
                raise InvalidInput(f"items names {', '.join(map(repr, unknown))}, which the catalogue does not have")
            found.append(MatchQuery(clean(text, position), self.catalogue.indices(question.items)))
        return found

    def answer(self, queries: Sequence[MatchQuery]) -> list[Matches]:
        """See :class:`Service`."""
        texts = self.pairs.tokenise([query.text for query in queries])
        fits = self.pairs.fits(texts, [query.items for query in queries])
        answers = []
        for query, text, chances in zip(queries, texts, fits, strict=True):
            items = [self.catalogue.items[index] for index in query.items]
            matches = tuple(Match(one.item_id, one.title, chance) for one, chance in zip(items, chances.tolist(), strict=True))
            answers.append(Matches(matches, text.truncated, self.pairs.engine, self.bundle))
        return answers


@dataclass(frozen=True)
class EmbedService:
    """Answers Embedding by (hidden,) float32 of length 1."""

    encoder: TextEncoder

    def queries(self, texts: Sequence[object], questions: Sequence[Embedding]) -> list[str]:
        """See :class:`Service`."""
        return [clean(text, position) for position, text in enumerate(texts)]

    def answer(self, queries: Sequence[str]) -> list[NDArray[np.float32]]:
        """See :class:`Service`."""
        return list(self.encoder.encode(self.encoder.tokenise(queries)))


@dataclass(frozen=True)
class ClassifyService:
    """Answers Classifying by Classification. pairs: None where no matcher says who recommends."""

    encoder: TextEncoder
    heads: RunModel
    labels: Labels
    pairs: PairReader | None
    bundle: str

    def queries(self, texts: Sequence[object], questions: Sequence[Classifying]) -> list[str]:
        """See :class:`Service`."""
        return [clean(text, position) for position, text in enumerate(texts)]

    def answer(self, queries: Sequence[str]) -> list[Classification]:
        """See :class:`Service`."""
        tokens = self.encoder.tokenise(queries)
        vectors = self.encoder.encode(tokens)  # (texts, hidden)
        rows = [self.heads({INTEREST_VECTOR.name: part})[PROBABILITIES.name] for part in _batches(vectors)]
        recommends: list[float | None] = [None] * len(queries)
        if self.pairs is not None:
            recommends = [*self.pairs.recommending(self.pairs.tokenise(queries)).tolist()]
        return [
            Classification(labels, chance, text.truncated, self.encoder.engine, self.bundle)
            for labels, chance, text in zip(self.labels.split(np.concatenate(rows)), recommends, tokens, strict=True)
        ]


def _batches(vectors: NDArray[np.float32]) -> list[NDArray[np.float32]]:
    return [vectors[start : start + MAX_BATCH_SIZE] for start in range(0, len(vectors), MAX_BATCH_SIZE)]


def can_answer(bundle: Bundle) -> tuple[ModelSpec, ...]:
    """Those of ``QUESTIONS`` that the bundle can be asked."""
    lacking = {name for name, engine in ((MATCH.name, bundle.matcher_engine), (CLASSIFY.name, bundle.heads_engine)) if not engine}
    return tuple(spec for spec in QUESTIONS if spec.name not in lacking)


def open_service(bundle: Bundle, spec: ModelSpec, *, run: Run, engine: str) -> Service:
    """The service for one of :func:`can_answer`. ``engine`` is the encoder engine's name, for the answers.

    Raises as :class:`Pipeline` does, and InvalidBundle where what describes the matcher or the heads is missing.
    """
    return _opened(bundle, (spec,), run=run, engine=engine)[spec.name]


class Engines:
    """The bundle's ONNX files, run in this process; each is loaded when it is first asked for."""

    def __init__(self, bundle: Bundle, *, engine: str, session: SessionOptions | None = None) -> None:
        """engine: the encoder's."""
        self.bundle, self.engine = bundle, engine
        self._session = session
        self._names = {ENCODER.name: engine, RANKER.name: bundle.ranker_engine}
        self._names |= {MATCHER.name: bundle.matcher_engine or "", HEADS.name: bundle.heads_engine or ""}
        self._loaded: dict[str, OnnxEngine] = {}

    @property
    def providers(self) -> dict[str, str]:
        """Model → the execution provider that runs it, of those that are loaded."""
        return {name: engine.provider for name, engine in self._loaded.items()}

    def __call__(self, spec: ModelSpec) -> RunModel:
        """What runs one of encoder, ranker, matcher and heads. Raises as :class:`OnnxEngine` does."""
        if spec.name not in self._loaded:
            path = self.bundle.engine_path(spec.name, self._names[spec.name])
            self._loaded[spec.name] = OnnxEngine(path, spec, self._session)
        return self._loaded[spec.name].run


def open_services(bundle: Bundle, *, engine: str, session: SessionOptions | None = None) -> dict[str, Service]:
    """Model name → service, for all that the bundle can be asked; its engines run in this process.

    Raises InvalidBundle, InvalidInput for an engine that does not exist, MissingDependency without onnxruntime.
    """
    return serve_with(Engines(bundle, engine=engine, session=session))


def serve_with(engines: Engines) -> dict[str, Service]:
    """The same by engines that the caller keeps, to know what runs them."""
    return _opened(engines.bundle, can_answer(engines.bundle), run=engines, engine=engines.engine)


def _opened(bundle: Bundle, wanted: Sequence[ModelSpec], *, run: Run, engine: str) -> dict[str, Service]:
    """Each service opens only what it reads: ``embed`` neither catalogue nor matcher, ``classify`` no catalogue."""
    catalogue = cache(bundle.catalogue)

    @cache
    def pairs() -> PairReader | None:
        """The reader of pairs, which two services share; None where the bundle has no matcher."""
        return PairReader(bundle, run(MATCHER), catalogue) if bundle.matcher_engine and bundle.matching() is not None else None

    services: dict[str, Service] = {}
    for spec in wanted:
        if spec is RECOMMEND:
            services[spec.name] = Pipeline(bundle, encoder=run(ENCODER), ranker=run(RANKER), engine=engine, pairs=pairs())
        elif spec is EMBED:
            services[spec.name] = EmbedService(TextEncoder(bundle, run(ENCODER), engine))
        elif spec is MATCH and (reader := pairs()) is not None:
            services[spec.name] = MatchService(reader, catalogue(), bundle.fingerprint)
        elif spec is CLASSIFY and (labels := bundle.labels()) is not None:
            encoder = TextEncoder(bundle, run(ENCODER), engine)
            reader = pairs()
            reading = reader if reader is not None and reader.recommends else None
            services[spec.name] = ClassifyService(encoder, run(HEADS), labels, reading, bundle.fingerprint)
    return services


def check_asked(services: Mapping[str, Service], spec: ModelSpec, folder: str | Path) -> Service:
    """The service for a question. Raises InvalidInput, saying what to do, where the bundle has none."""
    if spec.name in services:
        return services[spec.name]
    raise InvalidInput(
        f"{spec.name} needs a bundle with {NEEDED[spec.name]}, and {folder} has none; it can be asked to "
        f"{', '.join(services)}. {remedy(spec)}"
    )
