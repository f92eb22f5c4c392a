"""What the server asks: one bundle, answered by the services that Triton's python models run too."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bertrec.bundle import Bundle
from bertrec.catalogue import values
from bertrec.errors import InvalidInput
from bertrec.questions import Question
from bertrec.services import Engines, serve_with
from bertrec.session_options import SessionOptions
from bertrec.tensors import ENCODER, ModelSpec

MOST_VALUES = 100
"""Of an attribute, for the page to offer; one with more, such as a price, is not chosen from a list."""

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Asked:
    """One request: texts, and for each what is asked of it; all questions of a request are for one model."""

    texts: tuple[str, ...]
    questions: tuple[Question, ...]

    @property
    def model(self) -> ModelSpec:
        """The model that is asked."""
        return self.questions[0].model


Outcome = list[Any] | Exception
"""An answer for each text of a request, or why there is none."""


class EdgeModel:
    """One bundle, loaded. Used by one thread at a time.

    engine: name of the encoder engine. providers: model → the execution provider that runs it. models: names of those that it can
    be asked. fingerprint: the bundle's.
    joins: whether texts of several requests may share a batch: only where the engine's answer does not depend on its neighbours.
    attributes: attribute → value → number of items, for those that can be chosen from a list.
    """

    def __init__(self, bundle: str | Path, *, engine: str | None = None, session: SessionOptions | None = None) -> None:
        """Verify the bundle and load it. engine: by default the bundle's choice.

        Raises InvalidBundle, InvalidInput for an engine that does not exist, and MissingDependency without onnxruntime.
        """
        opened = Bundle.open(bundle)
        self.engine = opened.default_engine if engine is None else engine
        self.fingerprint = opened.fingerprint
        self.joins = opened.engine(ENCODER.name, self.engine).batch_invariant
        engines = Engines(opened, engine=self.engine, session=session)
        self._services = serve_with(engines)
        self.providers = engines.providers
        self.models = tuple(self._services)
        self.attributes = _attributes(opened)

    def answer(self, requests: Sequence[Asked]) -> list[Outcome]:
        """One outcome for each request: all good ones to one model run as one batch, the others get an error of their own."""
        read = [self._read(request) for request in requests]
        answers = {}
        for name, service in self._services.items():
            queries = [
                query
                for request, one in zip(requests, read, strict=True)
                if request.model.name == name and not isinstance(one, Exception)
                for query in one
            ]
            answers[name] = iter(service.answer(queries) if queries else ())
        return [
            one if isinstance(one, Exception) else [next(answers[request.model.name]) for _ in one]
            for request, one in zip(requests, read, strict=True)
        ]

    def _read(self, request: Asked) -> list[Any] | Exception:
        try:
            return self._services[request.model.name].queries(request.texts, request.questions)
        except InvalidInput as error:
            return error
        except Exception as error:  # a request that nobody thought of must not hurt those beside it
            _logger.exception("a request could not be read")
            return error


def _attributes(bundle: Bundle) -> dict[str, dict[str, int]]:
    counts: dict[str, Counter[str]] = {}
    for item in bundle.catalogue().items:
        for name, joined in item.attributes.items():
            counts.setdefault(name, Counter()).update(values(joined))
    return {name: dict(sorted(found.items())) for name, found in sorted(counts.items()) if len(found) <= MOST_VALUES}
