"""Synonyms: WordNet's where there is one, else the nearest words in the encoder's own vocabulary.

Nearness is the cosine of input embeddings (Jin et al., 2020, TextFooler, take those of counter-fitted vectors). Opposites
are near as well; the threshold keeps them out of all-MiniLM-L6-v2: small–large is .58, cheap–expensive .57, blue–red .53, while
beautiful–lovely is .63, small–tiny .64 and cheap–inexpensive .70.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from train.augmentation.wordnet import read_wordnet
from train.encoder import Encoder

NEAR = 0.6
"""Cosine from which on two words are taken for synonyms."""
MOST = 5
"""Synonyms of a word; further ones mean something else."""
BLOCK = 512
WORD_MARKS = ("▁", "Ġ")
"""What unigram and byte-level tokenizers write before a piece that begins a word; word-piece marks the others, by ``##``."""
_LETTERS = re.compile(r"[A-Za-z]{3,}")

Synonyms = Mapping[str, Sequence[str]]
"""Lower-case word → its synonyms, the nearest first."""


def fit_synonyms(
    texts: Iterable[str], vocabulary: Mapping[str, int], embeddings: NDArray[np.float32], wordnet: Path | None = None
) -> Synonyms:
    """Synonyms of the words in ``texts``: those of WordNet, and of the vocabulary for words that WordNet gives none for.

    vocabulary: token → row of ``embeddings``, (tokens, hidden). Raises InvalidInput for a folder that holds no WordNet.
    """
    words = sorted({word.lower() for text in texts for word in _LETTERS.findall(text)})
    near = vocabulary_synonyms(words, vocabulary, embeddings)
    return near if wordnet is None else {**near, **read_wordnet(wordnet, words)}


def vocabulary_synonyms(
    words: Sequence[str], vocabulary: Mapping[str, int], embeddings: NDArray[np.float32], *, near: float = NEAR
) -> dict[str, tuple[str, ...]]:
    """The words of a vocabulary that are nearest to each of ``words`` that it has as one piece, at a cosine of ``near`` or more.

    Only pieces that are whole words of three or more letters count. One that only adds letters before the other is left out:
    it negates the other (uncomfortable) or is a kind of it (sweatshirt).
    """
    whole = _whole_words(vocabulary)
    names = sorted(whole)
    known = [word for word in words if word in whole]
    if not known:
        return {}
    units = embeddings[[whole[name] for name in names]].astype(np.float32)  # (names, hidden)
    units /= np.maximum(np.linalg.norm(units, axis=1, keepdims=True), 1e-12)
    place = {name: row for row, name in enumerate(names)}
    found = {}
    for start in range(0, len(known), BLOCK):
        block = known[start : start + BLOCK]
        cosines = units[[place[word] for word in block]] @ units.T  # (block, names)
        for word, row in zip(block, cosines, strict=True):
            best = np.flatnonzero(row >= near)
            ranked = (names[column] for column in best[np.argsort(-row[best], kind="stable")].tolist())
            others = [other for other in ranked if not other.endswith(word) and not word.endswith(other)]
            if others:
                found[word] = tuple(others[:MOST])
    return found


def token_vectors(encoder: Encoder) -> NDArray[np.float32]:
    """(tokens, hidden) float32: the input embeddings of an encoder."""
    return np.array(encoder.bert.get_input_embeddings().weight.detach().numpy(), np.float32)


def _whole_words(vocabulary: Mapping[str, int]) -> dict[str, int]:
    """Lower-case word → its row; of several spellings in capitals and small letters, the small one."""
    marked = any(token.startswith(WORD_MARKS) for token in vocabulary)
    tokens = {token[1:]: row for token, row in vocabulary.items() if token.startswith(WORD_MARKS)} if marked else vocabulary
    ordered = sorted(tokens.items(), key=lambda token: token[0].islower())  # the small one last, so that it stays
    return {word.lower(): row for word, row in ordered if _LETTERS.fullmatch(word)}
