"""A full disk and a full shared memory: a tmpfs each, mounted for the server alone."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

from benchmarks.faults.outcome import Outcome
from benchmarks.faults.processes import Confined, confined, why_no_mounts
from benchmarks.faults.stage import Stage, found

DISK, SHARED = "disk", "shared-memory"
SIZE, TOO_SMALL = "48m", "8m"
LOAD_S = 3.0
FREE_PORTS = ("--grpc-port", "0", "--http-port", "0", "--metrics-port", "0")
ADDRESS = r"^gRPC +(\S+)$"


def disk(stage: Stage) -> Outcome:
    """The disk that the server writes its log to has no byte left."""
    return _starved(stage, Outcome(DISK, "the disk of the server's log is full, under load"))


def shared_memory(stage: Stage) -> Outcome:
    """A server does not start in too little shared memory, and one that runs survives that it is full."""
    outcome = Outcome(SHARED, f"{TOO_SMALL} of shared memory at the start: refused; then a server whose shared memory is filled")
    if reason := why_no_mounts():
        return replace(outcome, skipped=reason)
    small = stage.folder / "small"
    small.mkdir()
    with confined(small, "serving", *_up(stage), size=TOO_SMALL, address=ADDRESS) as server:
        refused = "Triton's python backend needs" in server.printed
    broken = () if refused else (f"a server with {TOO_SMALL} of shared memory was not refused: {server.printed[-200:]}",)
    return _starved(stage, replace(outcome, broken=broken))


def _starved(stage: Stage, outcome: Outcome) -> Outcome:
    began_s = time.monotonic()
    if reason := why_no_mounts():
        return replace(outcome, skipped=reason)
    with confined(stage.folder, "serving", *_up(stage), size=SIZE, address=ADDRESS, log=outcome.name == DISK) as server:
        if not server.url:
            return replace(outcome, broken=(f"the server did not start: {server.printed[-300:]}",))
        with stage.asking(server.url) as asker:
            broken = _filled(server, server.full if outcome.name == DISK else server.shared)
            with asker.load(stage.clients):
                time.sleep(LOAD_S)
            return found(
                asker,
                replace(outcome, note="" if broken else "0 bytes were free", broken=outcome.broken + broken),
                began_s=began_s,
            )


def _filled(server: Confined, folder: Path) -> tuple[str, ...]:
    """Fill the folder; what is broken where that left a byte."""
    try:
        server.fill(folder)
    except OSError as error:
        return (f"nothing was filled, so this shows nothing: {error}",)
    free = server.free_bytes(folder)
    return (f"{free} bytes were free, so this shows nothing",) if free else ()


def _up(stage: Stage) -> tuple[str, ...]:
    return ("up", "--repository", str(stage.repository), *FREE_PORTS)
