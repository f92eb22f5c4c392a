"""The int8 scan finds the exact best, whatever the vectors look like, and rules out most of the catalogue."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks.scan import BLOCK, WIDEST, Int8Scan, candidates
from bertrec.errors import InvalidInput

K, WIDTH = 10, 48
Vectors = NDArray[np.float32]


def exact(vectors: Vectors, query: Vectors) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    scores = (vectors.astype(np.float64) * query.astype(np.float64)).sum(axis=1)  # by @, equal rows can differ in the last digit
    best = np.lexsort((np.arange(len(scores)), -scores))[:K]
    return best, scores[best]


def normal(random: np.random.Generator, items: int) -> Vectors:
    return random.standard_normal((items, WIDTH), np.float32)


def lopsided(random: np.random.Generator, items: int) -> Vectors:
    """A few dimensions that outweigh all others, as BERT's do, and lengths that differ a thousandfold."""
    return np.asarray(normal(random, items) * np.geomspace(1, 50, WIDTH) * random.uniform(0.001, 1, (items, 1)), np.float32)


def alike(random: np.random.Generator, items: int) -> Vectors:
    """Twins, and near twins that differ by less than int8 can tell."""
    base = np.repeat(normal(random, (items + 3) // 4), 4, axis=0)[:items]
    return np.asarray(base + 1e-4 * normal(random, items) * (np.arange(items) % 2)[:, None], np.float32)


def empty_dimensions(random: np.random.Generator, items: int) -> Vectors:
    vectors = normal(random, items)
    vectors[:, ::2] = 0
    return vectors


@pytest.mark.parametrize("make", [normal, lopsided, alike, empty_dimensions])
@pytest.mark.parametrize("items", [3, K, BLOCK * K - 1, BLOCK * 30 + 7])
def test_the_best_are_the_exact_ones(make: Callable[[np.random.Generator, int], Vectors], items: int) -> None:
    random = np.random.default_rng(items)
    vectors = make(random, items)
    scan = Int8Scan(vectors, threads=1)
    for query in make(random, 20):
        rows, scores = exact(vectors, query)
        found = scan.top(query, K)
        np.testing.assert_array_equal(found.rows, rows)
        np.testing.assert_allclose(found.scores, scores, rtol=1e-12)


def test_most_of_the_catalogue_is_ruled_out() -> None:
    random = np.random.default_rng(0)
    scan = Int8Scan(normal(random, 20_000), threads=1)
    rescored = [scan.top(query, K).rescored for query in normal(random, 20)]
    assert K <= min(rescored)
    assert max(rescored) < 20_000 / 20


def test_a_query_of_zeros_ties_everything() -> None:
    scan = Int8Scan(normal(np.random.default_rng(0), 700), threads=1)
    np.testing.assert_array_equal(scan.top(np.zeros(WIDTH, np.float32), K).rows, np.arange(K))


def test_extreme_values_do_not_saturate() -> None:
    """All products at once at their largest, where 16-bit sums of 8-bit products would overflow."""
    signs = np.where(np.random.default_rng(0).random((BLOCK * 12, WIDTH)) < 0.5, -1, 1).astype(np.float32)
    signs[77] = 1
    scan = Int8Scan(signs, threads=1)
    found = scan.top(np.ones(WIDTH, np.float32), 1)
    assert (found.rows.tolist(), found.scores.tolist()) == ([77], [WIDTH])
    assert scan.top(-np.ones(WIDTH, np.float32), len(signs)).rows[-1] == 77


def test_the_margin_is_kept_to_the_last_unit() -> None:
    products = np.zeros(BLOCK * 4, np.int32)
    products[[5, 700, 1_900, 2_000]] = [100, 90, 80, 79]
    assert candidates(products, 2, 10).tolist() == [5, 700, 1_900]
    assert candidates(products, 2, 11).tolist() == [5, 700, 1_900, 2_000]


@pytest.mark.parametrize("shape", [(5,), (0, 4), (3, 0), (1, WIDEST + 1)])
def test_what_cannot_be_indexed_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(InvalidInput, match=r"vectors have the shape .*; accepted is \(items, width\)"):
        Int8Scan(np.zeros(shape, np.float32), threads=1)
