"""A one-file recommender beside the bundle's own tokenizer, encoder and items: which texts are cut or ranked differently."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnxruntime import InferenceSession, SessionOptions
from rich.table import Table

from bertrec.bundle import Bundle
from bertrec.engine import OnnxEngine
from bertrec.errors import InvalidInput, MissingDependency
from bertrec.onefile import OneFileRecommender
from bertrec.tensors import ATTENTION_MASK, ENCODER, INPUT_IDS, INTEREST_VECTOR, TEXT
from bertrec.text import clean
from export.ranker import IR_VERSION, OPSET
from export.tokenizer_graph import tokenizer_graph
from train.metrics import CUTOFF
from train.progress import progress
from train.sources import load_dataset

try:
    from onnxruntime_extensions import get_library_path
except ImportError:
    get_library_path = None

ODD_TEXTS = (
    "I want a warm coat that isn't bulky!",
    "Crème brûlée, naïve déjà-vu: ÀÉÎÕÜ ñ ç å ø ß",
    "e\u0301te\u0301 and o\u0308l, written with combining marks",
    "Tiếng Việt đẹp, İstanbul, ĄĆĘŁŃÓŚŹŻ, Ǆ ǅ",
    "ΣΊΣΥΦΟΣ και ΆΝΝΑ; Ёлка и йод",
    "معطف دافئ مُريح",
    "नमस्ते दुनिया, ไทย ภาษา",
    "한국어 드레스 ひらがな ガギグ パピプ",
    "保暖的外套 silver，不要太厚。豈更",
    "🧥 coat🧥🌧️ a👕b 👨\u200d👩\u200d👧 ❤️ 😀!",
    "½ ² ™ ® € £5 © № ﬁne ﬂower Ⅳ 𝒽𝑒𝓁𝓁𝑜 ｆｕｌｌ",
    "“quoted” ‘it’s’ — 5′2″… ¿qué? «oui» a_b",
    "a\u00a0b\u2003c\u3000d\u202ee\u200bf\ufeffg \u00adh",
    "red\u0007silver\u001b[31m\x85skirt\u2028next",
    "x" * 100 + " " + "y" * 101 + " é" * 60,
    "hat " * 600,
)
"""Texts in many scripts, with what normalisers disagree on, and longer than any encoder reads."""

Tokenise = Callable[[str], list[int]]


class Reference:
    """The text-only ranking in Python: the bundle's tokenizer.json, the encoder engine, and the items' vectors in numpy.

    Every text is encoded by itself and without padding, so that an engine whose scales are taken at run time sees what it sees in
    one file.
    """

    def __init__(self, bundle: Bundle, engine: str, items: NDArray[np.float32], prior: NDArray[np.float32]) -> None:
        self.bundle = bundle
        self.tokenizer_file = bundle.folder / bundle.engine(ENCODER.name, engine).tokenizer
        self._tokenizer = bundle.tokenizer(engine)
        self._encoder = OnnxEngine(bundle.engine_path(ENCODER.name, engine), ENCODER)
        self._items, self._prior = items, prior

    def tokens(self, text: str) -> list[int]:
        """The token ids of one text."""
        return self._tokenizer.tokenise([text])[0].ids

    def scores(self, tokens: Sequence[int]) -> NDArray[np.float32]:
        """(items,) float32."""
        ids = np.asarray([tokens], np.int64)  # (1, tokens)
        vector = self._encoder.run({INPUT_IDS.name: ids, ATTENTION_MASK.name: np.ones_like(ids)})[INTEREST_VECTOR.name][0]
        scores: NDArray[np.float32] = self._items @ vector + self._prior
        return scores

    def top(self, tokens: Sequence[int]) -> list[int]:
        """The best items' indices, best first, ties by index."""
        return [int(item) for item in np.argsort(-self.scores(tokens), kind="stable")[:CUTOFF]]


