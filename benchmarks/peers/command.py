"""The command ``peers`` of ``python -m benchmarks``."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.table import Table

from benchmarks.peers.catalogue import chosen_peers, other_peers, own_peers
from benchmarks.peers.measure import OFFLINE, REVIEW, WISH, PeersSettings, measure_peers
from benchmarks.peers.page import peers_page
from benchmarks.record import Record
from bertrec.bundle import Bundle
from train.progress import say, show


def add_peers(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    peers = commands.add_parser("peers", help="the same run in other libraries, each in a venv of its own, against bertrec")
    peers.add_argument("--run", required=True, type=Path, metavar="runs/NAME")
    peers.add_argument("--bundle", required=True, type=Path, nargs="+", metavar="bundles/NAME", help="of that run")
    peers.add_argument(
        "--venvs", type=Path, default=Path(".venv-peers"), help="made where they are missing (default: %(default)s)"
    )
    peers.add_argument("--material", type=Path, default=Path("results/peers"), help="the model as libraries load it; kept")
    peers.add_argument("--peers", default="", metavar="NAME;…", help="semicolons between them (default: all)")
    peers.add_argument("--rounds", type=int, default=PeersSettings.rounds)
    peers.add_argument(
        "--singly", type=int, default=PeersSettings.singly, help="wishes and reviews asked one at a time in a round"
    )
    peers.add_argument("--together", type=int, default=PeersSettings.together, help="reviews handed over at once in a round")
    peers.add_argument("--threads", type=int, default=PeersSettings.threads, help="of each (default: %(default)s)")
    peers.add_argument("--output", type=Path, default=Path("results/peers.json"))
    peers.add_argument("--page", type=Path, help="such as docs/peers.md")
    peers.set_defaults(run_recorded=_peers)


def _peers(given: argparse.Namespace) -> int:
    """Measure, and write what there is however it ends."""
    from benchmarks.peers.findings import findings
    from benchmarks.peers.prepare import prepare
    from export.networks import Networks
    from train.run import open_run

    settings = PeersSettings(rounds=given.rounds, singly=given.singly, together=given.together, threads=given.threads)
    bundles = [Bundle.open(folder) for folder in given.bundle]
    names = [name.strip() for name in given.peers.split(";") if name.strip()]
    run = open_run(given.run)
    peers = chosen_peers(names, [*own_peers(bundles), *other_peers(Networks(run).students)])
    material = prepare(run, given.material, settings.texts)
    about = {"bundles": {bundle.fingerprint: bundle.ort_engines for bundle in bundles}, "settings": asdict(settings)}
    record = Record(given.output, about)
    try:
        measure_peers(peers, material, given.venvs, settings, record)
        record.finish()
    finally:
        content = record.content
        if content["rows"]:
            record.note(**findings(content["rows"], content["peers"], material, settings.together))
        _tell(record.content, given.output, given.page)
    return 0


def _tell(content: dict[str, Any], output: Path, page: Path | None) -> None:
    show(peers_table(content))
    if page is not None:
        page.parent.mkdir(parents=True, exist_ok=True)
        page.write_text(peers_page(content), encoding="utf-8")
    say(f"written to {output}" + (f" and {page}" if page else ""))


def peers_table(content: dict[str, Any]) -> Table:
    """One line for each peer, from text to ten items."""
    table = Table(title="text in, ten items out, in each library", title_justify="left")
    for title in ("", "texts/s offline", "wish p50 ms", "review p50 ms", "NDCG@10"):
        table.add_column(title, justify="right" if title else "left")
    for name, peer in content.get("peers", {}).items():
        speed = content.get("speeds", {}).get(name, {})
        if "failed" in peer:
            table.add_row(name, f"failed ({peer['failed']['stage']}): {peer['failed']['reason']}")
        elif OFFLINE in speed:
            rate = f"{speed[OFFLINE]['total']['texts_per_s'][0]:,.0f}"
            singly = [f"{speed[workload]['total']['p50_ms']:.2f}" for workload in (WISH, REVIEW)]
            table.add_row(name, rate, *singly, f"{content['quality'][name]['ndcg_at_10']:.4f}")
    return table
