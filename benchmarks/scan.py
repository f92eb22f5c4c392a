"""Exact top-k by a scan over int8 vectors, whose best are scored again in full precision.

The scan's products are exact integers, and what int8 loses is bounded, so the k best are found for certain:
with x = s⊙q + e (an item, its int8 values q at a scale s for each dimension, and what is lost) and s⊙y = t·p + f (a query at
14 bits, and what is lost), x·y = t·(q·p) + q·f + e·y, and by Cauchy and Schwarz |q·f + e·y| ≤ max|q|·|f| + max|e|·|y| = E.
An item whose t·(q·p) lies more than 2E below the k-th largest cannot be among the k best; all others are scored again.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from bertrec.errors import InvalidInput

ITEM_BOUND, PLANE, PLANE_ZERO = 127, 128, 64
"""A query value is 128·high + low, both from −64 to 63, and goes into the product as unsigned 1…127. At 7 bits the sums of two
products fit the 16 bits in which AVX2 without VNNI adds them, so the result is exact on every x86."""
QUERY_BOUND = 63 * PLANE
WIDEST = (2**31 - 1) // (ITEM_BOUND * QUERY_BOUND)
"""Wider vectors could overflow int32."""
BLOCK = 512
"""The best of each block give a bound on the k-th best at the price of one pass."""
ROWS = 65_536
SLACK = 1 + 1e-6
"""For the rounding of the norms themselves."""


@dataclass(frozen=True)
class Found:
    """rows, scores: (k,), best first, equal scores by row. rescored: how many items the bound could not rule out."""

    rows: NDArray[np.int64]
    scores: NDArray[np.float64]
    rescored: int


class Int8Scan:
    """An index over (items, width) fp32 vectors: int8 values in memory, and ``vectors``, which may be mapped, for single rows.

    scanned_bytes: what one scan reads.
    """

    def __init__(self, vectors: NDArray[np.float32], *, threads: int) -> None:
        """Quantise the vectors. Raises InvalidInput for what is no matrix, is empty or too wide."""
        if vectors.ndim != 2 or not len(vectors) or not 0 < vectors.shape[1] <= WIDEST:
            raise InvalidInput(f"vectors have the shape {vectors.shape}; accepted is (items, width), width at most {WIDEST}")
        self._vectors = vectors
        largest = np.max([np.abs(part).max(axis=0) for part in _parts(vectors)], axis=0).astype(np.float64)  # (width,)
        self._scales = np.where(largest > 0, largest, 1.0) / ITEM_BOUND
        quantised = np.empty(vectors.shape[::-1], np.int8)  # (width, items)
        self._lost, self._longest, start = 0.0, 0.0, 0
        for part in _parts(vectors):
            values = np.rint(part / self._scales)  # (rows, width)
            quantised[:, start : start + len(part)] = values.T
            self._lost = max(self._lost, float(np.linalg.norm(part - values * self._scales, axis=1).max()))
            self._longest = max(self._longest, float(np.linalg.norm(values, axis=1).max()))
            start += len(part)
        self.scanned_bytes = quantised.nbytes
        self._session = _session(quantised, threads)

    def top(self, query: NDArray[np.float32], k: int) -> Found:
        """The k items of the largest inner product with ``query`` (width,), computed in float64; k is at most their number."""
        k = min(k, len(self._vectors))
        wanted = query.astype(np.float64)
        scaled = wanted * self._scales
        step = float(np.abs(scaled).max()) / QUERY_BOUND or 1.0
        whole = np.rint(scaled / step)
        error = SLACK * (self._longest * np.linalg.norm(scaled - step * whole) + self._lost * np.linalg.norm(wanted))
        rows = candidates(self._products(whole.astype(np.int64)), k, int(np.ceil(2 * error / step)))
        # Not with @: the threads of BLAS spin for a while after a product, on the cores that the next scan needs.
        scores = np.einsum("ij,j->i", self._vectors[rows].astype(np.float64), wanted)
        best = np.lexsort((rows, -scores))[:k]
        return Found(rows[best], scores[best], len(rows))

    def _products(self, whole: NDArray[np.int64]) -> NDArray[np.int32]:
        """(items,) exact products of the int8 values and the query's."""
        high = (whole + PLANE_ZERO) // PLANE
        planes = np.stack([high, whole - PLANE * high]) + PLANE_ZERO  # (2, width), 0…127
        found = self._session.run(None, {"query": planes.astype(np.uint8)})[0]  # (2, items)
        products: NDArray[np.int32] = found[0]
        products *= PLANE
        products += found[1]
        return products


def candidates(products: NDArray[np.int32], k: int, margin: int) -> NDArray[np.int64]:
    """Rows, rising, whose product lies at most ``margin`` below the k-th largest. products: (items,)."""
    whole_blocks = len(products) // BLOCK
    if whole_blocks >= k:  # k blocks have an item at least as large as the k-th largest of the blocks' best
        bests = products[: whole_blocks * BLOCK].reshape(whole_blocks, BLOCK).max(axis=1)
        rows = np.flatnonzero(products >= _kth(bests, k) - margin)
    else:
        rows = np.arange(len(products))
    near = products[rows]
    return rows[near >= _kth(near, k) - margin]


def _kth(values: NDArray[np.int32], k: int) -> int:
    return int(np.partition(values, len(values) - k)[len(values) - k])


def _parts(vectors: NDArray[np.float32]) -> list[NDArray[np.float32]]:
    return [vectors[start : start + ROWS] for start in range(0, len(vectors), ROWS)]


def _session(quantised: NDArray[np.int8], threads: int) -> onnxruntime.InferenceSession:
    """One MatMulInteger: query (2, width) uint8 → (2, items) int32; ONNX Runtime packs the items for its kernels once."""
    width, items = quantised.shape
    graph = helper.make_graph(
        [helper.make_node("MatMulInteger", ["query", "items", "zero"], ["products"])],
        "scan",
        [helper.make_tensor_value_info("query", TensorProto.UINT8, [2, width])],
        [helper.make_tensor_value_info("products", TensorProto.INT32, [2, items])],
        [numpy_helper.from_array(quantised, "items"), numpy_helper.from_array(np.array(PLANE_ZERO, np.uint8), "zero")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    with TemporaryDirectory(prefix="bertrec-scan-") as folder:
        path = Path(folder) / "scan.onnx"
        onnx.save_model(model, path, save_as_external_data=True, location="items.bin", size_threshold=1024)
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
