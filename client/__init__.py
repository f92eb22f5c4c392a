"""Ask for recommendations: from a Triton server, from a bundle in this process, or from the one with the other as fallback.

    with Recommender("grpc://127.0.0.1:8001", fallback="bundles/NAME") as recommender:
        answer = recommender.recommend("a warm coat that is not bulky", k=10)

Imports no torch, and neither gRPC nor ONNX Runtime before a recommender needs them.
"""

import logging

from bertrec.answers import Options, RankedItem, Reason, Recommendation
from bertrec.errors import (
    BertrecError,
    DeadlineExceeded,
    InvalidAnswer,
    InvalidBundle,
    InvalidInput,
    MissingDependency,
    Overloaded,
    Transient,
    Unavailable,
)
from bertrec.questions import Classification, Match, Matches
from bertrec.spelling import Correction

from .answer import Answer, Classified, Embedded, Matched, Served, ServedBy
from .async_recommender import AsyncRecommender
from .availability import State
from .backends import AsyncBackend, Backend
from .counters import Counters
from .recommender import Recommender
from .settings import Fallback, Retries, Tls

__all__ = [
    "Answer",
    "AsyncBackend",
    "AsyncRecommender",
    "Backend",
    "BertrecError",
    "Classification",
    "Classified",
    "Correction",
    "Counters",
    "DeadlineExceeded",
    "Embedded",
    "Fallback",
    "InvalidAnswer",
    "InvalidBundle",
    "InvalidInput",
    "Match",
    "Matched",
    "Matches",
    "MissingDependency",
    "Options",
    "Overloaded",
    "RankedItem",
    "Reason",
    "Recommendation",
    "Recommender",
    "Retries",
    "Served",
    "ServedBy",
    "State",
    "Tls",
    "Transient",
    "Unavailable",
]

# Without it, Python prints a library's warnings on stderr of an application that never asked for them.
logging.getLogger(__name__).addHandler(logging.NullHandler())
