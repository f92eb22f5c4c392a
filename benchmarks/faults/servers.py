"""A Triton that dies, hangs, restarts, or loses one of its models."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from benchmarks.faults.asking import Asker
from benchmarks.faults.outcome import Outcome
from benchmarks.faults.processes import stub_of
from benchmarks.faults.stage import Stage, back_again, found
from bertrec.errors import ServerFailed
from bertrec.tensors import RECOMMEND
from serving._watch import Watch
from serving.control import ModelControl
from serving.triton import TritonServer

HANG_S = 1.5
HANG_TIMEOUT_S = 0.5
"""The calls' deadline while the server hangs: below HANG_S, so that it is the fallback that answers."""

LOAD_S = 1.0
WATCH_S = 1.0


def killed(stage: Stage) -> Outcome:
    """SIGKILL for the server and its models, then the same server again."""
    began_s, server = time.monotonic(), stage.server().start()
    try:
        with stage.asking(server.grpc_url, timeout_s=stage.tight_s) as asker:
            with asker.burst(stage.calls):
                asker.wait_for_calls(max(1, stage.calls // 10), within_s=stage.timeout_s)
                os.killpg(server.pid, signal.SIGKILL)
                unanswered = stage.calls - asker.count.calls
            unmet = asker.not_met() if unanswered else ("every call had ended when the server was killed, so this shows nothing",)
            server.kill()
            with stage.again(server):
                note, broken = back_again(asker, "its start")
                what = (
                    f"kill -9 with {unanswered} of {stage.calls} requests unanswered, deadline {stage.tight_s:g} s; started again"
                )
                return found(asker, Outcome("killed", what, note=note, broken=broken + unmet), began_s=began_s)
    finally:
        server.kill()


def stopped(stage: Stage) -> Outcome:
    """SIGSTOP for tritonserver under load, SIGCONT after a while: slow, not dead. The same process must go on."""
    return _held_up(stage, "stopped", "tritonserver", os.kill)


def frozen(stage: Stage) -> Outcome:
    """As ``stopped``, for all the server's processes, which is what pausing a container does.

    Triton 2.51 cannot bear that (docs/serving.md): where it aborts or hangs, another is started, as ``serving up`` does.
    """
    return _held_up(stage, "frozen", "all its processes", os.killpg, may_abort=True)


def _held_up(stage: Stage, name: str, whom: str, send: Callable[[int, int], None], *, may_abort: bool = False) -> Outcome:
    began_s, server = time.monotonic(), stage.server().start()
    what = f"SIGSTOP for {whom}, {HANG_S:g} s under load, deadline {HANG_TIMEOUT_S:g} s"
    try:
        with stage.asking(server.grpc_url, timeout_s=HANG_TIMEOUT_S) as asker:
            with asker.load(stage.clients), contextlib.suppress(ProcessLookupError):
                time.sleep(LOAD_S)
                send(server.pid, signal.SIGSTOP)
                time.sleep(HANG_S)
                unmet = () if asker.count.by_edge else ("the edge answered no call meanwhile, so this shows nothing",)
                send(server.pid, signal.SIGCONT)
                time.sleep(LOAD_S)
            if may_abort:
                note, broken = _back_or_anew(stage, server, asker, "SIGCONT and the load's end")
            else:
                note, broken = back_again(asker, "SIGCONT and the load's end")
            return found(asker, Outcome(name, what, note=note, broken=broken + unmet), began_s=began_s)
    finally:
        server.kill()


def _back_or_anew(stage: Stage, server: TritonServer, asker: Asker, after: str) -> tuple[str, tuple[str, ...]]:
    """``back_again``; where the server aborted or hangs, another is started, as ``serving up`` does, and the note says so."""
    note, broken = back_again(asker, after)
    if broken:
        what = "hung, and was killed, as serving up does after 30 s without an answer" if server.is_alive() else "aborted"
        server.kill()
        with stage.again(server):
            note, broken = back_again(asker, "another was started, as serving up does")
        note = f"the server {what}; {note}"
    return note, broken


def restarted(stage: Stage) -> Outcome:
    """An orderly stop and a new start, under load."""
    began_s = time.monotonic()
    with stage.server() as server, stage.asking(server.grpc_url, timeout_s=stage.tight_s) as asker:
        with asker.load(stage.clients):
            time.sleep(LOAD_S)
            server.stop()
            time.sleep(LOAD_S)
            second = stage.again(server).start()
            time.sleep(LOAD_S)
        try:
            note, broken = back_again(asker, "its start")
            what = f"stopped and started under load, deadline {stage.tight_s:g} s"
            return found(asker, Outcome("restarted", what, note=note, broken=broken + asker.not_met()), began_s=began_s)
        finally:
            second.kill()


def stub(stage: Stage) -> Outcome:
    """SIGKILL for the process of ``recommend`` alone, with the watch of ``serving up``.

    Triton 2.51 may abort when the process dies in the middle of a batch; then another is started, as ``serving up`` does.
    """
    began_s = time.monotonic()
    with stage.server() as server, _watched(server), stage.asking(server.grpc_url) as asker:
        with asker.load(stage.clients):
            time.sleep(LOAD_S)
            os.kill(stub_of(server.pid, RECOMMEND.name), signal.SIGKILL)
            time.sleep(4 * WATCH_S)
        note, broken = _back_or_anew(stage, server, asker, "the load's end")
        what = f"kill -9 for the process of the model {RECOMMEND.name} under load"
        return found(asker, Outcome("stub", what, note=note, broken=broken + asker.not_met()), began_s=began_s)


@contextmanager
def _watched(server: TritonServer) -> Iterator[None]:
    """What ``python -m serving up`` does beside its server."""
    watch, done = Watch(server.pid, ModelControl(server.http_url, server.control.key)), threading.Event()

    def look() -> None:
        while not done.wait(WATCH_S):
            with contextlib.suppress(ServerFailed):
                watch.look()

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
