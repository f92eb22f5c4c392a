"""The tensors of every served model, said once: names, dtypes, shapes.

The exporter, the checked-in ``config.pbtxt`` files, the Python models and the client are all tested against this page.
A dimension is an int where it is fixed, or a name where it depends on the bundle or on the request; ``batch`` comes first
everywhere, as Triton wants it.
"""

from __future__ import annotations

from dataclasses import dataclass

BATCH, TOKENS = "batch", "tokens"
"""The dimensions that depend on the request."""

MAX_BATCH_SIZE = 64
"""Texts in one execution: Triton's max_batch_size, and the rows the edge runs at once. Larger ones gain nothing on a CPU."""

MAX_K = 200
"""Candidates that the ranker returns, and so the largest k; TensorRT wants TopK's k constant (and at most 3,840)."""


@dataclass(frozen=True)
class TensorSpec:
    """One input or output. ``dtype`` is Triton's name for it (INT64, FP32, BOOL, BYTES)."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]


@dataclass(frozen=True)
class ModelSpec:
    """The inputs and outputs of one model of the Triton repository."""

    name: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


INPUT_IDS = TensorSpec("input_ids", "INT64", (BATCH, TOKENS))
ATTENTION_MASK = TensorSpec("attention_mask", "INT64", (BATCH, TOKENS))
INTEREST_VECTOR = TensorSpec("interest_vector", "FP32", (BATCH, "hidden"))
QUERY_VECTOR = TensorSpec("query_vector", "FP32", (BATCH, "query"))
BOOST = TensorSpec("boost", "FP32", (BATCH, "items"))
ITEM_INDEX = TensorSpec("item_index", "INT64", (BATCH, "candidates"))
SCORE = TensorSpec("score", "FP32", (BATCH, "candidates"))
TERMS = TensorSpec("terms", "FP32", (BATCH, "candidates", "signals"))
TOKEN_TYPE_IDS = TensorSpec("token_type_ids", "INT64", (BATCH, TOKENS))
PROBABILITY = TensorSpec("probability", "FP32", (BATCH, 1))
PROBABILITIES = TensorSpec("probabilities", "FP32", (BATCH, "labels"))
TEXT = TensorSpec("TEXT", "BYTES", (BATCH, 1))
OPTIONS = TensorSpec("OPTIONS", "BYTES", (BATCH, 1))
ANSWER = TensorSpec("ANSWER", "BYTES", (BATCH, 1))

ENCODER = ModelSpec("encoder", (INPUT_IDS, ATTENTION_MASK), (INTEREST_VECTOR,))
"""Token ids and mask → the interest vector, mean-pooled and of length 1."""

RANKER = ModelSpec("ranker", (QUERY_VECTOR, BOOST), (ITEM_INDEX, SCORE, TERMS))
"""The signals' user sides, one after another and weighted, and what rules add to each item → the best candidates, best first,
ties by item index. A boost of −inf masks an item; rows whose score is −inf are to be dropped. ``terms`` splits each score by
signal, in the order of the bundle's signals, and last by ``RULES``."""

MATCHER = ModelSpec("matcher", (INPUT_IDS, ATTENTION_MASK, TOKEN_TYPE_IDS), (PROBABILITY,))
"""A text and an item, as two segments → the probability that the item fits; a text alone → that its writer recommends what it
is about. See :mod:`bertrec.matching`."""

HEADS = ModelSpec("heads", (INTEREST_VECTOR,), (PROBABILITIES,))
"""The interest vector → the probabilities of every head's labels, one head after another. See :mod:`bertrec.labels`."""

MATCH = ModelSpec("match", (TEXT, OPTIONS), (ANSWER,))
"""A text and the items to hold it against (JSON, see :mod:`bertrec.questions`) → how well each fits (JSON)."""

CLASSIFY = ModelSpec("classify", (TEXT,), (ANSWER,))
"""A text → the probabilities of every head's labels, by name (JSON)."""

EMBED = ModelSpec("embed", (TEXT,), (INTEREST_VECTOR,))
"""A text → its interest vector, of length 1."""

RECOMMEND = ModelSpec("recommend", (TEXT, OPTIONS), (ANSWER,))
"""A text and its options (canonical JSON, see :mod:`bertrec.answers`) → the answer (JSON)."""

TEXT_SIGNAL, LEXICAL, GRAPH, BEHAVIOUR, PRIOR = SIGNALS = ("text", "lexical", "graph", "behaviour", "prior")
"""The signals that a bundle can have, in the order of their parts of the query vector and of the terms."""

RULES = "rules"
"""The last term: what filters and rules added to the score."""

MODELS = (RECOMMEND, ENCODER, RANKER)
"""What every bundle is served as."""

QUESTIONS = (RECOMMEND, MATCH, CLASSIFY, EMBED)
"""The models that a client asks: python models of Triton, which ask the others."""

ALL_MODELS = (RECOMMEND, MATCH, CLASSIFY, EMBED, ENCODER, RANKER, MATCHER, HEADS)
"""All that a bundle with a matcher and heads is served as."""
