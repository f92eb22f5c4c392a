"""``python -m export report``: a table of all engines of a bundle, and a chart of what they cost and how well they rank."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from rich import box
from rich.table import Table

from bertrec.bundle import Bundle, EngineRecord
from bertrec.errors import InvalidInput
from bertrec.tensors import ENCODER, MATCHER
from export.verdict import IS_REFERENCE, PASSED, REJECTED
from train.progress import say, show

if TYPE_CHECKING:
    from export.chart import Panel

CHART = "engines"
"""The chart's file, which gets the endings .png and .svg."""
NOTHING = "–"
NAME_WIDTH = 20
ACCURACY = "_accuracy"
"""The ending of a head's metric in the quality of an encoder engine."""


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command ``report``."""
    parser = commands.add_parser("report", help="print all engines of a bundle and draw quality against latency and size")
    parser.add_argument("--bundle", required=True, type=Path, metavar="bundles/NAME")
    parser.add_argument("--output", required=True, type=Path, metavar="DIR", help=f"where {CHART}.png and {CHART}.svg go")


def run(given: argparse.Namespace) -> int:
    """Run the command; returns the exit status."""
    bundle = Bundle.open(given.bundle)
    show(engine_table(bundle))
    for table in (matcher_table(bundle), heads_table(bundle)):
        if table.row_count:
            show(table)
    show(reason_table(bundle))
    for path in write_chart(bundle, given.output):
        say(f"written to {path}")
    return 0


def write_chart(bundle: Bundle, output: Path) -> list[Path]:
    """Draw the encoder engines into the folder ``output``, as PNG and SVG; returns the files.

    Written whole or not at all. Raises InvalidInput where the folder cannot be written to, MissingDependency without matplotlib.
    """
    from export.chart import draw  # matplotlib takes a second to load, and nothing else here needs it

    name = str(bundle.manifest.data.get("name", bundle.folder.name))
    texts = max((int(record.quality.get("texts", 0)) for record in bundle.manifest.engines), default=0)
    title = f"Encoder engines of {bundle.fingerprint} ({name}), {texts:,} held-out texts"
    drawn = draw([_latency(bundle), _size(bundle)], title=title, quality="NDCG@10")
    return _write_whole({output / f"{CHART}.{ending}": content for ending, content in drawn.items()}, output)


def engine_table(bundle: Bundle) -> Table:
    """Every engine with what was measured of it, the rejected ones too.

    % lost: of the reference's NDCG@10. overlap: of the top 10 with the reference's. batch: the largest change of a vector's
    component that other texts in the batch make. ms: for one text. ×: the throughput, in multiples of the reference's.
    """
    timed = next((record.latency for record in bundle.manifest.engines if record.latency), {})
    where = f", {timed['threads']:g} threads, {timed['rounds']:g} rounds" if timed else ""
    table = _table(f"engines of {bundle.folder}{where}")
    table.add_column("engine", overflow="fold", min_width=NAME_WIDTH)
    table.add_column("verdict", no_wrap=True)
    for title in ("MB", "NDCG@10", "% lost (95%)", "R@10", "overlap", "batch", "ms", "texts/s", "×"):
        table.add_column(title, justify="right", no_wrap=True)
    for record in bundle.manifest.engines:
        table.add_row(*_row(bundle, record))
    return table


def matcher_table(bundle: Bundle) -> Table:
    """The matcher's engines: AUC with its difference to the reference's (95%), and the share of decisions that are the same."""
    table = _table("the matcher")
    table.add_column("engine", overflow="fold", min_width=NAME_WIDTH)
    for title in ("MB", "AUC, item fits", "AUC, writer recommends", "alike", "ms", "texts/s", "×"):
        table.add_column(title, justify="right", no_wrap=True)
    for record in (one for one in bundle.manifest.engines if one.model == MATCHER.name):
        table.add_row(
            f"{record.name} {record.verdict}",
            f"{_size_bytes(bundle, record) / 1e6:.1f}",
            *(_auc(record.quality, task) for task in ("fits", "recommends")),
            _number(record.parity, "decision_agreement", ".3f"),
            _number(record.latency, "single_ms_median", ".2f"),
            _number(record.latency, "texts_per_s_median", ",.0f"),
            _number(record.latency, "throughput_ratio", ".2f"),
        )
    return table


def _auc(quality: Mapping[str, float], task: str) -> str:
    if f"{task}_auc_difference" not in quality:
        return _number(quality, f"{task}_auc", ".4f")
    difference, low, high = (quality[f"{task}_auc_difference{end}"] for end in ("", "_low", "_high"))
    return f"{quality[f'{task}_auc']:.4f} {difference:+.4f} ({low:+.4f}…{high:+.4f})"


def heads_table(bundle: Bundle) -> Table:
    """The accuracy of each classification head on the vectors of each encoder engine."""
    encoders = [record for record in bundle.manifest.engines if record.model == ENCODER.name]
    columns = list(dict.fromkeys(name for record in encoders for name in record.quality if name.endswith(ACCURACY)))
    table = _table("accuracy of the heads, by the engine that reads the text")
    table.add_column("engine", overflow="fold", min_width=NAME_WIDTH)
    for name in columns:
        table.add_column(name.removesuffix(ACCURACY), justify="right")
    for record in encoders if columns else []:
        table.add_row(record.name, *(_number(record.quality, name, ".3f") for name in columns))
    return table


def reason_table(bundle: Bundle) -> Table:
    """Why one engine was chosen, and why others were not accepted."""
    table = _table("why")
    table.add_column("engine", overflow="fold", min_width=NAME_WIDTH)
    table.add_column("reason", overflow="fold")
    if choice := bundle.manifest.choice:
        table.add_row(str(choice["engine"]), f"chosen for {choice['target']}, {choice['objective']}: {choice['why']}")
    for record in bundle.manifest.engines:
        if record.why and record.verdict not in (IS_REFERENCE, PASSED):
            table.add_row(name_of(record), f"{record.verdict}: {record.why}")
    return table


def _table(title: str) -> Table:
    """With little between the columns, so that all fit into a log."""
    return Table(title=title, box=box.SIMPLE_HEAD, padding=(0, 0, 0, 1), pad_edge=False)


def _row(bundle: Bundle, record: EngineRecord) -> list[str]:
    quality, parity, latency = record.quality, record.parity, record.latency
    return [
        name_of(record),
        record.verdict,
        f"{_size_bytes(bundle, record) / 1e6:.1f}",
        _number(quality, "ndcg_at_10", ".4f"),
        _lost(quality),
        _number(quality, "recall_at_10", ".3f"),
        _number(parity, "top10_overlap", ".3f"),
        _in_any_batch(record),
        _number(latency, "single_ms_median", ".2f"),
        _number(latency, "texts_per_s_median", ",.0f"),
        _number(latency, "throughput_ratio", ".2f"),
    ]


def name_of(record: EngineRecord) -> str:
    """What tables call it: an encoder engine by its name alone, as it is asked for."""
    return record.name if record.model == ENCODER.name else f"{record.model} {record.name}"


def _number(values: Mapping[str, float], name: str, form: str) -> str:
    return format(values[name], form) if name in values else NOTHING


def _lost(quality: Mapping[str, float]) -> str:
    """The share of the reference's NDCG@10 that is lost, in percent, with its interval."""
    if "ndcg_difference" not in quality:
        return NOTHING
    whole = (quality["ndcg_at_10"] - quality["ndcg_difference"]) or 1.0
    lost, low, high = (0.0 - 100 * quality[f"ndcg_difference{end}"] / whole for end in ("", "_high", "_low"))
    return f"{lost:+.1f} ({low:+.1f}…{high:+.1f})".replace("-0.0", "+0.0")


