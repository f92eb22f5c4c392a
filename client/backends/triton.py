"""What asking Triton over gRPC and over HTTP have in common: batches, the deadline, and distrust of what comes back."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Sequence

from bertrec.answers import Options, Recommendation
from bertrec.errors import DeadlineExceeded, InvalidAnswer
from bertrec.tensors import ANSWER, MAX_BATCH_SIZE


class TritonBackend(ABC):
    """Asks the model ``recommend`` of one server."""

    def __init__(self, url: str) -> None:
        """``url`` is for messages."""
        self._url = url

    def recommend(self, texts: Sequence[str], options: Options, *, timeout_s: float) -> list[Recommendation]:
        """See :class:`Backend`. A list longer than the server's batch is sent as several requests, under one deadline."""
        deadline = time.monotonic() + timeout_s
        written = options.to_json()
        found: list[Recommendation] = []
        for start in range(0, len(texts), MAX_BATCH_SIZE):
            batch = texts[start : start + MAX_BATCH_SIZE]
            remaining_s = deadline - time.monotonic()
            if remaining_s <= 0:
                raise self._late(timeout_s)
            try:
                answers = self._infer(batch, written, timeout_s=remaining_s)
            except DeadlineExceeded:
                raise self._late(timeout_s) from None
            found += self._read(answers, len(batch), options.k)
        return found

    @abstractmethod
    def close(self) -> None:
        """Let go of the connections."""

    @abstractmethod
    def _infer(self, texts: Sequence[str], options: str, *, timeout_s: float) -> list[str | bytes] | None:
        """The rows of the output ANSWER, None where the answer lacks it; at most ``MAX_BATCH_SIZE`` texts.

        Raises InvalidInput for what the server refuses, DeadlineExceeded, InvalidAnswer, and Unavailable for the rest.
        """

    def _read(self, answers: list[str | bytes] | None, texts: int, k: int) -> list[Recommendation]:
        if answers is None:
            raise InvalidAnswer(f"{self._url} answered without the output {ANSWER.name}")
        if len(answers) != texts:
            raise InvalidAnswer(f"{self._url} answered {len(answers)} rows to {texts} texts")
        found = [Recommendation.from_json(answer) for answer in answers]
        most = max(len(recommendation.items) for recommendation in found)
        if most > k:
            raise InvalidAnswer(f"{self._url} answered {most} items where {k} were asked for")
        return found

    def _late(self, timeout_s: float) -> DeadlineExceeded:
        return DeadlineExceeded(f"{self._url} gave no answer within {timeout_s:g} s")
