"""The toolbox of transfer learning, a row for each tool: what it gains, what it costs, and how it bears other ways of asking.

Every row is one ``python -m train fit`` in a process of its own, with the switches of the tool and the same texts to learn from.
It runs on one thread, and its minutes are the processor's, so that a row is the same beside other work.
"""

from __future__ import annotations

import dataclasses
import json
import os
import resource
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.finished import finished_tables
from benchmarks.machine import provenance
from bertrec.errors import InvalidInput, InvalidRun
from train.compare import compare
from train.evaluate import evaluate
from train.progress import say
from train.rankers import FUSED
from train.records import write_json
from train.run import Run, open_run

TEXT_ALONE = "text alone"
METRIC = "ndcg_at_10"
QUERIES = ("as-written", "typos", "synonyms", "word-order")
ATTACKED = (
    "none",
    "correct-spelling",
    "synonyms",
    "synonyms-wordnet",
    "dropout",
    "swap",
    "typos",
    "all-adaptive",
    "fgm",
    "freelb",
)
"""The rows that are asked in all ways of ``QUERIES``; the other tools are not meant for it, and are asked as written."""
BASE = "none"
"""The row that the others are held against."""
TOOLS: Mapping[str, tuple[str, ...]] = {
    BASE: (),
    "fp32": ("--precision", "fp32"),
    "correct-spelling": ("--correct-spelling",),
    "weigh-by-sentiment": ("--weigh-by-sentiment",),
    "gate-by-sentiment": ("--gate-by-sentiment",),
    "multi-task": ("--heads", "multi-task"),
    "without-entities": ("--without", "graph"),
    "synonyms": ("--augment", "synonyms", "--wordnet", "none"),
    "synonyms-wordnet": ("--augment", "synonyms", "--wordnet", "data/wordnet"),
    "dropout": ("--augment", "dropout"),
    "swap": ("--augment", "swap"),
    "typos": ("--augment", "typos"),
    "crop": ("--augment", "crop"),
    "all-adaptive": ("--augment", "synonyms,dropout,swap,typos,crop", "--wordnet", "none", "--augment-strength", "adaptive"),
    "fgm": ("--adversarial", "fgm"),
    "freelb": ("--adversarial", "freelb"),
    "lora": ("--tuning", "lora"),
    "adalora": ("--tuning", "adalora"),
    "adapter": ("--tuning", "adapter"),
    "mlm": ("--adapt", "mlm"),
    "simcse": ("--adapt", "simcse"),
}
"""Tool → its switches."""

FIT = ("--preset", "quick", "--max-minutes", "1440", "--precision", "auto")
"""What all rows have in common: one pass over all texts, however long it takes. A tool's switches come behind, and win."""
COST_FILE = "cost.json"
LORA_KEEPS = 0.98
"""Of full fine-tuning's NDCG@10, fused."""


@dataclass(frozen=True)
class ToolSettings:
    """What to run. tools: names in ``TOOLS``; the base row is always among them."""

    data: str = "clothing"
    seed: int = 0
    tools: tuple[str, ...] = tuple(TOOLS)
    runs: Path = Path("runs/tools")

    def __post_init__(self) -> None:
        if unknown := [name for name in self.tools if name not in TOOLS]:
            raise InvalidInput(f"tools names {unknown[0]!r}; accepted are {', '.join(TOOLS)}")

    def folder(self, tool: str) -> Path:
        """The run of a row."""
        return self.runs / f"{Path(self.data).name}-{tool}-{self.seed}"


def measure_tools(settings: ToolSettings, output: Path) -> dict[str, Any]:
    """Fit and evaluate every row; what is finished is reused. ``output`` is written after each row, so an end loses nothing.

    Rows of other tools that ``output`` has of the same data and seed stay, each beside the base row that it was held against.
    """
    earlier = _earlier(settings, output)
    content: dict[str, Any] = {
        "provenance": dataclasses.asdict(provenance()),
        "settings": {"data": settings.data, "seed": settings.seed},
        **({"finished": earlier["finished"]} if "finished" in earlier else {}),
        "rows": earlier.get("rows", []),
    }
    output.parent.mkdir(parents=True, exist_ok=True)
    names = list(dict.fromkeys([BASE, *settings.tools]))
    for number, tool in enumerate(names, 1):
        say(f"tool {number} of {len(names)}: {tool}")
        _fit(tool, settings)
        run = open_run(settings.folder(tool))
        evaluate(run, queries=QUERIES if tool in ATTACKED else QUERIES[:1], baselines=["none"])
        base = open_run(settings.folder(BASE))
        content["rows"] = _replaced(content["rows"], {**_row(tool, run, base), **_origin(content["provenance"])})
        write_json(output, content)
    return content


