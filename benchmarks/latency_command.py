"""The command ``latency`` of ``python -m benchmarks``."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from rich.table import Table

from benchmarks.latency import LatencySettings, Samples, held_out_reviews, measure_latency, ratios, read_texts
from benchmarks.machine import provenance
from benchmarks.percentiles import cells_ms
from benchmarks.record import Record
from benchmarks.stages import measure_stages
from bertrec.bundle import Bundle
from bertrec.session_options import Device
from bertrec.tensors import ENCODER
from train.progress import say, show


def add_latency(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command's options."""
    latency = commands.add_parser("latency", help="latency and throughput of every engine, in-process")
    latency.add_argument("--bundle", required=True, type=Path, metavar="bundles/NAME")
    latency.add_argument("--output", type=Path, default=Path("results/latency.json"))
    latency.add_argument("--texts", type=Path, help="one text a line; otherwise held-out reviews of the bundled data")
    latency.add_argument("--rounds", type=int, default=LatencySettings.rounds)
    latency.add_argument("--threads", type=int, default=LatencySettings.threads, help="of each engine; 0: one for each core")
    latency.add_argument("--device", choices=[one.value for one in Device], default=LatencySettings.device)
    latency.add_argument("--grid", action="store_true", help="batches of 1, 8 and 32, at real lengths and at 16, 64, 128 tokens")
    latency.set_defaults(run_recorded=_latency)


def _latency(given: argparse.Namespace) -> int:
    settings = LatencySettings(rounds=given.rounds, threads=given.threads, grid=given.grid, device=given.device)
    bundle, texts = Bundle.open(given.bundle), read_texts(given.texts) if given.texts else held_out_reviews()
    encoders = [one for one in bundle.manifest.engines if one.model == ENCODER.name and one.name in bundle.ort_engines]
    about = {
        "bundle": bundle.fingerprint,
        "settings": asdict(settings),
        "engines": {one.name: {**one.quality, "size_bytes": bundle.manifest.files[one.file].size_bytes} for one in encoders},
    }
    record = Record(given.output, about, name="samples")
    try:
        record.note(ratios=ratios(measure_latency(bundle, texts, settings, record)))
        asked = texts[: settings.texts]
        stages = {name: measure_stages(bundle, name, asked, threads=settings.threads) for name in bundle.ort_engines}
        record.finish(stages=stages)
    finally:
        samples = [Samples(**row) for row in record.rows]
        show(latency_table(bundle, samples))
        say(_footnote(settings, samples))
    say(f"written to {given.output}")
    return 0


def latency_table(bundle: Bundle, samples: Sequence[Samples]) -> Table:
    """One line for each engine and workload of which there are samples."""
    table = Table(title="text in, ten ranked items out: quality and cost of each engine", title_justify="left")
    costs = ("p50 ms", "p95 ms", "p99 ms", "texts/s (slowest–fastest)", "× fp32")
    for title in ("engine", "NDCG@10", "R@10", "MB", "asked", *costs):
        table.add_column(title, justify="left" if title in ("engine", "asked") else "right")
    faster = {
        (one["engine"], one["workload"], one["batch"]): "{:.2f} ({:.2f}–{:.2f})".format(one["ratio"], *one["interval"])
        for one in ratios(samples)
    }
    for record in bundle.manifest.engines:
        rows = [row for row in samples if record.model == ENCODER.name and row.engine == record.name]
        for position, row in enumerate(rows):
            slowest, median, fastest = row.texts_per_second
            size_mb = bundle.manifest.files[record.file].size_bytes / 1e6
            quality = (_figure(record.quality, "ndcg_at_10"), _figure(record.quality, "recall_at_10"), f"{size_mb:.1f}")
            table.add_row(
                *((record.name, *quality) if position == 0 else ("",) * 4),
                f"1 {row.workload}" if row.batch == 1 else f"{row.batch} {row.workload}",
                *cells_ms(row.seconds, (50, 95, 99)),
                f"{median:.0f} ({slowest:.0f}–{fastest:.0f})",
                faster.get((row.engine, row.workload, row.batch), "–"),
                end_section=position == len(rows) - 1,
            )
    return table


def _figure(quality: Mapping[str, float], name: str) -> str:
    """A metric of the manifest; a dash where the engine was not measured at export."""
    return f"{quality[name]:.4f}" if name in quality else "–"


def _footnote(settings: LatencySettings, samples: Sequence[Samples]) -> str:
    origin = provenance()
    requests = {f"{row.batch} {row.workload}": sum(len(turn) for turn in row.rounds_s) for row in samples}
    counted = ", ".join(f"{number} × {name}" for name, number in requests.items())
    threads = settings.threads or origin.cores
    return (
        f"{origin.cpu}, {origin.cores} cores ({' '.join(origin.cpu_flags)}), {threads} threads an engine, onnxruntime "
        f"{origin.versions.get('onnxruntime')}; {counted} a request and engine, in {settings.rounds} interleaved rounds; "
        "quality as measured at export."
    )
