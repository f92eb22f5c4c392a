"""The commands that write a benchmarks.record.Record, finding by finding."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.batching import VARIANTS, BatchingSettings, batching_page, batching_table, measure_batching
from benchmarks.bls import BlsSettings, bls_table, measure_bls
from benchmarks.bls_page import bls_page
from benchmarks.load import SERVERS, LoadSettings, load_table, measure_load
from benchmarks.options import add_common, joined, texts_of, values
from benchmarks.overhead import OverheadSettings, measure_overhead, overhead_table
from benchmarks.overhead_page import overhead_page
from benchmarks.record import Record
from benchmarks.roofline import RooflineSettings, measure_roofline, roofline_table
from benchmarks.scale import ScaleSettings, growth, measure_scale, scale_table
from benchmarks.startup import WAYS, StartupSettings, measure_startup, startup_table
from benchmarks.throughput import ThroughputSettings, measure_throughput, summary, throughput_table
from bertrec.bundle import Bundle
from bertrec.session_options import Device
from train.progress import say, show

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]


def add_commands(commands: Commands) -> None:
    """Add the commands to a parser's; each sets ``run_recorded``, which takes the parsed arguments and gives the exit status."""
    _add_load(commands)
    _add_batching(commands)
    _add_scale(commands)
    _add_throughput(commands)
    _add_roofline(commands)
    _add_startup(commands)
    _add_overhead(commands)
    _add_bls(commands)


def _add_load(commands: Commands) -> None:
    load = commands.add_parser("load", help="Triton and the edge server under closed-loop and open-loop load")
    add_common(load, "load", run=_load)
    load.add_argument("--servers", default=",".join(LoadSettings.servers), metavar="NAME,…", help=f"of {', '.join(SERVERS)}")
    load.add_argument("--protocols", default=",".join(LoadSettings.protocols), metavar="NAME,…")
    load.add_argument("--clients", default=joined(LoadSettings.clients), metavar="N,…", help="closed loop; default: %(default)s")
    load.add_argument("--rates", default=joined(LoadSettings.rates), metavar="R,…", help="open loop, requests a second, rising")
    load.add_argument("--seconds", type=float, default=LoadSettings.seconds, help="of each load")
    load.add_argument("--warm-up-s", type=float, default=LoadSettings.warm_up_s, help="before each load")
    load.add_argument("--objective-ms", type=float, default=LoadSettings.objective_ms, help="for the 99th percentile")
    load.add_argument("--engine", help="encoder engine of the bundle (default: the export's choice)")
    load.add_argument("--threads", type=int, default=LoadSettings.threads, help="of each engine of the edge server")
    load.add_argument("--running", default="", metavar="URL,…", help="a Triton started elsewhere: its http:// and grpc:// URLs")


def _load(given: argparse.Namespace) -> int:
    settings = LoadSettings(
        servers=values(given.servers, str),
        protocols=values(given.protocols, str),
        clients=values(given.clients, int),
        rates=values(given.rates, float),
        seconds=given.seconds,
        warm_up_s=given.warm_up_s,
        objective_ms=given.objective_ms,
        engine=given.engine,
        threads=given.threads,
        running=values(given.running, str),
    )
    bundle, texts = Bundle.open(given.bundle), texts_of(given)
    record = Record(given.output, {"bundle": bundle.fingerprint, "settings": asdict(settings)})
    try:
        measure_load(given.bundle, texts, settings, record)
        record.finish()
    finally:
        show(load_table(record.rows))
    say(f"written to {given.output}")
    return 0


def _add_batching(commands: Commands) -> None:
    batching = commands.add_parser("batching", help="Triton's queue delay, instances and threads, beside the repository as it is")
    add_common(batching, "batching", run=_batching)
    batching.add_argument("--page", type=Path, default=Path("docs/decisions/batching.md"))
    batching.add_argument("--variants", default=",".join(VARIANTS), metavar="NAME,…", help="default: %(default)s")
    batching.add_argument("--clients", default=joined(BatchingSettings.clients), metavar="N,…", help="closed loop")
    batching.add_argument("--seconds", type=float, default=BatchingSettings.seconds, help="of each load")
    batching.add_argument("--warm-up-s", type=float, default=BatchingSettings.warm_up_s, help="before each load")
    batching.add_argument("--rounds", type=int, default=BatchingSettings.rounds)
    batching.add_argument("--engine", help="encoder engine of the bundle (default: the export's choice)")


