"""The tensors of every served model, said once: names, dtypes, shapes.

The exporter, the checked-in ``config.pbtxt`` files, the Python models and the client are all tested against this page.
A dimension is an int where it is fixed, or a name where it depends on the bundle or on the request; ``batch`` comes first
everywhere, as Triton wants it.
"""

from __future__ import annotations

from dataclasses import dataclass

BATCH = "batch"
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


INPUT_IDS = TensorSpec("input_ids", "INT64", (BATCH, "tokens"))
ATTENTION_MASK = TensorSpec("attention_mask", "INT64", (BATCH, "tokens"))
INTEREST_VECTOR = TensorSpec("interest_vector", "FP32", (BATCH, "hidden"))
LEXICAL_VECTOR = TensorSpec("lexical_vector", "FP32", (BATCH, "lexical"))
ALLOWED = TensorSpec("allowed", "BOOL", (BATCH, "items"))
ITEM_INDEX = TensorSpec("item_index", "INT64", (BATCH, "candidates"))
SCORE = TensorSpec("score", "FP32", (BATCH, "candidates"))
TERMS = TensorSpec("terms", "FP32", (BATCH, "candidates", "signals"))
TEXT = TensorSpec("TEXT", "BYTES", (BATCH, 1))
OPTIONS = TensorSpec("OPTIONS", "BYTES", (BATCH, 1))
ANSWER = TensorSpec("ANSWER", "BYTES", (BATCH, 1))

ENCODER = ModelSpec("encoder", (INPUT_IDS, ATTENTION_MASK), (INTEREST_VECTOR,))
"""Token ids and mask → the interest vector, mean-pooled and of length 1."""

RANKER = ModelSpec("ranker", (INTEREST_VECTOR, LEXICAL_VECTOR, ALLOWED), (ITEM_INDEX, SCORE, TERMS))
"""The signals' user sides and a mask over the catalogue → the best candidates, best first, ties by item index. Rows whose
score is −inf were masked and are to be dropped. ``terms`` splits each score by signal, in the order of ``SIGNALS``."""

RECOMMEND = ModelSpec("recommend", (TEXT, OPTIONS), (ANSWER,))
"""A text and its options (canonical JSON, see :mod:`bertrec.answers`) → the answer (JSON)."""

SIGNALS = ("text", "lexical", "prior")
"""The terms of the score, in the order in which the ranker returns them."""

MODELS = (RECOMMEND, ENCODER, RANKER)