@dataclass(frozen=True)
class Comparison:
    """How many of ``texts`` are answered as the bundle's parts answer them, with the normalisation and by the operator alone.

    same_tokens, same_top: with; plain_tokens, plain_top: without. differing: the texts whose tokens differ although normalised.
    causes: character → in how many texts the operator alone reads it differently.
    """

    texts: int
    same_tokens: int
    same_top: int
    plain_tokens: int
    plain_top: int
    differing: tuple[str, ...]
    causes: Counter[str]

    def table(self, title: str) -> Table:
        """The shares, for the command line."""
        table = Table(title=f"{title}: {self.texts:,} texts")
        for name in ("", "same tokens", "same top 10"):
            table.add_column(name, justify="right" if name else "left")
        rows = ("operator alone", self.plain_tokens, self.plain_top), ("normalised before", self.same_tokens, self.same_top)
        for name, *counts in rows:
            table.add_row(name, *(f"{count:,} ({count / self.texts:.2%})" for count in counts))
        return table

    def named_causes(self, count: int = 10) -> str:
        """The commonest causes by name."""
        found = self.causes.most_common(count)
        return ", ".join(f"{character} {unicodedata.name(character, 'unnamed').lower()} ({texts})" for character, texts in found)


def compare(recommender: OneFileRecommender, reference: Reference, texts: Sequence[str]) -> Comparison:
    """Hold one file's tokens and its top 10 against the reference's, text by text; the texts are cleaned ones."""
    normalised, plain = (graph_tokenizer(reference, normalise=normalise) for normalise in (True, False))
    counts: Counter[str] = Counter()
    differing, causes = [], Counter[str]()
    with progress(f"comparing {len(texts):,} texts", len(texts)) as advance:
        for text in texts:
            tokens = reference.tokens(text)
            top = reference.top(tokens)
            counts["same_top"] += [item.index for item in recommender.recommend(text, len(top))] == top
            if normalised(text) == tokens:
                counts["same_tokens"] += 1
            else:
                differing.append(text)
            alone = plain(text)
            counts["plain_tokens"] += alone == tokens
            counts["plain_top"] += alone == tokens or reference.top(alone) == top
            if alone != tokens:
                causes.update(_causes(text, plain, reference.tokens))
            advance()
    return Comparison(
        texts=len(texts),
        same_tokens=counts["same_tokens"],
        same_top=counts["same_top"],
        plain_tokens=counts["plain_tokens"],
        plain_top=counts["plain_top"],
        differing=tuple(differing),
        causes=causes,
    )


def real_texts(source: str, count: int) -> list[str]:
    """The first ``count`` different texts of a data set, cleaned. Raises InvalidInput where it has none."""
    if count < 1:
        raise InvalidInput(f"--compare is {count}; accepted is a whole number of at least 1")
    given = dict.fromkeys(row.text for row in load_dataset(source).interactions if row.text.strip())
    if not given:
        raise InvalidInput(f"the data set {source} has no texts to compare on; name another with --data")
    return [clean(text, place) for place, text in enumerate(list(given)[:count])]


def graph_tokenizer(reference: Reference, *, normalise: bool) -> Tokenise:
    """The tokenizer of one file by itself, with its normalisation or without. Raises MissingDependency without the extensions."""
    return load_tokenizer(reference.tokenizer_file, reference.bundle.manifest.max_tokens, normalise=normalise)


def load_tokenizer(path: Path, max_tokens: int, *, normalise: bool = True) -> Tokenise:
    """The graph of a tokenizer.json, ready to run: text → token ids. Raises MissingDependency without the extensions."""
    if get_library_path is None:
        raise MissingDependency("onnxruntime-extensions", "onefile")
    graph = tokenizer_graph(path, max_tokens, text=TEXT.name, opset=OPSET, ir_version=IR_VERSION, normalise=normalise)
    onnx.checker.check_model(graph)
    options = SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.register_custom_ops_library(get_library_path())
    session = InferenceSession(graph.SerializeToString(), options, providers=["CPUExecutionProvider"])

    def tokenise(text: str) -> list[int]:
        (ids,) = session.run([INPUT_IDS.name], {TEXT.name: [text]})  # (1, tokens)
        return [int(token) for token in ids[0]]

    return tokenise


def _causes(text: str, one: Tokenise, other: Tokenise) -> list[str]:
    """The characters of a text that two tokenizers read differently, alone or inside a word."""
    return [
        character
        for character in sorted(set(text))
        if not character.isascii() and one(f"{character} a{character}b") != other(f"{character} a{character}b")
    ]
