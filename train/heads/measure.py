"""How well a head answers: accuracy, macro-F1, area under the ROC curve, and how far its probabilities can be believed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import f1_score, roc_auc_score

from bertrec.labels import NEGATIVE, SENTIMENT, Head

BINS = 15


@dataclass(frozen=True)
class HeadMeasures:
    """A head on one split. texts: how many have one of its labels.

    majority: the accuracy of always saying the most frequent label of that split. macro_auc: mean over the labels of one against
    the others; negative_auc: of the label negative, only for sentiment. calibration_error: see :func:`calibration_error`.
    """

    texts: int
    accuracy: float
    macro_f1: float
    majority: float
    log_loss: float
    calibration_error: float
    macro_auc: float | None = None
    negative_auc: float | None = None


def measure_head(probabilities: NDArray[np.float32], targets: NDArray[np.int64], head: Head) -> HeadMeasures:
    """(texts, labels) probabilities against (texts,) right labels."""
    said = probabilities.argmax(1)
    right = probabilities[np.arange(len(targets)), targets]
    columns = range(len(head.labels))
    areas = {column: roc_auc_score(targets == column, probabilities[:, column]) for column in columns if _both(targets, column)}
    negative = head.labels.index(NEGATIVE) if head.name == SENTIMENT and NEGATIVE in head.labels else None
    return HeadMeasures(
        texts=len(targets),
        accuracy=round(float((said == targets).mean()), 4),
        macro_f1=round(float(f1_score(targets, said, labels=list(columns), average="macro", zero_division=0)), 4),
        majority=round(float(np.bincount(targets).max() / len(targets)), 4),
        log_loss=round(float(-np.log(np.maximum(right, 1e-12)).mean()), 4),
        calibration_error=round(calibration_error(probabilities, targets), 4),
        macro_auc=round(float(np.mean(list(areas.values()))), 4) if areas else None,
        negative_auc=round(float(areas[negative]), 4) if negative in areas else None,
    )


def calibration_error(probabilities: NDArray[np.float32], targets: NDArray[np.int64]) -> float:
    """Expected calibration error (Guo et al., 2017): |confidence − accuracy|, averaged over 15 bins of equal width."""
    confidence, hits = probabilities.max(1), probabilities.argmax(1) == targets
    bins = np.minimum((confidence * BINS).astype(int), BINS - 1)
    gaps = [abs(float((confidence - hits)[bins == number].sum())) for number in range(BINS)]
    return sum(gaps) / len(targets)


def _both(targets: NDArray[np.int64], column: int) -> bool:
    return 0 < int((targets == column).sum()) < len(targets)
