"""Twice as many clients as there is room for, and full load for minutes."""

from __future__ import annotations

import time

from benchmarks.faults.outcome import Outcome
from benchmarks.faults.processes import resident_bytes
from benchmarks.faults.stage import Stage, back_again, found

MOST_GROWTH = 0.02
"""Of memory after the first part of the time, which fills caches and arenas."""

SETTLES = 0.1
"""The share of the time that counts as the first part: a minute of ten."""

SAMPLES = 50


def overloaded(stage: Stage) -> Outcome:
    """Many clients that never pause, without a fallback: an answer or a typed error, in time."""
    began_s = time.monotonic()
    what = f"{stage.many_clients} clients without a pause for {stage.overload_s:g} s, no fallback"
    with stage.server() as server, stage.asking(server.grpc_url, fallback=False) as asker:
        with asker.load(stage.many_clients):
            time.sleep(stage.overload_s)
        note, broken = back_again(asker, "the load's end")
        return found(asker, Outcome("overload", what, with_fallback=False, note=note, broken=broken), began_s=began_s)


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
