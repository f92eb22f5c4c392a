"""Connections that are refused or cut, a bundle with a byte flipped, a clock that jumps."""

from __future__ import annotations

import shutil
import time
from dataclasses import replace

from benchmarks.faults.asking import Asker
from benchmarks.faults.outcome import Outcome
from benchmarks.faults.proxy import LOOPBACK, Proxy
from benchmarks.faults.stage import Stage, back_again, found
from bertrec.bundle import Bundle
from bertrec.errors import BertrecError, InvalidBundle
from client import Recommender, ServedBy
from serving.assemble import Target, assemble

PHASE_S = 1.0
CUTS = (1, 20, 200, 600)
"""After so many bytes an answer ends: in the protocol's first frame, in the headers, in the body."""

MOST_BACKOFF_S = 20.0
"""How long gRPC may wait before it connects again, and is refused."""

JUMPS_S = (3600.0, -7200.0, 86400.0, -1e6)


def connections(stage: Stage) -> Outcome:
    """Cut half-way and refused, over gRPC and HTTP, by a proxy in user space."""
    began_s = time.monotonic()
    with stage.server() as server, Proxy(server.ports.grpc) as grpc, Proxy(server.ports.http) as http:
        urls = f"grpc://{LOOPBACK}:{grpc.port}", f"http://{LOOPBACK}:{http.port}"
        with stage.asking(urls[0], timeout_s=stage.tight_s) as one, stage.asking(urls[1], timeout_s=stage.tight_s) as other:
            two = ((one, grpc), (other, http))
            for asker, proxy in two:
                _mistreat(asker, proxy, stage.clients)
            notes = [back_again(asker, "the last fault") for asker, _ in two]
            whats = [found(asker, Outcome("connections", ""), began_s=began_s) for asker, _ in two]
            cuts, refusals = grpc.cuts + http.cuts, grpc.refusals + http.refusals
            broken = tuple(text for _, texts in notes for text in texts)
            if not (grpc.cuts and http.cuts and grpc.refusals and http.refusals):
                broken += ("a proxy did not cut and refuse",)
            what = (
                f"{cuts} connections cut half-way and {refusals} refused under load, gRPC and HTTP, deadline {stage.tight_s:g} s"
            )
            return replace(_both(*whats), what=what, note=notes[-1][0], broken=broken)


def _mistreat(asker: Asker, proxy: Proxy, clients: int) -> None:
    with asker.load(clients):
        for after in CUTS:
            proxy.drop()
            proxy.cut_after = after
            time.sleep(PHASE_S)
        proxy.cut_after, proxy.refuses = None, True
        proxy.drop()
        ends_s = time.monotonic() + MOST_BACKOFF_S
        time.sleep(2 * PHASE_S)
        while not proxy.refusals and time.monotonic() < ends_s:
            time.sleep(PHASE_S / 10)
        proxy.refuses = False


def _both(one: Outcome, other: Outcome) -> Outcome:
    refused = {name: one.refused.get(name, 0) + other.refused.get(name, 0) for name in {*one.refused, *other.refused}}
    late = [outcome.late_ms for outcome in (one, other) if outcome.late_ms is not None]
    return replace(
        one,
        calls=one.calls + other.calls,
        wrong=one.wrong + other.wrong,
        untyped=one.untyped + other.untyped,
        by_edge=one.by_edge + other.by_edge,
        refused=refused,
        late_ms=max(late, default=None),
        next_by=one.next_by if other.next_by is not None else None,
    )


def flipped(stage: Stage) -> Outcome:
    """One byte of each file of the bundle, one file after another: never opened, never assembled."""
    began_s, copy = time.monotonic(), stage.folder / "bundle"
    shutil.copytree(stage.bundle, copy)
    files = sorted(path for path in copy.rglob("*") if path.is_file())
    accepted: list[str] = []
    untyped = 0
    for path in files:
        sound = path.read_bytes()
        path.write_bytes(_with_a_flipped_byte(sound))
        for use in (lambda: Recommender(bundle=copy), lambda: assemble(copy, stage.folder / "out", target=Target.CPU)):
            try:
                use()
                accepted.append(path.name)
            except InvalidBundle:
                pass
            except BertrecError as error:
                accepted.append(f"{path.name} ({type(error).__name__})")
            except Exception:  # it is this that the scenario looks for
                untyped += 1
        path.write_bytes(sound)
    Bundle.open(copy)
    with Recommender(bundle=stage.bundle, threads=1) as recommender:
        served = recommender.recommend(stage.known.texts[0]).served_by
    return Outcome(
        "flipped",
        f"one byte flipped in each of {len(files)} files of the bundle: opened, and assembled",
        calls=2 * len(files),
        untyped=untyped,
        refused={InvalidBundle.__name__: 2 * len(files) - len(accepted) - untyped},
        with_fallback=False,
        next_by=str(served),
        seconds=time.monotonic() - began_s,
        broken=tuple(f"not refused: {name}" for name in accepted),
    )


def _with_a_flipped_byte(content: bytes) -> bytes:
    at = len(content) // 2
    return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :] if content else b"\0"


class _JumpingClock:
    """The machine's clock, and what it was moved by."""

    def __init__(self) -> None:
        self.moved_s = 0.0

    def __call__(self) -> float:
        return time.monotonic() + self.moved_s


def clock(stage: Stage) -> Outcome:
    """The client's clock moved forwards and backwards under load, with a server that dies and comes back meanwhile."""
    began_s, hands = time.monotonic(), _JumpingClock()
    server = stage.server().start()
    try:
        with stage.asking(server.grpc_url, clock=hands) as asker:
            with asker.load(stage.clients):
                for number, jump_s in enumerate(JUMPS_S):
                    time.sleep(PHASE_S / 2)
                    hands.moved_s += jump_s
                    if number == 0:
                        server.kill()
            with stage.again(server):
                note, broken = back_again(asker, "its start")
                if asker.count.by_edge == 0:
                    broken += (f"the {ServedBy.EDGE} never answered",)
                what = f"the client's clock jumps by {', '.join(f'{jump:+g}' for jump in JUMPS_S)} s, and the server dies"
                return found(asker, Outcome("clock", what, note=note, broken=broken), began_s=began_s)
    finally:
        server.kill()
