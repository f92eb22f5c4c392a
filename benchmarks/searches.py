"""Three ways to find the k items of the largest inner product: exact by numpy, exact by an int8 scan, approximate by faiss."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import faiss
import numpy as np
from numpy.typing import NDArray

from benchmarks.scan import Int8Scan

Vectors = NDArray[np.float32]
Rows = NDArray[np.int64]

WANTED_RECALL = 0.95
LISTS_PER_ROOT = 4
"""Faiss's own advice for up to a million vectors is 4 to 16 lists for each unit of the root of their number."""
TRAINED_PER_LIST = 40
"""Vectors that the lists' centres are learned from; faiss warns below 39."""
ADDED_AT_ONCE = 65_536


class Search(Protocol):
    """Finds the best items."""

    @property
    def detail(self) -> Mapping[str, float]:
        """What is told beside the figures. held_bytes: what must be in memory, by count; scanned_bytes: what each query reads."""

    def top(self, query: Vectors, k: int) -> Rows:
        """Rows of the k best for one query (width,), best first."""


class NumpySearch:
    """One matrix-vector product in fp32, and a partition."""

    def __init__(self, vectors: Vectors) -> None:
        self._vectors = vectors
        self.detail: dict[str, float] = {"scanned_bytes": vectors.nbytes, "held_bytes": vectors.nbytes}

    def top(self, query: Vectors, k: int) -> Rows:
        """See :class:`Search`."""
        scores = self._vectors @ query
        rows = np.argpartition(scores, len(scores) - k)[len(scores) - k :]
        best: Rows = rows[np.lexsort((rows, -scores[rows]))]
        return best


class ScanSearch:
    """benchmarks.scan. detail: rescored is the median over queries."""

    def __init__(self, vectors: Vectors, *, threads: int) -> None:
        self._scan = Int8Scan(vectors, threads=threads)
        self._rescored: list[int] = []

    @property
    def detail(self) -> dict[str, float]:
        """See :class:`Search`."""
        size = self._scan.scanned_bytes
        return {"scanned_bytes": size, "held_bytes": size, "rescored": float(np.median(self._rescored or [0]))}

    def top(self, query: Vectors, k: int) -> Rows:
        """See :class:`Search`."""
        found = self._scan.top(query, k)
        self._rescored.append(found.rescored)
        return found.rows


class FaissSearch:
    """Inverted lists over int8 vectors (IVF, SQ8). detail: how many lists, and how many of them each query visits."""

    def __init__(self, vectors: Vectors, *, threads: int, seed: int) -> None:
        faiss.omp_set_num_threads(threads)
        items, width = vectors.shape
        lists = max(1, min(LISTS_PER_ROOT * round(items**0.5), items // TRAINED_PER_LIST))
        self._index: Any = faiss.index_factory(width, f"IVF{lists},SQ8", faiss.METRIC_INNER_PRODUCT)
        some = np.random.default_rng(seed).choice(items, min(items, lists * TRAINED_PER_LIST), replace=False)
        self._index.train(np.asarray(vectors[np.sort(some)]))
        for start in range(0, items, ADDED_AT_ONCE):
            self._index.add(np.ascontiguousarray(vectors[start : start + ADDED_AT_ONCE]))
        self.detail: dict[str, float] = {"lists": lists, "visited": 1, "held_bytes": items * (width + 8) + 4 * lists * width}

    def tune(self, queries: Vectors, best: list[Rows], k: int) -> None:
        """Visit as few lists as give the wanted recall on these queries, doubling; all of them where none give it."""
        visited = 1
        while True:
            self._index.nprobe = self.detail["visited"] = visited
            if visited >= self.detail["lists"] or recall([self.top(query, k) for query in queries], best) >= WANTED_RECALL:
                return
            visited = min(2 * visited, int(self.detail["lists"]))

    def top(self, query: Vectors, k: int) -> Rows:
        """See :class:`Search`."""
        rows: Rows = self._index.search(query[None], k)[1][0]
        return rows


def recall(found: list[Rows], best: list[Rows]) -> float:
    """The part of the best that was found, over all queries."""
    return sum(len(np.intersect1d(mine, right)) for mine, right in zip(found, best, strict=True)) / sum(map(len, best))
