"""Who judges a student: the run's validation queries."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from bertrec.text import TextTokenizer, Tokens
from train.encoder import Encoder
from train.examples import Examples, Pairs
from train.fusion import gains
from train.rankers import fused_ranker
from train.run import Run
from train.states import encode_tokens
from train.students.margins import Margins
from train.students.teacher import Lessons

JUDGING_TEXTS = 2_500
"""Validation texts that the passes are compared by."""


@dataclass(frozen=True)
class Judge:
    """The run's validation queries, by which passes are compared and the student is measured at the end."""

    asked: Pairs
    tokens: list[Tokens]

    @classmethod
    def of(cls, run: Run, examples: Examples) -> Judge:
        """Up to ``JUDGING_TEXTS`` queries."""
        asked = examples.validation.take(np.arange(min(len(examples.validation), JUDGING_TEXTS)))
        tokenizer = TextTokenizer(run.tokenizer_file, run.settings["max_tokens"])
        return cls(asked, tokenizer.tokenise(asked.texts))

    def ndcg(self, scores: Tensor) -> float:
        """NDCG@10 of (queries, items) scores; items of a query's own history are left out. 0 without queries."""
        for row, history in enumerate(self.asked.histories):
            scores[row, list(history)] = -torch.inf
        return float(gains(scores, torch.from_numpy(self.asked.items)).mean()) if len(self.tokens) else 0.0

    def compare(self, run: Run, student: nn.Module, teacher: Encoder) -> dict[str, float]:
        """How the run ranks with the student's vectors and with its own, and how alike those are."""
        own, other = (encode_tokens(network, self.tokens, "reading validation texts") for network in (student, teacher))
        ranker = fused_ranker(run, lambda _: own)
        taught = dataclasses.replace(ranker, encode=lambda _: other)
        return {
            "texts": len(self.tokens),
            "ndcg_at_10": self.ndcg(torch.from_numpy(ranker.scores(self.asked))),
            "teacher_ndcg_at_10": self.ndcg(torch.from_numpy(taught.scores(self.asked))),
            "cosine": float((own * other).sum(1).mean()) if len(own) else 0.0,
        }

    def margin_errors(self, lessons: Lessons, margins: Margins, student: nn.Module, teacher: Encoder) -> dict[str, float]:
        """Root mean square of the difference from the matcher's margins, in nats: of the student, and of what it began as."""
        tokens = [self.tokens[row] for row in margins.rows.tolist()]
        errors = []
        for network in (student, teacher):
            scores = lessons.scores(torch.from_numpy(encode_tokens(network, tokens, "comparing margins")))
            errors.append(math.sqrt(float(margins.loss(scores, np.arange(len(tokens))))))
        return {"margin_texts": len(tokens), "margin_error": errors[0], "teacher_margin_error": errors[1]}
