"""Matrices in a quarter of the space: int8, with one float32 scale for each row.

Symmetric rounding, value = int8 · scale, so a zero stays zero and the largest entry of a row is kept. The file is an ordinary
.npy of int8, and its scales lie beside it (``vectors.npy``, ``vectors_scales.npy``); a matrix of float16 or float32 is one .npy.
Readers take either. Nothing is pickled.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bertrec.errors import InvalidBundle, InvalidInput

LARGEST = 127
"""The largest int8 used; −128 is not, so that both signs round alike."""


@dataclass(frozen=True)
class Int8Matrix:
    """A matrix whose entry (r, c) is values[r, c] · scales[r]."""

    values: NDArray[np.int8]  # (rows, columns)
    scales: NDArray[np.float32]  # (rows,), positive

    def dequantised(self) -> NDArray[np.float32]:
        """(rows, columns) float32."""
        return self.values.astype(np.float32) * self.scales[:, None]


def quantise_rows(matrix: NDArray[Any]) -> Int8Matrix:
    """The int8 form of a (rows, columns) matrix; no entry moves by more than half its row's scale.

    Raises InvalidInput where it is not two-dimensional or not finite.
    """
    exact = np.asarray(matrix, np.float32)
    if exact.ndim != 2 or not np.isfinite(exact).all():
        raise InvalidInput(f"a matrix of shape {exact.shape} cannot be stored as int8; accepted are two dimensions, all finite")
    largest = np.abs(exact).max(axis=1, initial=0.0)  # (rows,)
    scales = (largest / LARGEST).astype(np.float32)
    scales[scales == 0] = 1.0  # a row of zeros, or of numbers too small for float32 to divide
    values = np.clip(np.rint(exact / scales[:, None]), -LARGEST, LARGEST).astype(np.int8)
    return Int8Matrix(values, scales)


def scales_file(path: Path) -> Path:
    """Where the scales of an int8 matrix lie."""
    return path.with_name(f"{path.stem}_scales.npy")


def save_matrix(path: Path, matrix: NDArray[Any] | Int8Matrix) -> list[Path]:
    """Write a matrix, float or int8; returns the paths. Scales that an earlier int8 matrix left there are removed."""
    if isinstance(matrix, Int8Matrix):
        np.save(path, matrix.values, allow_pickle=False)
        np.save(scales_file(path), matrix.scales, allow_pickle=False)
        return [path, scales_file(path)]
    np.save(path, matrix, allow_pickle=False)
    scales_file(path).unlink(missing_ok=True)
    return [path]


def load_matrix(path: Path) -> NDArray[Any] | Int8Matrix:
    """Read what :func:`save_matrix` wrote. Raises InvalidBundle for an int8 matrix without a scale for each row."""
    stored: NDArray[Any] = np.load(path, allow_pickle=False)
    if stored.dtype != np.int8:
        return stored
    if not scales_file(path).is_file():
        raise InvalidBundle(
            f"{path} holds int8, and {scales_file(path).name} with its scales is missing. Export the bundle again"
        )
    scales: NDArray[np.float32] = np.load(scales_file(path), allow_pickle=False)
    if scales.shape != stored.shape[:1]:
        raise InvalidBundle(
            f"{scales_file(path)} has the shape {scales.shape}; {path.name}, of shape {stored.shape}, needs one scale for each "
            "row. Export the bundle again"
        )
    return Int8Matrix(stored, scales)


def load_floats(path: Path) -> NDArray[np.float32]:
    """A matrix that was written either way, as float32."""
    matrix = load_matrix(path)
    return matrix.dequantised() if isinstance(matrix, Int8Matrix) else np.asarray(matrix, np.float32)
