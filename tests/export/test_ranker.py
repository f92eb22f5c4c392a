"""The ranker's file in every precision: numpy's ranking of the vectors that it keeps, in less space and no more time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray

from bertrec.engine import OnnxEngine
from bertrec.errors import InvalidInput
from bertrec.tensors import MAX_K, RANKER
from export.ranker import RankerPrecision, export_ranker, read_items

ITEMS, TEXT, LEXICAL = 400, 48, 32
SHARES = {RankerPrecision.FP32: 1.0, RankerPrecision.FP16: 0.5, RankerPrecision.INT8: 0.25}
"""Of fp32, what a precision takes for the numbers themselves."""


@pytest.fixture
def sides() -> dict[str, NDArray[np.float32]]:
    random = np.random.default_rng(0)
    widths = {"text": TEXT, "lexical": LEXICAL, "prior": 1}
    sides = {name: random.normal(size=(ITEMS, width)).astype(np.float32) for name, width in widths.items()}
    for vectors in sides.values():
        vectors[7] = vectors[3]  # two items that no precision may tell apart
    return sides


def test_every_precision_ranks_by_the_vectors_that_it_keeps(sides: dict[str, NDArray[np.float32]], tmp_path: Path) -> None:
    random = np.random.default_rng(1)
    asked = random.normal(size=(5, TEXT + LEXICAL + 1)).astype(np.float32)
    boost = np.where(random.random((5, ITEMS)) < 0.9, 0, -np.inf).astype(np.float32)
    for precision, share in SHARES.items():
        path = tmp_path / f"{precision.value}.onnx"
        export_ranker(sides, path, precision=precision)
        kept = read_items(path)
        assert list(kept) == list(sides)
        np.testing.assert_array_equal(kept["prior"], sides["prior"])
        for name in ("text", "lexical"):
            largest = np.abs(sides[name]).max(axis=1, keepdims=True)
            assert (np.abs(kept[name] - sides[name]) <= largest * _rounding(precision)).all()
        scores = asked @ np.hstack(list(kept.values())).T + boost
        _check_ranked(OnnxEngine(path, RANKER).run({"query_vector": asked, "boost": boost}), scores)
        size, numbers = path.stat().st_size, 4 * ITEMS * (TEXT + LEXICAL)
        assert share * numbers <= size <= share * numbers + 4 * 3 * ITEMS + 4_000  # scales, the prior, and the graph


def test_equal_items_stay_equal_and_the_lower_index_comes_first(sides: dict[str, NDArray[np.float32]], tmp_path: Path) -> None:
    asked = np.hstack([side[3] for side in sides.values()])[None]  # what fits the two best
    for precision in RankerPrecision:
        export_ranker(sides, tmp_path / "ranker.onnx", precision=precision)
        ranked = _run(tmp_path / "ranker.onnx", asked)
        assert ranked["item_index"][0, :2].tolist() == [3, 7]
        assert ranked["score"][0, 0] == ranked["score"][0, 1]


def test_a_basis_is_a_factor_of_the_items(sides: dict[str, NDArray[np.float32]], tmp_path: Path) -> None:
    random = np.random.default_rng(2)
    asked, basis = (
        random.normal(size=(3, 100 + LEXICAL + 1)).astype(np.float32),
        random.normal(size=(TEXT, 100)).astype(np.float32),
    )
    whole = {**sides, "text": sides["text"] @ basis}  # (items, 100)
    for precision in RankerPrecision:
        path = tmp_path / f"{precision.value}.onnx"
        export_ranker(sides, path, precision=precision, bases={"text": basis})
        kept = read_items(path)
        np.testing.assert_allclose(kept["text"], whole["text"], atol=300 * _rounding(precision) + 1e-4)
        _check_ranked(_run(path, asked), asked @ np.hstack(list(kept.values())).T)
    export_ranker(whole, tmp_path / "whole.onnx")
    assert (tmp_path / "fp32.onnx").stat().st_size < 0.8 * (tmp_path / "whole.onnx").stat().st_size


@pytest.mark.parametrize(
    ("bases", "message"),
    [
        (
            {"text": np.ones((TEXT - 1, 9), np.float32)},
            r"'text' has the shape \(47, 9\), and there are items of shape \(400, 48\)",
        ),
        ({"graph": np.ones((4, 9), np.float32)}, r"'graph' has the shape \(4, 9\), and there are no items"),
    ],
)
def test_a_basis_that_does_not_fit_is_refused(
    sides: dict[str, NDArray[np.float32]], tmp_path: Path, bases: dict[str, NDArray[np.float32]], message: str
) -> None:
    with pytest.raises(InvalidInput, match=message):
        export_ranker(sides, tmp_path / "ranker.onnx", bases=bases)
    assert not (tmp_path / "ranker.onnx").exists()


def test_onnx_runtime_unpacks_once_when_it_loads(sides: dict[str, NDArray[np.float32]], tmp_path: Path) -> None:
    left = {}
    for precision in RankerPrecision:
        export_ranker(sides, tmp_path / "ranker.onnx", precision=precision)
        options = onnxruntime.SessionOptions()
        options.optimized_model_filepath = str(tmp_path / "loaded.onnx")
        onnxruntime.InferenceSession(str(tmp_path / "ranker.onnx"), options, providers=["CPUExecutionProvider"])
        left[precision] = sorted(node.op_type for node in onnx.load(str(tmp_path / "loaded.onnx")).graph.node)
    assert left[RankerPrecision.INT8] == left[RankerPrecision.FP16] == left[RankerPrecision.FP32]
    assert "Cast" not in left[RankerPrecision.INT8]


def test_two_exports_are_the_same_file(sides: dict[str, NDArray[np.float32]], tmp_path: Path) -> None:
    for name in ("first.onnx", "second.onnx"):
        export_ranker(sides, tmp_path / name, precision=RankerPrecision.INT8)
    assert (tmp_path / "first.onnx").read_bytes() == (tmp_path / "second.onnx").read_bytes()


def _rounding(precision: RankerPrecision) -> float:
    """The largest error, as a share of the largest entry of a row."""
    return {RankerPrecision.FP32: 0.0, RankerPrecision.FP16: 2**-11, RankerPrecision.INT8: 0.5001 / 127}[precision]


def _run(path: Path, asked: NDArray[np.float32]) -> dict[str, NDArray[Any]]:
    return OnnxEngine(path, RANKER).run({"query_vector": asked, "boost": np.zeros((len(asked), ITEMS), np.float32)})


def _check_ranked(ranked: dict[str, NDArray[Any]], scores: NDArray[np.float32]) -> None:
    """Scores and terms as numpy has them, for items in the order of the scores."""
    best = -np.sort(-scores, axis=1)[:, :MAX_K]
    np.testing.assert_allclose(ranked["score"], best, rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(np.take_along_axis(scores, ranked["item_index"], axis=1), best, rtol=1e-5, atol=1e-4)
    assert all(len(set(row)) == MAX_K for row in ranked["item_index"].tolist())
    finite = np.isfinite(ranked["score"])
    np.testing.assert_allclose(ranked["terms"].sum(-1)[finite], ranked["score"][finite], rtol=1e-5, atol=1e-4)
