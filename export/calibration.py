"""The ranges that activations keep within, found by running an encoder on training texts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper

from bertrec.errors import InvalidInput
from bertrec.tensors import ATTENTION_MASK
from train.progress import progress

BINS = 4_096
"""Of the histogram over |value|, from 0 to the largest."""
PERCENTILE = 99.999
"""The share of values, in percent, that is not clipped."""
LEVELS = 128
"""Magnitudes that 8 bits with a sign tell apart."""
ENTROPY_STEP = 32
"""Bins between one threshold that is tried and the next."""

Tensors = Mapping[str, NDArray[Any]]


class Calibration(str, Enum):
    """How the range of an activation is chosen."""

    MIN_MAX = "min_max"  # nothing is clipped
    ENTROPY = "entropy"  # the clipped, quantised distribution departs least from the true one (Kullback–Leibler)
    PERCENTILE = "percentile"  # all but the largest thousandth of a percent


@dataclass(frozen=True)
class Range:
    """The least and the largest value that is not clipped."""

    low: float
    high: float


def calibrate(
    model: ModelProto, tensors: Sequence[str], batches: Iterable[Tensors], *, method: Calibration = Calibration.MIN_MAX
) -> dict[str, Range]:
    """Tensor → its range over the tokens of all batches. Padding is left out: what stands there is never read.

    model: an encoder. tensors: names of activations, each (batch, tokens, width) float32. batches: the encoder's inputs.
    Raises InvalidInput without batches.
    """
    texts = some_batches(batches)
    with progress("calibrating", len(texts) * (1 if method is Calibration.MIN_MAX else 2)) as advance:
        ranges: dict[str, Range] = {}
        for seen in observe(model, tensors, texts):
            for name, values in seen.items():
                before = ranges.get(name, Range(np.inf, -np.inf))
                ranges[name] = Range(min(before.low, float(values.min())), max(before.high, float(values.max())))
            advance(1)
        if method is Calibration.MIN_MAX:
            return ranges
        histograms = {name: np.zeros(BINS, np.int64) for name in tensors}
        for seen in observe(model, tensors, texts):
            for name, values in seen.items():
                histograms[name] += _histogram(values, _largest(ranges[name]))
            advance(1)
    find = _percentile if method is Calibration.PERCENTILE else _least_divergence
    return {name: _clipped(ranges[name], find(histogram)) for name, histogram in histograms.items()}


def some_batches(batches: Iterable[Tensors]) -> list[Tensors]:
    """The batches as a list, which can be read twice. Raises InvalidInput where there are none."""
    texts = list(batches)
    if not texts:
        raise InvalidInput("there are no texts to calibrate with; static int8 needs some training texts, 256 or more")
    return texts


def observe(model: ModelProto, tensors: Sequence[str], batches: Iterable[Tensors]) -> Iterator[dict[str, NDArray[np.float32]]]:
    """Of each batch: tensor → (all tokens, width) its values at the tokens of the texts, without the padding."""
    observed = ModelProto()
    observed.CopyFrom(model)
    observed.graph.output.extend(helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in tensors)
    session = quiet_session(observed)
    for batch in batches:
        kept = np.asarray(batch[ATTENTION_MASK.name], bool)  # (batch, tokens)
        found = session.run(list(tensors), dict(batch))
        yield {name: values[kept] for name, values in zip(tensors, found, strict=True)}


def quiet_session(model: ModelProto) -> onnxruntime.InferenceSession:
    """A session on the CPU, whose waiting threads leave the cores to others."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def _largest(values: Range) -> float:
    return max(-values.low, values.high, float(np.finfo(np.float32).tiny))


def _histogram(values: NDArray[np.float32], largest: float) -> NDArray[np.int64]:
    """(BINS,) how many |value| fall in each bin from 0 to ``largest``."""
    bins = np.minimum((np.abs(values) * (BINS / largest)).astype(np.int64), BINS - 1)
    return np.bincount(bins.reshape(-1), minlength=BINS)


def _clipped(values: Range, share: float) -> Range:
    """The range cut at a share of its largest magnitude."""
    threshold = share * _largest(values)
    return Range(max(values.low, -threshold), min(values.high, threshold))


def _percentile(histogram: NDArray[np.int64]) -> float:
    """The share of the largest magnitude below which PERCENTILE of the values lie."""
    reached = np.searchsorted(np.cumsum(histogram), histogram.sum() * PERCENTILE / 100)
    return float((reached + 1) / BINS)


def _least_divergence(histogram: NDArray[np.int64]) -> float:
    """The share of the largest magnitude to clip at, so that 128 levels keep most of the distribution's information.

    Migacz, 8-bit inference with TensorRT, 2017, https://on-demand.gputechconf.com/gtc/2017/presentation/s7310-8-bit-inference-with-tensorrt.pdf
    """
    thresholds = range(LEVELS, BINS + 1, ENTROPY_STEP)
    return min(thresholds, key=lambda bins: _divergence(histogram, bins)) / BINS


def _divergence(histogram: NDArray[np.int64], bins: int) -> float:
    """Kullback–Leibler divergence of the first bins, merged to LEVELS and spread again, from the clipped distribution."""
    clipped = histogram[:bins].astype(np.float64)
    level = np.arange(bins) * LEVELS // bins  # which level a bin is merged into
    filled = clipped > 0
    merged = np.bincount(level, weights=clipped, minlength=LEVELS)
    spread = merged / np.maximum(np.bincount(level, weights=filled, minlength=LEVELS), 1)
    clipped[-1] += histogram[bins:].sum()
    true, found = clipped / clipped.sum(), np.where(filled, spread[level], 0.0)
    found = np.maximum(found / max(found.sum(), 1.0), np.finfo(np.float32).tiny)
    kept = true > 0
    return float((true[kept] * np.log(true[kept] / found[kept])).sum())