def _in_any_batch(record: EngineRecord) -> str:
    if record.batch_invariant or "batch_difference_max" not in record.parity:
        return "same" if record.batch_invariant else NOTHING
    return f"±{record.parity['batch_difference_max']:.3f}"


def _size_bytes(bundle: Bundle, record: EngineRecord) -> int:
    return bundle.manifest.files[record.file].size_bytes if record.file else record.size_bytes


def _latency(bundle: Bundle) -> Panel:
    """Quality against what one text takes."""
    costs = {record.name: record.latency["single_ms_median"] for record in _drawn(bundle) if record.latency}
    threads = max((record.latency["threads"] for record in _drawn(bundle) if record.latency), default=0)
    return _panel(bundle, costs, f"milliseconds for one text, {threads:g} threads" if costs else "milliseconds for one text")


def _size(bundle: Bundle) -> Panel:
    """Quality against the size of the engine's file."""
    return _panel(bundle, {record.name: _size_bytes(bundle, record) / 1e6 for record in _drawn(bundle)}, "size of the engine, MB")


def _drawn(bundle: Bundle) -> list[EngineRecord]:
    """The encoder engines whose ranking was measured."""
    return [record for record in bundle.manifest.engines if record.model == ENCODER.name and "ndcg_at_10" in record.quality]


def _panel(bundle: Bundle, costs: Mapping[str, float], title: str) -> Panel:
    from export.chart import Panel, Point

    records = [record for record in _drawn(bundle) if record.name in costs]
    reference = next((record.quality["ndcg_at_10"] for record in records if record.verdict == IS_REFERENCE), None)

    def end(record: EngineRecord, name: str) -> float | None:
        return None if reference is None or name not in record.quality else reference + record.quality[name]

    points = [
        Point(
            name=_label(bundle, record),
            cost=costs[record.name],
            quality=record.quality["ndcg_at_10"],
            passed=record.verdict in (IS_REFERENCE, PASSED),
            low=end(record, "ndcg_difference_low"),
            high=end(record, "ndcg_difference_high"),
        )
        for record in records
    ]
    return Panel(title, points, reference)


def _label(bundle: Bundle, record: EngineRecord) -> str:
    """The engine's name, and whether it was chosen or rejected."""
    chosen = bundle.manifest.choice.get("engine") == record.name
    return record.name + " (chosen)" * chosen + " (rejected)" * (record.verdict == REJECTED)


def _write_whole(files: Mapping[Path, bytes], output: Path) -> list[Path]:
    """Write all files beside their places first, so that a full disk leaves those that were there."""
    partial = {path: path.with_name(path.name + ".partial") for path in files}
    try:
        output.mkdir(parents=True, exist_ok=True)
        for path, content in files.items():
            partial[path].write_bytes(content)
        for path in files:
            os.replace(partial[path], path)
    except OSError as error:
        raise InvalidInput(
            f"the report cannot be written to {output}: {error}. Free some space or choose another --output"
        ) from error
    finally:
        for path in partial.values():
            if path.is_file():
                path.unlink()
    return list(files)
