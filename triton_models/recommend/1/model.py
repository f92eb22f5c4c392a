"""Triton's ``recommend``: texts and options in, ranked items with reasons out.

Business logic scripting: it tokenises, asks the models ``encoder`` and ``ranker`` of the same server and version, and turns
indices into items. Everything but the asking is :mod:`bertrec.pipeline`, the very code that the edge runs.

Beside this file lie, written by ``python -m serving assemble``: ``bertrec/`` (the package), ``bundle/`` (a bundle without its
engine files) and ``engine.txt`` (the name of the encoder engine). Runs on Python 3.10 and newer.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
# Before anything that is installed: each version of the model brings the package that its bundle was assembled with.
sys.path.insert(0, str(HERE))

import numpy as np  # noqa: E402
import triton_python_backend_utils as pb_utils  # noqa: E402

from bertrec.answers import Options, Recommendation  # noqa: E402
from bertrec.bundle import Bundle  # noqa: E402
from bertrec.errors import InvalidAnswer, InvalidInput, Unavailable  # noqa: E402
from bertrec.pipeline import Pipeline, Query, RunModel, Tensors  # noqa: E402
from bertrec.tensors import ANSWER, ENCODER, OPTIONS, RANKER, TEXT, ModelSpec  # noqa: E402

MOST_CHARACTERS = 1000
"""Of an error's message, which may quote what was sent; gRPC refuses to carry more than 8 KiB of it."""


@dataclass(frozen=True)
class Asked:
    """One request of the batch: its queries, or why it has none."""

    queries: list[Query]
    error: Exception | None = None


class TritonPythonModel:
    """What Triton's python backend calls."""

    def initialize(self, args: dict[str, str]) -> None:
        """Open the bundle. The version of the engines to ask is this model's own, so that a rolling update never mixes two."""
        version = int(args["model_version"])
        self._pipeline = Pipeline(
            Bundle.open(HERE / "bundle", engines=False),
            encoder=_model(ENCODER, version),
            ranker=_model(RANKER, version),
            engine=(HERE / "engine.txt").read_text(encoding="utf-8").strip(),
        )

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """One response for each request: all that can be answered run as one batch, the others get an error of their own."""
        asked = [self._read(request) for request in requests]
        try:
            answers = iter(self._pipeline.answer([query for one in asked for query in one.queries]))
        except Exception as error:  # whatever it was, every request is answered and the server goes on
            return [_refuse(one.error or error) for one in asked]
        return [_refuse(one.error) if one.error else _answer([next(answers) for _ in one.queries]) for one in asked]

    def _read(self, request: Any) -> Asked:  # noqa: ANN401  # the backend's classes exist only inside Triton
        try:
            texts = _strings(request, TEXT.name)
            options = [Options.from_json(text) for text in _strings(request, OPTIONS.name)]
            return Asked(self._pipeline.queries(texts, options))
        except Exception as error:  # a request that nobody thought of must not hurt those beside it
            return Asked([], error)


def _strings(request: Any, name: str) -> list[str]:  # noqa: ANN401
    """The texts of one BYTES input, (batch, 1). Raises InvalidInput, naming the row, where one is not UTF-8."""
    texts = []
    for row, value in enumerate(pb_utils.get_input_tensor_by_name(request, name).as_numpy().reshape(-1)):
        try:
            texts.append(value.decode("utf-8"))
        except UnicodeDecodeError as error:
            raise InvalidInput(f"{name} {row} is not UTF-8: byte {error.start} is {value[error.start]:#04x}") from None
    return texts


def _model(spec: ModelSpec, version: int) -> RunModel:
    """A function that has this server run one of its models."""

    def run(inputs: Tensors) -> Tensors:
        request = pb_utils.InferenceRequest(
            model_name=spec.name,
            model_version=version,
            requested_output_names=[output.name for output in spec.outputs],
            inputs=[pb_utils.Tensor(name, values) for name, values in inputs.items()],
        )
        response = request.exec()
        if response.has_error():
            raise Unavailable(f"model {spec.name}, version {version}: {response.error().message()}")
        outputs = {tensor.name(): tensor.as_numpy() for tensor in response.output_tensors()}
        if missing := [output.name for output in spec.outputs if output.name not in outputs]:
            raise InvalidAnswer(f"model {spec.name}, version {version} answered without {', '.join(missing)}")
        return outputs

    return run


def _answer(recommendations: Sequence[Recommendation]) -> Any:  # noqa: ANN401
    values = np.asarray([[one.to_json().encode()] for one in recommendations], np.object_)  # (batch, 1)
    return pb_utils.InferenceResponse(output_tensors=[pb_utils.Tensor(ANSWER.name, values)])


def _refuse(error: Exception) -> Any:  # noqa: ANN401
    codes = pb_utils.TritonError
    if isinstance(error, InvalidInput):
        code, message = codes.INVALID_ARG, str(error)
    else:
        code = codes.UNAVAILABLE if isinstance(error, Unavailable) else codes.INTERNAL
        message = f"{type(error).__name__}: {error}"
    return pb_utils.InferenceResponse(error=pb_utils.TritonError(message[:MOST_CHARACTERS], code))
