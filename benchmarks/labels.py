"""What is left of the quality when only some of the training texts have a label, and what the others are worth without one.

Every share of the labels is trained on as it is, after adaptation to all texts, and with self-training; the catalogue of a share
is what its labels and the items' own texts give, and an item outside of it is a miss.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

from benchmarks.machine import provenance
from bertrec.errors import InvalidInput
from train.adaptation.kinds import Adaptation
from train.evaluate import evaluate
from train.fit import fit
from train.report import AS_WRITTEN
from train.settings import PRESETS, FitSettings, Preset

SHARES = (0.01, 0.1, 1.0)
METRICS = ("ndcg_at_10", "recall_at_10")
RANKERS = ("fused", "text alone")


@dataclass(frozen=True)
class LabelSettings:
    """What to train. shares: of the labels that are kept. minutes: of each run, at most; None: as the preset has it."""

    base: FitSettings = PRESETS[Preset.QUICK]
    shares: tuple[float, ...] = SHARES
    minutes: float | None = None

    def methods(self, share: float) -> dict[str, FitSettings]:
        """Method → how it is trained with a share of the labels; nothing is left to be guessed where all texts have one."""
        base = dataclasses.replace(self.base, labels=share, max_minutes=self.minutes or self.base.max_minutes)
        found = {"labels alone": base}
        for kind in (Adaptation.MLM, Adaptation.SIMCSE):
            found[f"adapted by {kind.value}"] = dataclasses.replace(base, adapt=kind)
        if share < 1:
            found["self-training"] = dataclasses.replace(base, self_train=True)
        return found

    def __post_init__(self) -> None:
        if not self.shares:
            raise InvalidInput("no share of the labels is named; accepted are one or more, such as 0.01,0.1,1")


def measure_labels(source: str, settings: LabelSettings, runs: Path) -> dict[str, Any]:
    """``rows``: share, method, ranker, labels, minutes, and value, low and high of each of ``METRICS`` on test texts.

    source: as of ``train.fit.fit``. Runs are kept in ``runs`` and reused, so that an interrupted measurement goes on.
    """
    rows = []
    for share in settings.shares:
        for method, wanted in settings.methods(share).items():
            run = fit(source, wanted, runs / f"{Path(source).name}-{share:g}-{method.replace(' ', '-')}-{wanted.seed}")
            rankers = evaluate(run, baselines=["none"]).kinds[AS_WRITTEN].rankers
            about = {"share": share, "method": method, "texts": run.record["texts"]["train"], "minutes": run.record["minutes"]}
            for ranker in RANKERS:
                metrics = {metric: dataclasses.asdict(rankers[ranker][metric]) for metric in METRICS}
                rows.append({**about, "ranker": ranker, **metrics})
    return {"source": source, "provenance": dataclasses.asdict(provenance()), "rows": rows}


def labels_table(content: dict[str, Any]) -> Table:
    """The rows, a share of the labels under the other."""
    table = Table(title=f"{content['source']}: quality by share of the labels", title_justify="left")
    for title in ("labels", "method", "ranker", "texts", "NDCG@10 (95 %)", "R@10", "minutes"):
        table.add_column(title, justify="left" if title in ("method", "ranker") else "right")
    for row in content["rows"]:
        ndcg = row["ndcg_at_10"]
        table.add_row(
            f"{row['share']:.0%}",
            row["method"],
            row["ranker"],
            f"{row['texts']:,}",
            f"{ndcg['value']:.4f} ({ndcg['low']:.4f}–{ndcg['high']:.4f})",
            f"{row['recall_at_10']['value']:.4f}",
            f"{row['minutes']:.1f}",
        )
    return table
