"""The matcher: a cross-encoder reads a text and an item together, and says how likely the item fits (Nogueira and Cho, 2019).

It reads a text alone too, and then says how likely its writer recommends what it is about. ``python -m train matcher`` trains
it; whoever trains, exports or serves it makes its inputs here.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bertrec.catalogue import Catalogue, CatalogueItem
from bertrec.errors import InvalidBundle
from bertrec.tensors import ATTENTION_MASK, INPUT_IDS, MAX_BATCH_SIZE, PROBABILITY, TOKEN_TYPE_IDS
from bertrec.text import BUCKETS, TextTokenizer, Tokens, clean

MATCHER_FOLDER = "matcher"
MATCHING_FILE = "matching.json"
LEAST, MOST = 1e-6, 1.0 - 1e-6
"""Between them a probability has a finite logit."""


@dataclass(frozen=True)
class Matching:
    """How a matcher is asked.

    item_tokens: it reads so many tokens of an item, behind those of the text. top: candidates that it reranks. weight: what its
    log-odds count beside the recommender's score; 0 where reranking gained nothing on validation. recommends: whether it was
    trained on texts alone as well.
    """

    item_tokens: int
    top: int
    weight: float
    recommends: bool

    def save(self, folder: Path) -> None:
        """Write matching.json."""
        (folder / MATCHING_FILE).write_text(json.dumps(asdict(self), indent=2) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> Matching:
        """Read what :meth:`save` wrote. Raises InvalidBundle for anything else."""
        path = folder / MATCHING_FILE
        try:
            given = json.loads(path.read_text(encoding="utf-8"))
            return cls(int(given["item_tokens"]), int(given["top"]), float(given["weight"]), bool(given["recommends"]))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InvalidBundle(f"{path} does not say how the matcher is asked ({type(error).__name__}: {error})") from None


def described(item: CatalogueItem) -> str:
    """What the matcher reads of an item: its title, its text, the attributes that the title does not name, its keywords."""
    named = item.title.lower()
    attributes = [value for value in item.attributes.values() if value.lower() not in named]
    parts = (item.title, item.text, ", ".join(attributes), ", ".join(item.keywords))
    return clean(". ".join(part for part in parts if part) or item.item_id)


def tokenised_items(catalogue: Catalogue, tokenizer: TextTokenizer, item_tokens: int) -> list[list[int]]:
    """The token ids of each item, as they stand behind a text: without the first special token, with the last."""
    tokens = tokenizer.tokenise([described(item) for item in catalogue.items])
    return [text.ids[1 : item_tokens + 1][:-1] + text.ids[-1:] for text in tokens]


PairInputs = dict[str, NDArray[np.int64]]
"""The inputs of the model ``matcher`` by name, each (batch, tokens)."""


def pair_batches(
    texts: Sequence[Tokens], items: Sequence[Sequence[int]], *, max_rows: int = MAX_BATCH_SIZE, padded: bool = True
) -> Iterator[tuple[NDArray[np.int64], PairInputs]]:
    """Each text with its item, empty for a text alone, joined by length, shortest first: which pairs (batch,), and their inputs.

    padded: to the lengths of ``BUCKETS``, as in serving; otherwise each batch to its longest pair.
    """
    lengths = np.asarray([len(text.ids) + len(item) for text, item in zip(texts, items, strict=True)], np.int64)
    bucket = np.asarray([next((size for size in BUCKETS if size >= length), length) for length in lengths.tolist()], np.int64)
    order = np.lexsort((lengths, bucket))
    for size in np.unique(bucket).tolist():
        rows = order[bucket[order] == size]
        for part in np.split(rows, range(max_rows, len(rows), max_rows)):
            chosen = part.tolist()
            yield part, pair_inputs([texts[row] for row in chosen], [items[row] for row in chosen], size if padded else None)


def pair_inputs(texts: Sequence[Tokens], items: Sequence[Sequence[int]], length: int | None = None) -> PairInputs:
    """One batch of pairs, padded to ``length``, or to the longest."""
    longest = max(len(text.ids) + len(item) for text, item in zip(texts, items, strict=True))
    ids, mask, types = (np.zeros((len(texts), length or longest), np.int64) for _ in range(3))
    for row, (text, item) in enumerate(zip(texts, items, strict=True)):
        first, last = len(text.ids), len(text.ids) + len(item)
        ids[row, :first] = text.ids
        ids[row, first:last] = item
        mask[row, :last] = 1
        types[row, first:last] = 1
    return {INPUT_IDS.name: ids, ATTENTION_MASK.name: mask, TOKEN_TYPE_IDS.name: types}


def probabilities(
    run: Callable[[Mapping[str, NDArray[Any]]], Mapping[str, NDArray[Any]]],
    texts: Sequence[Tokens],
    items: Sequence[Sequence[int]],
) -> NDArray[np.float32]:
    """(pairs,) float32: what the model that ``run`` asks says of each text with its item."""
    found = np.zeros(len(texts), np.float32)
    for rows, inputs in pair_batches(texts, items):
        found[rows] = run(inputs)[PROBABILITY.name][:, 0]
    return found


def log_odds(probability: NDArray[np.float32]) -> NDArray[np.float32]:
    """The logits of probabilities, none of them infinite."""
    bounded = np.clip(probability, LEAST, MOST).astype(np.float64)
    return np.log(bounded / (1.0 - bounded)).astype(np.float32)