def _batching(given: argparse.Namespace) -> int:
    settings = BatchingSettings(
        variants=values(given.variants, str),
        clients=values(given.clients, int),
        seconds=given.seconds,
        warm_up_s=given.warm_up_s,
        rounds=given.rounds,
        engine=given.engine,
    )
    bundle, texts = Bundle.open(given.bundle), texts_of(given)
    record = Record(given.output, {"bundle": bundle.fingerprint, "settings": asdict(settings)})
    try:
        measure_batching(given.bundle, texts, settings, record)
        record.finish()
    finally:
        show(batching_table(record.rows))
    given.page.write_text(batching_page(record.content), encoding="utf-8")
    say(f"written to {given.output} and {given.page}")
    return 0


def _add_scale(commands: Commands) -> None:
    scale = commands.add_parser("scale", help="the ten best of catalogues of growing size: exact, exact by int8, approximate")
    add_common(scale, "scale", run=_scale)
    scale.add_argument("--sizes", default=joined(ScaleSettings.sizes), metavar="N,…", help="of the catalogues")
    scale.add_argument("--queries", type=int, default=ScaleSettings.queries, help="measured; as many others tune the approximate")
    scale.add_argument("--rounds", type=int, default=ScaleSettings.rounds, help="how often each query is asked")
    scale.add_argument("--texts-used", type=int, default=ScaleSettings.texts, help="real texts to encode, queries included")
    scale.add_argument("--engine", help="encoder engine of the bundle (default: the export's choice)")
    scale.add_argument("--threads", type=int, default=ScaleSettings.threads, help="of every search; 0: one for each core")


def _scale(given: argparse.Namespace) -> int:
    settings = ScaleSettings(
        sizes=values(given.sizes, int),
        queries=given.queries,
        tuning=given.queries,
        rounds=given.rounds,
        texts=given.texts_used,
        engine=given.engine,
        threads=given.threads,
    )
    bundle, texts = Bundle.open(given.bundle), texts_of(given)
    record = Record(given.output, {"bundle": bundle.fingerprint, "settings": asdict(settings)})
    try:
        measure_scale(bundle, texts, settings, record)
        record.finish(growth=growth(record.rows))
    finally:
        show(scale_table(record.rows))
    say(f"written to {given.output}")
    return 0


def _add_throughput(commands: Commands) -> None:
    offline = commands.add_parser("throughput", help="texts that every encoder engine reads a second, offline")
    add_common(offline, "throughput", run=_throughput)
    offline.add_argument("--seconds", type=float, default=ThroughputSettings.seconds, help="of each window")
    offline.add_argument("--rounds", type=int, default=ThroughputSettings.rounds, help="windows that each engine gets")
    offline.add_argument("--engines", default="", metavar="NAME,…", help="default: all that ONNX Runtime runs")
    offline.add_argument("--threads", type=int, default=ThroughputSettings.threads, help="of each engine; 0: one for each core")
    offline.add_argument("--device", choices=[one.value for one in Device], default=ThroughputSettings.device)


def _throughput(given: argparse.Namespace) -> int:
    settings = ThroughputSettings(
        seconds=given.seconds,
        rounds=given.rounds,
        threads=given.threads,
        engines=values(given.engines, str),
        device=given.device,
    )
    bundle, texts = Bundle.open(given.bundle), texts_of(given)
    record = Record(given.output, {"bundle": bundle.fingerprint, "settings": asdict(settings)})
    try:
        measure_throughput(bundle, texts, settings, record)
        record.finish(engines=summary(record.rows))
    finally:
        show(throughput_table(record.rows))
    say(f"written to {given.output}")
    return 0


def _add_roofline(commands: Commands) -> None:
    roofline = commands.add_parser("roofline", help="how near every encoder engine comes to what this machine can do")
    add_common(roofline, "roofline", run=_roofline)
    roofline.add_argument("--batch", type=int, default=RooflineSettings.batch)
    roofline.add_argument("--tokens", type=int, default=RooflineSettings.tokens)
    roofline.add_argument("--repeats", type=int, default=RooflineSettings.repeats)
    roofline.add_argument("--side", type=int, default=RooflineSettings.side, help="of the matrices whose product is the peak")
    roofline.add_argument("--threads", type=int, default=RooflineSettings.threads, help="of everything; 0: one for each core")


