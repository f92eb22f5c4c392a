"""Twice what a server can answer, and full load for minutes."""

from __future__ import annotations

import shutil
import time
from contextlib import AbstractContextManager
from dataclasses import replace

from benchmarks.batching import Change, apply
from benchmarks.faults.asking import Asker
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
"""The clients by this are what the overloaded server lets wait, and how many find out its capacity."""

CAPACITY_S = 5.0
TIMES_THE_CAPACITY = 2.0

MOST_PART = 4
"""The clients times this are how many calls of the overload may be under way."""


def overloaded(stage: Stage) -> Outcome:
    """Calls that begin at twice the capacity measured just before, no fallback: an answer or a typed error, in time."""
    began_s = time.monotonic()
    queue, most = max(1, stage.many_clients // QUEUE_PART), MOST_PART * stage.many_clients
    repository = shutil.copytree(stage.repository, stage.folder / "short-queue")
    apply([Change(RECOMMEND.name, r'(most_waiting_texts" .*: ")\d+', rf"\g<1>{queue}")], repository)
    with stage.server(repository) as server, stage.asking(server.grpc_url, fallback=False) as asker:
        capacity = _per_second(asker, asker.load(queue), min(CAPACITY_S, stage.overload_s))
        aim = TIMES_THE_CAPACITY * max(1.0, capacity)
        reached = _per_second(asker, asker.arriving(aim, most=most), stage.overload_s)
        what = (
            f"capacity {capacity:.0f} calls/s ({queue} clients without a pause); then {reached:.0f} calls/s for "
            f"{stage.overload_s:g} s, begun whether those before had ended or not (due were {aim:.0f}, "
            f"{TIMES_THE_CAPACITY:g} times the capacity; at most {most} at a time); a queue of {queue}, no fallback"
        )
        note, broken = back_again(asker, "the load's end")
        outcome = found(asker, Outcome("overload", what, with_fallback=False, note=note, broken=broken), began_s=began_s)
    if Overloaded.__name__ not in outcome.refused:
        return replace(outcome, broken=(*outcome.broken, "no call met a full queue, so this shows nothing"))
    return outcome


def _per_second(asker: Asker, load: AbstractContextManager[None], seconds: float) -> float:
    """Calls that ended a second, while ``load`` lasted for so long."""
    before, began_s = asker.count.calls, time.monotonic()
    with load:
        time.sleep(seconds)
    return (asker.count.calls - before) / (time.monotonic() - began_s)


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
