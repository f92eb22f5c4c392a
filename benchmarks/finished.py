"""What is made of a finished run: its students, its matcher and its heads, each with what it gives and what it cost.

They are measured when they are made, on the run's own texts, so their figures are read from the run's records.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from bertrec.matching import MATCHER_FOLDER
from train.heads import HEADS_FOLDER, load_heads
from train.matcher.network import MATCHER_FILE, Matcher
from train.run import METRICS_FILE, Run
from train.students import open_students
from train.students.contract import MATCHED


def finished_tools(run: Run) -> dict[str, Any]:
    """``rows``: tool, command, what it gives, and minutes, parameters and peak_memory_mb of the making; None where not kept.

    Raises InvalidRun for a student or heads of another encoder than the run's.
    """
    rows = [*_students(run), *_matcher(run), *_heads(run)]
    return {"preset": run.settings["preset"], "data": run.record["data"]["name"], "minutes": run.record["minutes"], "rows": rows}


def _students(run: Run) -> Iterator[dict[str, Any]]:
    for student in open_students(run):
        found = student.record["validation"]
        kept = found["ndcg_at_10"] / found["teacher_ndcg_at_10"]
        gives = (
            f"NDCG@10 {found['ndcg_at_10']:.4f} fused on validation, {kept:.1%} of the encoder's; cosine {found['cosine']:.3f}"
        )
        if error := found.get("margin_error"):
            gives += f"; off the matcher's margins by {error:.2f}, the encoder by {found['teacher_margin_error']:.2f}"
        parameters = sum(parameter.numel() for parameter in student.load().parameters())
        weight = student.record["settings"].get("margin_weight", 0.0)
        margins = f" --margins {weight:g}" if weight and student.name != MATCHED else ""
        yield _row(student.name, f"distil --student {student.name}{margins}", gives, student.record, parameters)


def _matcher(run: Run) -> Iterator[dict[str, Any]]:
    if (record := _read(run.folder / MATCHER_FOLDER / MATCHER_FILE)) is None:
        return
    test, settings = record["test"], record["settings"]
    said = [
        f"{name}: accuracy {test[task]['accuracy']:.3f}, F1 {test[task]['f1']:.3f}, AUC {test[task]['auc']:.3f}"
        for task, name in (("fits", "the item fits"), ("recommends", "the writer recommends"))
        if test[task]
    ]
    if reranked := test["reranked"]:
        gained, low, high = reranked["difference"]
        ndcg = reranked["ndcg_at_10"]
        said.append(
            f"reranking the top {settings['top']} of {reranked['texts']:,} texts, weight {reranked['weight']:g}: NDCG@10 "
            f"{ndcg['recommender']:.4f} → {ndcg['reranked']:.4f} ({gained:+.4f}, {low:+.4f} to {high:+.4f}); "
            f"by the matcher alone {ndcg['matcher alone']:.4f}; candidate recall {reranked['candidate_recall']:.3f}"
        )
    parameters = sum(parameter.numel() for parameter in Matcher.load(run.folder / MATCHER_FOLDER).parameters())
    yield _row("matcher", f"matcher --epochs {settings['epochs']}", "; ".join(said), record, parameters)


def _heads(run: Run) -> Iterator[dict[str, Any]]:
    if (record := _read(run.folder / HEADS_FOLDER / METRICS_FILE)) is None:
        return
    network, _ = load_heads(run)
    said = [
        f"{name}: accuracy {head['test']['accuracy']:.3f} (majority {head['test']['majority']:.3f}), "
        f"macro-F1 {head['test']['macro_f1']:.3f}"
        for name, head in record["heads"].items()
        if head.get("test")
    ]
    seconds = record["seconds_to_read_texts"] + sum(head["seconds"] for head in record["heads"].values())
    cost = {**record, "minutes": seconds / 60}
    parameters = sum(parameter.numel() for parameter in network.parameters())
    yield _row(f"heads, {record['kind']}", f"heads --heads {record['kind']}", "; ".join(said), cost, parameters)


def _row(tool: str, command: str, gives: str, record: Mapping[str, Any], parameters: int) -> dict[str, Any]:
    return {
        "tool": tool,
        "command": command,
        "gives": gives,
        "source_commit": record["source_commit"],
        "minutes": record["minutes"],
        "parameters": parameters,
        "peak_memory_mb": record.get("peak_memory_mb"),
    }


def _read(path: Path) -> dict[str, Any] | None:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def finished_tables(runs: Sequence[Mapping[str, Any]]) -> list[str]:
    """Lines of docs/transfer.md; none where nothing was made of a run, or it was not asked for."""
    made = [run for run in runs if run["rows"]]
    if not made:
        return []
    lines = [
        "## Made of a finished run",
        "",
        "Each by `python -m train COMMAND --run runs/NAME --seed 0`, with both cores; what a run itself took stands beside it.",
        "Parameters are those of what is served in the end; peak MB is of the whole process, – in records older than that.",
    ]
    for run in made:
        lines += [
            "",
            f"### {run['data']}, preset {run['preset']}, {run['minutes']:.1f} minutes",
            "",
            f"Made at {', '.join(dict.fromkeys(row['source_commit'][:10] for row in run['rows']))}.",
            "",
            "| tool | command | what it gives | minutes | parameters | peak MB |",
            "|---|---|---|---|---|---|",
            *(_line(row) for row in run["rows"]),
        ]
    return lines


def _line(row: Mapping[str, Any]) -> str:
    peak = "–" if row["peak_memory_mb"] is None else f"{row['peak_memory_mb']:,.0f}"
    return f"| {row['tool']} | `{row['command']}` | {row['gives']} | {row['minutes']:.1f} | {row['parameters']:,} | {peak} |"
