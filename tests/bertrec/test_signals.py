"""The lexical signal: the same numbers as scikit-learn's, words that add up to the score, and int8 that changes neither."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.preprocessing import normalize

from bertrec.compact import load_floats, quantise_rows, save_matrix
from bertrec.errors import InvalidBundle, InvalidInput
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


def test_int8_keeps_the_largest_entry_and_rounds_the_others() -> None:
    small = quantise_rows(np.asarray([[1.0, -2.0, 0.5], [0.0, 0.0, 0.0]], np.float32))
    assert small.values.dtype == np.int8
    assert small.values.tolist() == [[64, -127, 32], [0, 0, 0]]
    np.testing.assert_allclose(small.scales, [2 / 127, 1.0])
    random = np.random.default_rng(0).normal(size=(50, 30)).astype(np.float32) * np.logspace(-6, 6, 50, dtype=np.float32)[:, None]
    small = quantise_rows(random)
    assert (np.abs(small.dequantised() - random) <= 0.5001 * small.scales[:, None]).all()


@pytest.mark.parametrize("given", [np.asarray([[1.0, np.nan]]), np.asarray([[np.inf]]), np.ones(3)])
def test_what_is_no_finite_matrix_is_refused(given: NDArray[np.float64]) -> None:
    with pytest.raises(InvalidInput, match=r"of shape \(.*\) cannot be stored as int8; accepted are two dimensions, all finite"):
        quantise_rows(given)


def test_an_int8_projection_is_read_as_a_float_one_is(tmp_path: Path) -> None:
    signal = fit_lexical(TEXTS, dimensions=3, terms=1_000, seed=0)
    small = _int8(signal)
    paths = small.save(tmp_path)
    loaded = LexicalSignal.load(tmp_path)
    assert loaded.projection.dtype == np.int8
    assert {path.name for path in paths} == {path.name for path in tmp_path.iterdir()}
    np.testing.assert_array_equal(loaded.vectors(TEXTS), small.vectors(TEXTS))
    assert (loaded.vectors(TEXTS) * signal.vectors(TEXTS)).sum(axis=1).min() > 0.9999
    signal.save(tmp_path)
    assert not (tmp_path / "lexical_projection_scales.npy").exists()
    np.testing.assert_array_equal(LexicalSignal.load(tmp_path).vectors(TEXTS), signal.vectors(TEXTS))


def test_the_scales_of_int8_rows_weigh_the_words() -> None:
    terms = ("coat", "soft", "warm", "warm coat")
    exact = LexicalSignal(terms, np.ones(4, np.float32), np.diag([1.0, 4.0, 2.0, 0.5]).astype(np.float16))
    signal = _int8(exact)  # whose rows differ by their scales alone
    assert signal.carriers("soft warm coat", np.ones((1, 4), np.float32)) == [("soft", "warm", "coat")]
    np.testing.assert_allclose(signal.vectors(["soft coat"]), np.asarray([[1.0, 4.0, 0.0, 0.0]]) / 17**0.5, atol=1e-6)


def test_int8_without_a_scale_for_each_row_is_no_bundle(tmp_path: Path) -> None:
    signal = _int8(fit_lexical(TEXTS, dimensions=3, terms=1_000, seed=0))
    signal.save(tmp_path)
    np.save(tmp_path / "lexical_projection_scales.npy", np.ones(2, np.float32))
    with pytest.raises(InvalidBundle, match=r"has the shape \(2,\); lexical_projection.npy, of shape .* one scale for each row"):
        LexicalSignal.load(tmp_path)
    (tmp_path / "lexical_projection_scales.npy").unlink()
    with pytest.raises(InvalidBundle, match=r"holds int8, and lexical_projection_scales\.npy with its scales is missing"):
        LexicalSignal.load(tmp_path)


def test_floats_are_read_from_either_form(tmp_path: Path) -> None:
    matrix = np.asarray([[1.0, -2.0], [127.0, 1.0]], np.float32)
    save_matrix(tmp_path / "exact.npy", matrix.astype(np.float16))
    save_matrix(tmp_path / "small.npy", quantise_rows(matrix))
    np.testing.assert_array_equal(load_floats(tmp_path / "exact.npy"), matrix)
    np.testing.assert_allclose(load_floats(tmp_path / "small.npy"), [[2 * 64 / 127, -2.0], [127.0, 1.0]], atol=1e-6)
    assert load_floats(tmp_path / "exact.npy").dtype == load_floats(tmp_path / "small.npy").dtype == np.float32


def _int8(signal: LexicalSignal) -> LexicalSignal:
    small = quantise_rows(signal.projection)
    return dataclasses.replace(signal, projection=small.values, scales=small.scales)
