"""What the server asks: one bundle, answered by the pipeline that Triton's ``recommend`` model runs too."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bertrec.answers import Options, Recommendation
from bertrec.bundle import Bundle
from bertrec.catalogue import values
from bertrec.engine import OnnxEngine
from bertrec.errors import InvalidInput
from bertrec.pipeline import Pipeline, Query
from bertrec.tensors import ENCODER, RANKER

MAX_THREADS = 256
MOST_VALUES = 100
"""Of an attribute, for the page to offer; one with more, such as a price, is not chosen from a list."""

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Asked:
    """One request: texts, and for each its options."""

    texts: tuple[str, ...]
    options: tuple[Options, ...]


Outcome = list[Recommendation] | Exception
"""A recommendation for each text of a request, or why there is none."""


class EdgeModel:
    """One bundle, loaded. Used by one thread at a time.

    engine: name of the encoder engine. fingerprint: the bundle's.
    joins: whether texts of several requests may share a batch: only where the engine's answer does not depend on its neighbours.
    attributes: attribute → value → number of items, for those that can be chosen from a list.
    """

    def __init__(self, bundle: str | Path, *, engine: str | None = None, threads: int = 0) -> None:
        """Verify the bundle and load it. engine: by default the bundle's choice. threads: per engine; 0 is one per core.

        Raises InvalidBundle, InvalidInput for threads or an engine that do not exist, MissingDependency without onnxruntime.
        """
        if isinstance(threads, bool) or not isinstance(threads, int) or not 0 <= threads <= MAX_THREADS:
            raise InvalidInput(f"threads is {threads!r}; accepted is 0, for one per core, to {MAX_THREADS}")
        opened = Bundle.open(bundle)
        self.engine = opened.default_engine if engine is None else engine
        self.fingerprint = opened.fingerprint
        self.joins = opened.engine(ENCODER.name, self.engine).batch_invariant
        encoder = OnnxEngine(opened.engine_path(ENCODER.name, self.engine), ENCODER, threads=threads)
        ranker = OnnxEngine(opened.engine_path(RANKER.name, opened.ranker_engine), RANKER, threads=threads)
        self._pipeline = Pipeline(opened, encoder=encoder.run, ranker=ranker.run, engine=self.engine)
        self.attributes = _attributes(opened)

    def answer(self, requests: Sequence[Asked]) -> list[Outcome]:
        """One outcome for each request: all that can be answered run as one batch, the others get an error of their own."""
        read = [self._read(request) for request in requests]
        queries = [query for one in read if not isinstance(one, Exception) for query in one]
        answers = iter(self._pipeline.answer(queries) if queries else ())
        return [one if isinstance(one, Exception) else [next(answers) for _ in one] for one in read]

    def _read(self, request: Asked) -> list[Query] | Exception:
        try:
            return self._pipeline.queries(request.texts, request.options)
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
