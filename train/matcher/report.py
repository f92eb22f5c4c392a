"""A matcher's figures as a table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.table import Table


def matcher_table(record: Mapping[str, Any]) -> Table:
    """What a matcher's record says of the test split, a line for each figure."""
    test = record["test"]
    table = Table(title=f"The matcher on the test split, trained in {record['minutes']:.1f} minutes")
    table.add_column("what")
    table.add_column("figure", justify="right")
    for task, name in (("fits", "the item fits"), ("recommends", "the writer recommends")):
        for metric, value in test[task].items():
            table.add_row(f"{name}: {metric.replace('_', ' ')}", f"{value:,.0f}" if metric == "texts" else f"{value:.3f}")
    if reranked := test["reranked"]:
        for ranker, value in reranked["ndcg_at_10"].items():
            table.add_row(f"NDCG@10 of {reranked['texts']:,} texts: {ranker}", f"{value:.4f}")
        gained, low, high = reranked["difference"]
        table.add_row(f"gained by reranking, weight {reranked['weight']:g}", f"{gained:+.4f} ({low:+.4f} to {high:+.4f})")
        table.add_row("the right item is among the candidates", f"{reranked['candidate_recall']:.3f}")
        for ranker, exposure in reranked["exposure"].items():
            for metric, value in exposure.items():
                table.add_row(f"{metric.replace('_at_', '@')}: {ranker}", f"{value:.3f}")
    return table
