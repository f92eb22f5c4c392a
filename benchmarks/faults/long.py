"""Twice as many clients as there is room for, and full load for minutes."""

from __future__ import annotations

import shutil
import time
from dataclasses import replace

from benchmarks.batching import Change, apply
from benchmarks.faults.outcome import Outcome
from benchmarks.faults.processes import resident_bytes
from benchmarks.faults.stage import Stage, back_again, found
from bertrec.tensors import RECOMMEND
from client import Overloaded

MOST_GROWTH = 0.02
"""Of memory after the first part of the time, which fills caches and arenas."""

SETTLES = 0.1
"""The share of the time that counts as the first part: a minute of ten."""

SAMPLES = 50

QUEUE_PART = 4
"""The clients by this are what the overloaded server lets wait; as many run, and all others find the queue full."""


def overloaded(stage: Stage) -> Outcome:
    """More clients than a short queue has room for, none of them pausing, no fallback: an answer or a typed error, in time."""
    began_s = time.monotonic()
    queue = max(1, stage.many_clients // QUEUE_PART)
    what = f"{stage.many_clients} clients without a pause for {stage.overload_s:g} s, a queue of {queue}, no fallback"
    repository = shutil.copytree(stage.repository, stage.folder / "short-queue")
    apply([Change(RECOMMEND.name, r'(most_waiting_texts" .*: ")\d+', rf"\g<1>{queue}")], repository)
    with stage.server(repository) as server, stage.asking(server.grpc_url, fallback=False) as asker:
        with asker.load(stage.many_clients):
            time.sleep(stage.overload_s)
        note, broken = back_again(asker, "the load's end")
        outcome = found(asker, Outcome("overload", what, with_fallback=False, note=note, broken=broken), began_s=began_s)
    if Overloaded.__name__ not in outcome.refused:
        return replace(outcome, broken=(*outcome.broken, "no call met a full queue, so this shows nothing"))
    return outcome


def steady(stage: Stage) -> Outcome:
    """Full load for long: the server's memory stays what it was after the first part."""
    began_s = time.monotonic()
    with stage.server() as server, stage.asking(server.grpc_url) as asker:
        samples = []
        with asker.load(2 * stage.clients):
            time.sleep(SETTLES * stage.steady_s)
            for _ in range(SAMPLES):
                samples.append(resident_bytes(server.pid))
                time.sleep((1 - SETTLES) * stage.steady_s / SAMPLES)
        fifth = SAMPLES // 5
        first, last = (sorted(part)[len(part) // 2] for part in (samples[:fifth], samples[-fifth:]))
        growth = last / first - 1
        note = f"memory of all its processes {first / 1e6:.0f} MB, at the end {last / 1e6:.0f} MB ({growth:+.1%})"
        broken = (f"memory grew by {growth:.1%}, accepted are {MOST_GROWTH:.0%}",) if growth > MOST_GROWTH else ()
        what = f"{2 * stage.clients} clients without a pause for {stage.steady_s / 60:g} minutes"
        return found(asker, Outcome("steady", what, note=note, broken=broken), began_s=began_s)