def _roofline(given: argparse.Namespace) -> int:
    settings = RooflineSettings(
        batch=given.batch, tokens=given.tokens, repeats=given.repeats, threads=given.threads, side=given.side
    )
    bundle = Bundle.open(given.bundle)
    record = Record(given.output, {"bundle": bundle.fingerprint, "settings": asdict(settings)})
    try:
        measure_roofline(bundle, settings, record)
        record.finish()
    finally:
        show(roofline_table(record.rows))
    say(f"written to {given.output}")
    return 0


def _add_startup(commands: Commands) -> None:
    startup = commands.add_parser("startup", help="from the start of a process to its first answer, memory and disk")
    add_common(startup, "startup", run=_startup)
    startup.add_argument("--ways", default=",".join(WAYS), metavar="NAME,…")
    startup.add_argument("--engines", default="", metavar="NAME,…", help="default: all that ONNX Runtime runs")
    startup.add_argument("--rounds", type=int, default=StartupSettings.rounds, help="starts of each engine in each way")
    startup.add_argument("--threads", type=int, default=StartupSettings.threads, help="of each engine; 0: one for each core")


def _startup(given: argparse.Namespace) -> int:
    settings = StartupSettings(
        ways=values(given.ways, str), engines=values(given.engines, str), rounds=given.rounds, threads=given.threads
    )
    bundle = Bundle.open(given.bundle)
    record = Record(given.output, {"bundle": bundle.fingerprint, "settings": asdict(settings)})
    try:
        measure_startup(bundle, settings, record)
        record.finish()
    finally:
        show(startup_table(record.rows))
    say(f"written to {given.output}")
    return 0


def _add_overhead(commands: Commands) -> None:
    overhead = commands.add_parser("overhead", help="what Triton adds over the engine in this process, on the same cores")
    add_common(overhead, "overhead", run=_overhead)
    _add_beside(overhead, OverheadSettings, Path("docs/overheads.md"))


def _overhead(given: argparse.Namespace) -> int:
    settings = OverheadSettings(
        engines=values(given.engine, str), seconds=given.seconds, rounds=given.rounds, threads=given.threads
    )
    bundle, texts = Bundle.open(given.bundle), texts_of(given)
    record = Record(given.output, {"bundle": bundle.fingerprint, "settings": asdict(settings)})
    try:
        measure_overhead(bundle, texts, settings, record)
        record.finish()
    finally:
        show(overhead_table(record.rows))
    return _paged(given, overhead_page(record.content))


def _add_bls(commands: Commands) -> None:
    bls = commands.add_parser(
        "bls", help="recommend as a python model that asks the others, beside an ensemble that does the same"
    )
    add_common(bls, "bls", run=_bls)
    _add_beside(bls, BlsSettings, Path("docs/decisions/bls.md"))


def _bls(given: argparse.Namespace) -> int:
    settings = BlsSettings(engines=values(given.engine, str), seconds=given.seconds, rounds=given.rounds, threads=given.threads)
    bundle, texts = Bundle.open(given.bundle), texts_of(given)
    record = Record(given.output, {"bundle": bundle.fingerprint, "settings": asdict(settings)})
    try:
        measure_bls(bundle, texts, settings, record)
        record.finish()
    finally:
        show(bls_table(record.rows))
    return _paged(given, bls_page(record.content))


def _add_beside(parser: argparse.ArgumentParser, settings: type[OverheadSettings | BlsSettings], page: Path) -> None:
    parser.add_argument("--engine", default="", metavar="NAME,…", help="encoder engines (default: fp32 and the fastest)")
    parser.add_argument("--seconds", type=float, default=settings.seconds, help="of each window (default: %(default)g)")
    parser.add_argument("--rounds", type=int, default=settings.rounds, help="windows that each way gets (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=settings.threads, help="cores for everything; 0: all of them")
    parser.add_argument("--page", type=Path, default=page, help="default: %(default)s")


def _paged(given: argparse.Namespace, page: str) -> int:
    given.page.parent.mkdir(parents=True, exist_ok=True)
    given.page.write_text(page, encoding="utf-8")
    say(f"written to {given.output} and {given.page}")
    return 0
