"""docs/faults.md, and the table that the command prints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

from benchmarks.faults.outcome import SLACK_MS, Outcome, lateness, outcome_of

COLUMNS = (
    "scenario",
    "calls",
    "wrong",
    "untyped",
    "lost",
    "refused",
    "by the edge",
    "p99.9 beyond its deadline",
    "next one by",
    "s",
)

EXPLAINED = (
    "Each scenario runs on a real server of its own, and every answer is held against what the same bundle answers undisturbed. "
    "wrong: answers that differ. untyped: exceptions that are no BertrecError. lost: calls without an answer although the client "
    "had a fallback. refused: typed errors, by name. The deadline is one for all attempts, and of it the servers leave the "
    "edge what it lately took; the edge computes in the client's process, which makes all the load as well. Where no deadline is "
    "named it is 5 s: the client shares the cores with a server that is slow then, and a shorter one would tell more of that."
)


def faults_table(outcomes: Sequence[Outcome]) -> Table:
    """One row a scenario, complaints below it."""
    table = Table(title="what happens when something breaks", title_justify="left")
    for title in COLUMNS:
        table.add_column(title, justify="left" if title in ("scenario", "refused") else "right")
    for outcome in outcomes:
        table.add_row(*_row(outcome))
        for complaint in outcome.complaints:
            table.add_row(f"  {complaint}")
    return table


def faults_page(content: Mapping[str, Any]) -> str:
    """The page, as Markdown, of what the command wrote."""
    origin = content["provenance"]
    outcomes = [outcome_of(row) for row in content["scenarios"]]
    by_command: dict[str, list[str]] = {}
    for row in content["scenarios"]:
        by_command.setdefault(f"`{row['command']}` at {row['commit'][:10]}", []).append(row["name"])
    lines = [
        "# What happens when something breaks",
        "",
        *[f"Written by {command}: {', '.join(names)}.  " for command, names in by_command.items()],
        f"{origin['measured'][:10]}, bundle {content['bundle'][:12]}; {origin['cpu']}, {origin['cores']} cores, tritonserver of "
        f"nvidia-pytriton {origin['versions'].get('nvidia-pytriton', 'unknown')}, Python {origin['python']}.",
        "",
        EXPLAINED,
        "",
        f"| {' | '.join(COLUMNS)} |",
        f"|{'---|' * len(COLUMNS)}",
        *[f"| {' | '.join(_row(outcome))} |" for outcome in outcomes],
        "",
        *[_told(outcome) for outcome in outcomes],
        "",
        f"Accepted: nothing wrong, untyped or lost, the next call answered, p99.9 at most {SLACK_MS:.0f} ms beyond the deadline.",
    ]
    return "\n".join(lines) + "\n"


def _row(outcome: Outcome) -> list[str]:
    if outcome.skipped is not None:
        return [outcome.name, "skipped", *[""] * (len(COLUMNS) - 2)]
    return [
        outcome.name,
        f"{outcome.calls:,}",
        str(outcome.wrong),
        str(outcome.untyped),
        str(outcome.lost) if outcome.with_fallback else "no fallback",
        ", ".join(f"{count:,} {name}" for name, count in sorted(outcome.refused.items())) or "–",
        f"{outcome.by_edge:,}",
        lateness(outcome.late_ms),
        outcome.next_by or "nobody",
        f"{outcome.seconds:.0f}",
    ]


def _told(outcome: Outcome) -> str:
    if outcome.skipped is not None:
        return f"- **{outcome.name}**: {outcome.what}. Skipped: {outcome.skipped}."
    noted = f" {outcome.note[0].upper()}{outcome.note[1:]}." if outcome.note else ""
    missed = f" **Not as it should be: {'; '.join(outcome.complaints)}.**" if outcome.complaints else ""
    return f"- **{outcome.name}**: {outcome.what}.{noted}{missed}"
