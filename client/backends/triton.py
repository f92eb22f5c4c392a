"""What asking Triton over gRPC and over HTTP, and with or without asyncio, have in common: distrust of what comes back."""

from __future__ import annotations

from typing import Any

from bertrec.errors import DeadlineExceeded, InvalidAnswer, Overloaded, Transient, Unavailable
from bertrec.questions import NEEDED, Question, remedy
from bertrec.tensors import OPTIONS, TEXT, TensorSpec

FULL = ("maximum queue size", "request timeout expired")
"""What Triton says, in lower case and beside UNAVAILABLE or 503, where a queue is full or a request has waited in it too long."""

UNKNOWN = "unknown model"
"""What Triton and the edge server say, beside NOT_FOUND or 404, where they have no model of that name."""


class TritonReader:
    """Reads what the models of one server answered."""

    def __init__(self, scheme: str, host: str, port: int) -> None:
        self._authority = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        self._url = f"{scheme}://{self._authority}"

    def _read(self, rows: list[Any] | None, texts: int, question: Question) -> list[Any]:
        """The output's rows, None where it is missing. Raises InvalidAnswer for what does not fit the request."""
        if rows is None:
            raise InvalidAnswer(f"{self._url} answered without the output {output_of(question).name}")
        if len(rows) != texts:
            raise InvalidAnswer(f"{self._url} answered {len(rows)} rows to {texts} texts")
        return [question.read(row) for row in rows]

    def _cannot(self, what: str) -> Transient:
        """The error for a server that cannot answer now, by what it says."""
        kind = Overloaded if any(sign in what.lower() for sign in FULL) else Transient
        return kind(f"{self._url} cannot answer: {what}")

    def _failed(self, what: str, question: Question) -> Unavailable:
        """The error for a server that will not answer a moment later either; another server, or the edge, may."""
        model = question.model
        if UNKNOWN in what.lower():
            what = f"it has no model {model.name!r}"
            if model.name in NEEDED:
                what += f", which needs a bundle with {NEEDED[model.name]}. {remedy(model)}; then update the server"
        return Unavailable(f"{self._url} cannot answer: {what}")

    def _late(self, timeout_s: float) -> DeadlineExceeded:
        return DeadlineExceeded(f"{self._url} gave no answer within {timeout_s:.3g} s")


def inputs_of(question: Question, texts: list[str]) -> dict[TensorSpec, list[str]]:
    """The rows of each input, BYTES of shape (batch, 1)."""
    rows = {TEXT: texts, OPTIONS: [question.to_json()] * len(texts)}
    return {spec: rows[spec] for spec in question.model.inputs}


def output_of(question: Question) -> TensorSpec:
    """The one output: (batch, 1) of BYTES, or (batch, n) of numbers."""
    (output,) = question.model.outputs
    return output