def _earlier(settings: ToolSettings, output: Path) -> dict[str, Any]:
    """What ``output`` holds of the same data and seed."""
    content = read_tools(output) if output.is_file() else {}
    return content if content.get("settings") == {"data": settings.data, "seed": settings.seed} else {}


def _origin(origin: Mapping[str, Any]) -> dict[str, Any]:
    """Where a row was measured; two machines may have one name, so the flags belong to it."""
    return {"machine": {name: origin[name] for name in ("cpu", "cpu_flags", "cores")}, "measured": origin["measured"]}


def _replaced(rows: Sequence[Mapping[str, Any]], new: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The rows with this one in the place of the tool's earlier one; base rows without any other go."""
    others = [row for row in rows if row["tool"] != new["tool"] or (new["tool"] == BASE and row["base"] != new["base"])]
    order = list(TOOLS)
    found = [*others, new]
    needed = {row["base"] for row in found if row["tool"] != BASE} | {new["base"]}
    bases = list(dict.fromkeys(row["base"] for row in found if row["base"] in needed))
    return [
        row
        for base in bases
        for row in sorted((one for one in found if one["base"] == base), key=lambda one: order.index(one["tool"]))
    ]


def read_tools(path: Path) -> dict[str, Any]:
    """What :func:`measure_tools` wrote. Raises InvalidInput where there is nothing of it."""
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        content["rows"]
    except (OSError, ValueError, KeyError) as error:
        raise InvalidInput(f"{path} holds no rows of tools ({error}); they are measured by: python -m benchmarks tools") from None
    return content


def _fit(tool: str, settings: ToolSettings) -> None:
    """In a process of its own, so that its peak memory is its own. Raises InvalidInput where it fails; it has said why."""
    folder, before = settings.folder(tool), _cpu_s()
    was_finished = _is_finished(folder)
    command = [
        sys.executable,
        "-m",
        "train",
        "fit",
        "--data",
        settings.data,
        "--seed",
        str(settings.seed),
        "--output",
        str(folder),
    ]
    one_thread = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    try:
        done = subprocess.run([*command, *FIT, *TOOLS[tool]], env=one_thread, check=False)
    finally:
        if folder.is_dir() and not was_finished:
            write_json(folder / COST_FILE, {"cpu_minutes": _cpu_minutes(folder) + (_cpu_s() - before) / 60})
    if done.returncode:
        raise InvalidInput(f"{tool}: python -m train fit {' '.join(TOOLS[tool])} failed; see above")


def _cpu_s() -> float:
    """Processor seconds of the child processes that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _cpu_minutes(folder: Path) -> float:
    """Of all sittings of a row's fit."""
    path = folder / COST_FILE
    return float(json.loads(path.read_text())["cpu_minutes"]) if path.is_file() else 0.0


def _is_finished(folder: Path) -> bool:
    try:
        return open_run(folder).finished
    except InvalidRun:
        return False


def _row(tool: str, run: Run, base: Run) -> dict[str, Any]:
    """``asked``: ranker → way of asking → queries, NDCG@10 of the row and of the base, difference with its paired interval.

    base: when the base row's run was made, which tells it from others.
    """
    return {
        "tool": tool,
        "switches": list(TOOLS[tool]),
        "cpu_minutes": _cpu_minutes(run.folder),
        "source_commit": run.record["source_commit"],
        "base": base.record["created"],
        "texts_read": run.record["texts_read"],
        "cost": run.record["tuning"],
        "asked": {
            ranker: {one.kind: dataclasses.asdict(one) for one in compare(run, base, metric=METRIC, ranker=ranker)}
            for ranker in (FUSED, TEXT_ALONE)
        },
    }


def tools_page(content: Mapping[str, Any]) -> str:
    """docs/transfer.md: a row for each tool."""
    settings, rows = content["settings"], content["rows"]
    command = f"python -m train fit --data {settings['data']} --seed {settings['seed']} {' '.join(FIT)}"
    lines = [
        "# The toolbox of transfer learning",
        "",
        "Generated by `python -m benchmarks tools`; do not edit (`--page-only` writes it anew from the results). Each row is one",
        f"`{command} SWITCHES --output runs/NAME`",
        "with the switches that it names: one pass over all texts, on one thread (`OMP_NUM_THREADS=1`), in a process of its own.",
        "NDCG@10 on the test split with its difference to the row without a tool; * marks a difference whose paired 95% interval",
        "excludes 0. Fused and text alone are asked as written; typos, synonyms and word order change the same texts, and are",
        "answered by the text alone (– where a tool is not meant for them), with what is lost of the row's own NDCG@10 of the",
        "text alone as written. Minutes are the processor's, of the whole fit with all that was read; matrix products are in",
        "bf16 where the processor has it, but for the row fp32. Peak MB is the most memory that the process of the fit held at",
        "once until the encoder was trained, with its texts, libraries and kept states, not what the tool adds. In the row",
        "correct-spelling the training texts are corrected; the queries of all rows, those with typos too, are read as they are.",
        "What TF-IDF and the prior bring beside the entities is told by switching each off in [quality.md](quality.md).",
        "",
        *_verdict(rows),
    ]
    for base in dict.fromkeys(row["base"] for row in rows):
        lines += _table([row for row in rows if row["base"] == base])
    if missing := [name for name in TOOLS if name not in {row["tool"] for row in rows}]:
        lines += [f"Not measured yet: {', '.join(missing)}.", ""]
    return "\n".join([*lines, *finished_tables(content.get("finished", []))]).rstrip("\n") + "\n"


def _table(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The rows of one base, with the machine that fitted them."""
    machine, days = rows[-1]["machine"], sorted({row["measured"][:10] for row in rows})
    return [
        f"Measured {' to '.join(dict.fromkeys((days[0], days[-1])))} on {machine['cpu']} ({' '.join(machine['cpu_flags'])}), "
        f"{machine['cores']} cores; {_fitted(rows)}:",
        "",
        "| tool | switches | fused | text alone | typos | synonyms | word order | CPU minutes | parameters trained | peak MB |",
        "|---|---|---|---|---|---|---|---|---|---|",
        *(_line(row) for row in rows),
        "",
    ]


def _fitted(rows: Sequence[Mapping[str, Any]]) -> str:
    """At which commits the rows were fitted, since runs are reused."""
    commits = dict.fromkeys(row.get("source_commit", "")[:10] for row in rows)
    known = [commit for commit in commits if commit]
    said = [f"fitted at {', '.join(known)}"] if known else []
    if "" in commits:
        said.append(f"{'some were' if known else 'its rows were'} fitted at commits that the results do not name yet")
    return "; ".join(said)


def _verdict(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """What LoRA keeps of full fine-tuning; nothing without its row."""
    asked = next((row["asked"] for row in rows if row["tool"] == "lora"), None)
    if asked is None:
        return []
    fused, alone = (asked[ranker]["as-written"] for ranker in (FUSED, TEXT_ALONE))
    kept = fused["first"] / fused["second"]
    return [
        f"LoRA keeps {kept:.1%} of full fine-tuning's NDCG@10 fused (wanted {LORA_KEEPS:.0%}: "
        f"{'reached' if kept >= LORA_KEEPS else 'missed'}) and {alone['first'] / alone['second']:.1%} by the text alone.",
        "",
    ]


def _line(row: Mapping[str, Any]) -> str:
    fused, alone, cost, base = row["asked"][FUSED], row["asked"][TEXT_ALONE], row["cost"], row["tool"] == BASE
    shown = [_shown(fused[QUERIES[0]], base), _shown(alone[QUERIES[0]], base)]
    for kind in QUERIES[1:]:
        one = alone.get(kind)
        shown.append("–" if one is None else f"{_shown(one, base)}; {one['first'] / alone[QUERIES[0]]['first'] - 1:+.1%}")
    switches = " ".join(row["switches"])
    figures = [f"{row['cpu_minutes']:.1f}", f"{cost['trained_parameters']:,}", f"{cost['peak_memory_mb']:,.0f}"]
    return f"| {row['tool']} | {f'`{switches}`' if switches else ''} | {' | '.join([*shown, *figures])} |"


def _shown(one: Mapping[str, Any], base: bool) -> str:
    """NDCG@10, and how it differs from the base row's."""
    difference = one["difference"]
    if base:
        return f"{one['first']:.4f}"
    sure = difference["low"] > 0 or difference["high"] < 0
    return f"{one['first']:.4f} ({difference['value']:+.4f}{'*' if sure else ''})"
