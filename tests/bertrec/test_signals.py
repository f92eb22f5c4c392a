"""The lexical signal: the same numbers as scikit-learn's, and words that add up to the score."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.preprocessing import normalize

from bertrec.signals import LexicalSignal, analyse
from train.lexical import fit_lexical

TEXTS = ["warm wool coat", "warm and soft coat, so soft", "linen summer dress", "a dress of soft linen", "wool socks"]


def test_words_pairs_and_chinese_characters() -> None:
    assert analyse("A Warm coat!") == ["warm", "coat", "warm coat"]
    assert analyse("编程 laptop") == ["编", "程", "laptop", "编 程", "程 laptop"]
    assert analyse("👗 !") == []


def test_vectors_are_scikit_learns() -> None:
    signal = fit_lexical(TEXTS, dimensions=3, terms=1_000, seed=0)
    vectoriser = TfidfVectorizer(analyzer=analyse, sublinear_tf=True)
    weights = vectoriser.fit_transform(TEXTS)
    latent = TruncatedSVD(3, n_iter=4, random_state=0).fit(weights).components_
    expected = normalize(vectoriser.transform(["a soft warm dress"]) @ latent.T)
    np.testing.assert_allclose(signal.vectors(["a soft warm dress"]), expected, atol=2e-3)  # projection in half precision


def test_a_text_of_unknown_words_has_no_direction() -> None:
    signal = fit_lexical(TEXTS, dimensions=3, terms=1_000, seed=0)
    assert signal.vectors(["quantum chromodynamics", "👗"]).tolist() == [[0.0] * 3] * 2
    assert signal.carriers("quantum", np.ones((2, 3), np.float32)) == [(), ()]


def test_carriers_are_the_words_that_raise_the_score() -> None:
    signal = LexicalSignal(("coat", "soft", "warm", "warm coat"), np.ones(4, np.float32), np.eye(4, dtype=np.float16))
    items = np.asarray([[1.0, 0.0, 2.0, 0.0], [-1.0, 0.5, 0.0, 0.0], [0.5, 0.0, 0.5, 3.0]], np.float32)
    assert signal.carriers("soft warm coat", items) == [("warm", "coat"), ("soft",), ("warm coat",)]


def test_function_words_are_no_reason() -> None:
    signal = LexicalSignal(("is", "is not", "not", "not warm"), np.ones(4, np.float32), np.eye(4, dtype=np.float16))
    assert signal.carriers("it is not warm", np.asarray([[3.0, 3.0, 3.0, 1.0]], np.float32)) == [("not warm",)]


def test_keywords_tell_texts_from_others() -> None:
    signal = fit_lexical(TEXTS, dimensions=3, terms=1_000, seed=0)
    assert signal.keywords(["linen summer dress"], most=1) == ("summer",)


def test_saved_and_loaded_it_is_the_same(tmp_path: Path) -> None:
    signal = fit_lexical(TEXTS, dimensions=3, terms=1_000, seed=0)
    signal.save(tmp_path / "signals")
    loaded = LexicalSignal.load(tmp_path / "signals")
    assert loaded.terms == signal.terms
    np.testing.assert_array_equal(loaded.vectors(TEXTS), signal.vectors(TEXTS))
