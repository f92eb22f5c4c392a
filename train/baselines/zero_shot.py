"""The pre-trained encoder as it is: what fine-tuning must beat."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray

from bertrec.text import TextTokenizer
from train.baselines.contract import Context
from train.encoder import Encoder, load_tokenizer
from train.examples import Pairs
from train.items import centroids
from train.states import encode_texts


@dataclass(frozen=True)
class ZeroShot:
    """Cosine between a text's vector and the centroid of each item's texts. items: (items, hidden), of length 1."""

    encode: Callable[[Sequence[str]], NDArray[np.float32]]
    items: NDArray[np.float32]
    name: str = "zero-shot BERT"

    def scores(self, queries: Pairs) -> NDArray[np.float32]:
        """(queries, items) cosines."""
        return self.encode(queries.texts) @ self.items.T


def fit_zero_shot(context: Context) -> ZeroShot:
    """Average the vectors of each item's training texts; those handed in are not computed again."""
    examples = context.examples
    encode = context.encode or _pretrained(context.backbone, context.max_tokens)
    known = context.train_vectors
    vectors = encode(examples.train.texts) if known is None else known.astype(np.float32)
    return ZeroShot(encode, centroids(vectors, examples.train, examples.items))


def _pretrained(backbone: str | Path, max_tokens: int) -> Callable[[Sequence[str]], NDArray[np.float32]]:
    """Texts → (texts, hidden) by a pre-trained encoder."""
    encoder = Encoder.load(backbone)
    with TemporaryDirectory() as folder:
        load_tokenizer(backbone).save_pretrained(folder)
        tokenizer = TextTokenizer(Path(folder) / "tokenizer.json", min(max_tokens, encoder.max_positions))
    return lambda texts: encode_texts(encoder, tokenizer, texts, "encoding with the pre-trained BERT")
