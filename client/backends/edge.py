"""The edge: answers in this process from a bundle, on the CPU, with no server."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bertrec.bundle import Bundle
from bertrec.questions import Question
from bertrec.services import check_asked, open_services
from bertrec.session_options import SessionOptions, usable_cores

from . import NO_HEADERS
from .turns import Turns


class EdgeBackend:
    """Runs the very services that Triton's python models run."""

    def __init__(self, bundle: str | Path, *, engine: str | None = None, session: SessionOptions | None = None) -> None:
        """Verify the bundle and load its engines, so that a fallback that cannot answer is known before it is needed.

        engine: name of the encoder engine, by default the bundle's choice.
        Raises InvalidBundle, InvalidInput for an engine that does not exist, MissingDependency without onnxruntime.
        """
        opened = Bundle.open(bundle)
        engine = opened.default_engine if engine is None else engine
        self._bundle = bundle
        self._services = open_services(opened, engine=engine, session=session)
        # More at once are no faster: they take turns for Python's lock, 5 ms each, and a caller whose deadline ends stands behind
        # all of them. Measured with 16 threads and a server that hangs: 20 to 240 ms too late without the bound, 3 to 30 with it.
        self._turns = Turns(len(usable_cores()))

    def answer(
        self, texts: Sequence[str], question: Question, *, timeout_s: float, headers: Mapping[str, str] = NO_HEADERS
    ) -> list[Any]:
        """See :class:`Backend`. Computing is not cut short: ``timeout_s`` bounds waiting, and here nobody is waited for."""
        service = check_asked(self._services, question.model, self._bundle)
        with self._turns:
            return service.answer(service.queries(texts, [question] * len(texts)))

    def close(self) -> None:
        """Nothing is held but memory, which goes with the object."""
