"""What the project set out to reach, against what was measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from benchmarks.studies import COVERAGE, CUT, TYPOS_CORRECTED
from train.rankers import FUSED
from train.report import AS_WRITTEN

NDCG, RECALL = "ndcg_at_10", "recall_at_10"
SHORT_RIVALS = ("ALS", "popularity")

Details = Mapping[str, Any]


@dataclass(frozen=True)
class Target:
    """One figure that was to be reached. measured: None where it was not measured. places: decimals that are shown."""

    data: str
    what: str
    wanted: float
    measured: float | None
    at_most: bool = False
    percent: bool = False

    @property
    def verdict(self) -> str:
        """Reached, or by how much missed."""
        if self.measured is None:
            return "not measured"
        missing = self.measured - self.wanted if self.at_most else self.wanted - self.measured
        return "reached" if missing <= 0 else f"missed by {self.shown(missing)}"

    def shown(self, value: float | None) -> str:
        """A figure as it is printed."""
        return "–" if value is None else percent(value) if self.percent else f"{value:.3f}"


def percent(share: float) -> str:
    """A share in percent to one place, without a minus before zero."""
    return f"{round(100 * share, 1) + 0.0:.1f}%"


def targets(details: Mapping[str, Details]) -> list[Target]:
    """All targets; details: data set → what benchmarks/quality.py found."""
    return [*_clothing(details.get("clothing", {})), *_movielens(details.get("movielens", {})), *_apps(details.get("apps", {}))]


def loss(details: Details, study: str) -> float | None:
    """Share of NDCG@10 that the fused recommender loses from the queries as written to ``study``."""
    before, after = _fused(details, AS_WRITTEN, NDCG), _fused(details, study, NDCG)
    return None if before is None or after is None or before == 0 else 1.0 - after / before


def _clothing(details: Details) -> list[Target]:
    points = details.get("operating_points", {})
    shown = [_value(points, "test", "rankers", points.get("chosen"), COVERAGE)] if points.get("chosen") else []
    shown = shown or [row[COVERAGE]["value"] for row in points.get("test", {"rankers": {}})["rankers"].values()]
    few = _value(details, "slices", "few_training_interactions", "at most 5", "rankers", FUSED, RECALL)
    alone = _value(details, "kinds", AS_WRITTEN, "rankers", "text alone", NDCG)
    return [
        Target("clothing", "NDCG@10, fused", 0.38, _fused(details, AS_WRITTEN, NDCG)),
        Target("clothing", "R@10, fused", 0.62, _fused(details, AS_WRITTEN, RECALL)),
        Target("clothing", "class@1, fused", 0.70, _fused(details, AS_WRITTEN, "class_at_1")),
        Target("clothing", "NDCG@10, encoder alone", 0.36, alone),
        Target(
            "clothing", "coverage@10 at some operating point", 0.50, max((one for one in shown if one is not None), default=None)
        ),
        Target("clothing", "R@10, items with at most 5 training reviews, 0 being a miss", 0.20, few),
        Target("clothing", "R@10, items with 1 to 5 training reviews", 0.20, _recall_of_few(details)),
        Target("clothing", "NDCG@10 lost to typing errors, corrected", 0.05, loss(details, TYPOS_CORRECTED), True, True),
    ]


def _recall_of_few(details: Details) -> float | None:
    """R@10 for the items that training saw one to five times: two bands, each by its queries."""
    bands = [band for name, band in details.get("slices", {}).get("training_interactions", {}).items() if name in ("1", "2-5")]
    queries = sum(band["queries"] for band in bands)
    found = sum(band["queries"] * band["rankers"][FUSED][RECALL]["value"] for band in bands)
    return found / queries if queries else None


def _movielens(details: Details) -> list[Target]:
    short = [_value(details, "kinds", CUT, "rankers", name, NDCG) for name in (FUSED, *SHORT_RIVALS)]
    known = [value for value in short if value]
    gain = known[0] / max(known[1:]) - 1.0 if len(known) == len(short) else None
    ahead = [
        Target(
            "movielens",
            f"NDCG@10, fused − {rival}, low end of the interval",
            0.0,
            _value(details, "kinds", AS_WRITTEN, "differences", rival, NDCG, end="low"),
        )
        for rival in SHORT_RIVALS
    ]
    return [
        *ahead,
        Target("movielens", "NDCG@10 over the better of ALS and popularity, 4 choices known", 0.20, gain, percent=True),
    ]


def _apps(details: Details) -> list[Target]:
    def recall(key: str, value: str) -> float | None:
        return _value(details, "slices", key, value, "rankers", FUSED, RECALL)

    return [
        Target(
            "apps",
            "R@10, English sentences of known applications",
            0.80,
            recall("query, item", "english sentence, seen in training"),
        ),
        Target("apps", "R@10, English sentences of new applications", 0.80, recall("query, item", "english sentence, new")),
        Target("apps", "R@10, Chinese summaries", 0.60, recall("query", "chinese summary")),
    ]


def _fused(details: Details, kind: str, metric: str) -> float | None:
    return _value(details, "kinds", kind, "rankers", FUSED, metric)


def _value(details: Details, *path: str, end: str = "value") -> float | None:
    """The figure at a path of keys, None where there is none."""
    found: Any = details
    for key in (*path, end):
        if key not in found:
            return None
        found = found[key]
    return float(found)
