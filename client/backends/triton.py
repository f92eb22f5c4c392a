"""What asking Triton over gRPC and over HTTP, and with or without asyncio, have in common: distrust of what comes back."""

from __future__ import annotations

from bertrec.answers import Recommendation
from bertrec.errors import DeadlineExceeded, InvalidAnswer, Overloaded, Transient
from bertrec.tensors import ANSWER

FULL = ("maximum queue size", "request timeout expired")
"""What Triton says, in lower case and beside UNAVAILABLE or 503, where a queue is full or a request has waited in it too long."""


class TritonReader:
    """Reads what the model ``recommend`` of one server answered."""

    def __init__(self, scheme: str, host: str, port: int) -> None:
        self._authority = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        self._url = f"{scheme}://{self._authority}"

    def _read(self, answers: list[str | bytes] | None, texts: int, k: int) -> list[Recommendation]:
        """The answers' rows, None where the output is missing. Raises InvalidAnswer for what does not fit the request."""
        if answers is None:
            raise InvalidAnswer(f"{self._url} answered without the output {ANSWER.name}")
        if len(answers) != texts:
            raise InvalidAnswer(f"{self._url} answered {len(answers)} rows to {texts} texts")
        found = [Recommendation.from_json(answer) for answer in answers]
        most = max(len(recommendation.items) for recommendation in found)
        if most > k:
            raise InvalidAnswer(f"{self._url} answered {most} items where {k} were asked for")
        return found

    def _cannot(self, what: str) -> Transient:
        """The error for a server that cannot answer now, by what it says."""
        kind = Overloaded if any(sign in what.lower() for sign in FULL) else Transient
        return kind(f"{self._url} cannot answer: {what}")

    def _late(self, timeout_s: float) -> DeadlineExceeded:
        return DeadlineExceeded(f"{self._url} gave no answer within {timeout_s:.3g} s")
