"""The two python steps of the ensemble; which of them this is, the model's name says. See benchmarks/ensemble/__init__.py.

Beside this file lie, as beside that of ``recommend``: ``bertrec/``, ``bundle/`` and ``engine.txt``.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

import numpy as np  # noqa: E402
import triton_python_backend_utils as pb_utils  # noqa: E402

from bertrec.answers import Options  # noqa: E402
from bertrec.bundle import Bundle  # noqa: E402
from bertrec.encoding import Tensors  # noqa: E402
from bertrec.errors import InvalidInput  # noqa: E402
from bertrec.pipeline import Pipeline, Query  # noqa: E402
from bertrec.spelling import Correction  # noqa: E402
from bertrec.tensors import (  # noqa: E402
    ANSWER,
    ATTENTION_MASK,
    BOOST,
    INPUT_IDS,
    OPTIONS,
    RANKER,
    TEXT,
    TEXT_SIGNAL,
)
from bertrec.text import Tokens  # noqa: E402

Rows = dict[str, Any]
"""Output → its rows, (texts, …)."""


def _elsewhere(inputs: Tensors) -> Tensors:
    raise AssertionError("the ensemble runs the engines")


class TritonPythonModel:
    """What Triton's python backend calls."""

    def initialize(self, args: dict[str, str]) -> None:
        """Open the bundle."""
        bundle = Bundle.open(HERE / "bundle", engines=False)
        engine = (HERE / "engine.txt").read_text(encoding="utf-8").strip()
        pipeline = Pipeline(bundle, encoder=_elsewhere, ranker=_elsewhere, engine=engine)
        self._step: _Prepare | _Answer = (
            _Prepare(bundle, pipeline, engine) if args["model_name"].endswith("prepare") else _Answer(pipeline)
        )

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """One response for each request."""
        return self._step.execute(requests)


class _Prepare:
    """TEXT and OPTIONS → what the encoder reads, and the parts of the query vector that do not wait for it."""

    def __init__(self, bundle: Bundle, pipeline: Pipeline, engine: str) -> None:
        self._pipeline, self._signals, self._tokenizer = pipeline, bundle.signals(), bundle.tokenizer(engine)
        self._hidden = bundle.manifest.signals[TEXT_SIGNAL]

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """All that can be answered goes through as one batch, as in ``recommend``."""
        read = [self._read(request) for request in requests]
        try:
            return self._respond(read)
        except Exception as error:  # whatever it was, every request is answered and the server goes on
            return [_refuse(one if isinstance(one, Exception) else error) for one in read]

    def _respond(self, read: Sequence[list[Query] | Exception]) -> list[Any]:
        queries = [query for one in read if isinstance(one, list) for query in one]
        texts = [query.asked.text for query in queries]
        tokens = self._tokenizer.tokenise(texts)
        # The text's part of the query vector is the interest vector times one weight a text: of ones, it is that weight.
        sides = self._signals.query_vectors(
            texts,
            np.ones((len(texts), self._hidden), np.float32),
            [query.asked.history for query in queries],
            [query.options.popularity for query in queries],
        )  # (texts, query)
        responses, start = [], 0
        for one in read:
            if isinstance(one, Exception):
                responses.append(_refuse(one))
                continue
            rows = slice(start, start + len(one))
            responses.append(_respond(self._outputs(one, tokens[rows], sides[rows])))
            start += len(one)
        return responses

    def _read(self, request: Any) -> list[Query] | Exception:  # noqa: ANN401  # the backend's classes exist only inside Triton
        try:
            options = [Options.from_json(text) for text in _strings(request, OPTIONS.name)]
            if any(one.rerank for one in options):
                raise InvalidInput("rerank is true, and an ensemble cannot; ask the model recommend")
            return self._pipeline.queries(_strings(request, TEXT.name), options)
        except Exception as error:
            return error

    def _outputs(self, queries: Sequence[Query], tokens: Sequence[Tokens], sides: Any) -> Rows:  # noqa: ANN401
        length = self._tokenizer.bucket_length(max(len(one.ids) for one in tokens))
        padded = [one.ids + [0] * (length - len(one.ids)) for one in tokens]
        masks = [[1] * len(one.ids) + [0] * (length - len(one.ids)) for one in tokens]
        states = [
            {
                "text": query.asked.text if query.asked.written else "",
                "corrections": [vars(one) for one in query.corrections],
                "truncated": one.truncated,
            }
            for query, one in zip(queries, tokens, strict=True)
        ]
        return {
            INPUT_IDS.name: np.asarray(padded, np.int64),  # (texts, tokens)
            ATTENTION_MASK.name: np.asarray(masks, np.int64),
            "text_weight": np.ascontiguousarray(sides[:, :1]),  # (texts, 1)
            "other_sides": np.ascontiguousarray(sides[:, self._hidden :]),  # (texts, query − hidden)
            BOOST.name: np.stack([query.boost for query in queries]),  # (texts, items)
            "STATE": np.asarray([[json.dumps(one).encode()] for one in states], np.object_),
        }


class _Answer:
    """What the ranker gave → ANSWER."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        return [self._one(request) for request in requests]

    def _one(self, request: Any) -> Any:  # noqa: ANN401
        try:
            states = [json.loads(text) for text in _strings(request, "STATE")]
            given = [Options.from_json(text) for text in _strings(request, OPTIONS.name)]
            known = [dataclasses.replace(one, spelling=False) for one in given]  # corrected already
            queries = [
                dataclasses.replace(query, options=options, corrections=tuple(Correction(**one) for one in state["corrections"]))
                for query, options, state in zip(
                    self._pipeline.queries([state["text"] for state in states], known), given, states, strict=True
                )
            ]
            ranked = {one.name: pb_utils.get_input_tensor_by_name(request, one.name).as_numpy() for one in RANKER.outputs}
            answers = self._pipeline.explained(queries, ranked, [state["truncated"] for state in states])
            return _respond({ANSWER.name: np.asarray([[answer.to_json().encode()] for answer in answers], np.object_)})
        except Exception as error:  # a request must not hurt those beside it
            return _refuse(error)


def _strings(request: Any, name: str) -> list[str]:  # noqa: ANN401
    return [value.decode("utf-8") for value in pb_utils.get_input_tensor_by_name(request, name).as_numpy().reshape(-1)]


def _respond(rows: Rows) -> Any:  # noqa: ANN401
    return pb_utils.InferenceResponse([pb_utils.Tensor(name, values) for name, values in rows.items()])


def _refuse(error: Exception) -> Any:  # noqa: ANN401
    code = pb_utils.TritonError.INVALID_ARG if isinstance(error, InvalidInput) else pb_utils.TritonError.INTERNAL
    return pb_utils.InferenceResponse(error=pb_utils.TritonError(str(error)[:1000], code))
