"""All peers in one run: each in its process, in turns within every round, with the same texts and as many threads."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.edge import WORDS
from benchmarks.peers.catalogue import Environment, Peer, Sorting
from benchmarks.peers.material import Material
from benchmarks.peers.process import PeerFailed, PeerProcess
from benchmarks.peers.setup import QUALITY_FILE, Setup
from benchmarks.peers.venvs import NotInstalled, environment_python
from benchmarks.record import Record
from benchmarks.startup import memory_bytes
from bertrec.checks import number
from train.progress import Advance, progress

LOAD_TIMEOUT_S, ASK_TIMEOUT_S = 600.0, 300.0
WISH, REVIEW, OFFLINE = "wish", "review", "offline"
WORKLOADS = (WISH, REVIEW, OFFLINE)


@dataclass(frozen=True)
class PeersSettings:
    """How much is measured. Raises InvalidInput for what makes no measurement.

    rounds: turns of each peer. singly: wishes, and as many reviews, that are asked one at a time in a round. together: reviews
    handed over at once in a round, other ones in each round; the quality is that of all of them.
    """

    rounds: int = 3
    singly: int = 48
    together: int = 340
    warm_up: int = 64
    threads: int = 2

    def __post_init__(self) -> None:
        for name, most in (("rounds", 1_000), ("singly", 10_000), ("together", 100_000), ("warm_up", 10_000), ("threads", 256)):
            number(name, getattr(self, name), 1, most)

    @property
    def texts(self) -> int:
        """Test texts that are needed."""
        return self.rounds * self.together


class PeerRuns:
    """The peers' processes, and what became of each, which goes into the record as ``peers``, in the order of the peers."""

    def __init__(self, peers: Sequence[Peer], record: Record) -> None:
        self._record = record
        self._processes: dict[str, PeerProcess] = {}
        self._told: dict[str, dict[str, Any]] = {
            peer.name: {
                "environment": peer.environment and peer.environment.name,
                "ours": peer.ours,
                "fused": peer.fused,
                "student": peer.student,
                "server": peer.server,
                "sorting": peer.sorting.value,
            }
            for peer in peers
        }
        self._say()

    @property
    def running(self) -> list[str]:
        """Those that have not failed."""
        return list(self._processes)

    def start(self, peer: Peer, python: Path, setup: Setup, warm_up: Sequence[str]) -> None:
        """Start, load and warm up a peer, or note why it cannot."""
        own = Path(setup.own)
        own.mkdir(parents=True, exist_ok=True)
        process = PeerProcess(python, own / "log.txt", setup.threads)
        self._processes[peer.name] = process
        loaded = self._try(peer.name, "load", lambda: process.ask("load", LOAD_TIMEOUT_S, setup=asdict(setup)))
        if (
            loaded is None
            or self._try(peer.name, "warm up", lambda: process.ask("warm_up", LOAD_TIMEOUT_S, texts=warm_up)) is None
        ):
            return
        self._told[peer.name] |= {**loaded, "memory_bytes": memory_bytes(process.pid)}
        self._say()

    def fail(self, name: str, stage: str, reason: str) -> None:
        """Note that a peer is out, in which stage and why, and end its process if it has one."""
        self._told[name]["failed"] = {"stage": stage, "reason": reason}
        if process := self._processes.pop(name, None):
            process.close()
        self._say()

    def turn(self, name: str, workload: str, turn: int, **given: Any) -> None:  # noqa: ANN401  # as the protocol says
        """One peer's share of a round: a row of the record, unless it fails."""
        process = self._processes.get(name)
        if process is None:
            return
        before = process.cpu_seconds()
        what = "together" if workload == OFFLINE else "singly"
        answer = self._try(name, f"{workload}, round {turn}", lambda: process.ask(what, ASK_TIMEOUT_S, **given))
        if answer is not None:
            used = (process.cpu_seconds() - before) / (sum(answer["total_s"]) + answer["uncounted_s"])
            found = {"peer": name, "workload": workload, "round": turn, "texts": len(given["texts"]), "cores_used": used}
            self._record.add({**found, **answer})

    def close(self) -> None:
        """End all processes."""
        for process in self._processes.values():
            process.close()

    def _try(self, name: str, stage: str, action: Callable[[], dict[str, Any]]) -> dict[str, Any] | None:
        try:
            return action()
        except PeerFailed as error:
            self.fail(name, stage, str(error))
            return None

    def _say(self) -> None:
        self._record.note(peers=self._told)


def measure_peers(peers: Sequence[Peer], material: Material, venvs: Path, settings: PeersSettings, record: Record) -> None:
    """Rows of ``record`` for each peer, workload and round; what fails is noted there and left out from then on."""
    runs = PeerRuns(peers, record)
    pythons = _install(peers, venvs, runs)
    steps = len(pythons) * (1 + settings.rounds * len(WORKLOADS))
    try:
        with progress("measuring peers", steps) as advance:
            for peer in (peer for peer in peers if peer.name in pythons):
                advance(0, f"loading {peer.name}")
                setup = Setup(
                    module=peer.module,
                    variant=peer.variant,
                    material=str(material.folder.resolve()),
                    own=str(own_folder(material, peer.name).resolve()),
                    threads=settings.threads,
                    max_tokens=material.max_tokens,
                    student=peer.student,
                    sort=peer.sorting is Sorting.BEFORE,
                    bundle=peer.bundle and str(Path(peer.bundle).resolve()),
                )
                runs.start(peer, pythons[peer.name], setup, material.others[: settings.warm_up])
                advance()
            for turn in range(settings.rounds):
                _round(turn, runs, material, settings, advance)
    finally:
        runs.close()


def own_folder(material: Material, peer: str) -> Path:
    """Where a peer keeps what it made of the model, its log, and what it answered."""
    return material.folder / "peers" / "".join(letter if letter.isalnum() else "-" for letter in peer)


def _install(peers: Sequence[Peer], venvs: Path, runs: PeerRuns) -> dict[str, Path]:
    """Peer → its interpreter, those left out that cannot be installed."""
    wanted: dict[Environment | None, list[str]] = {}
    for peer in peers:
        wanted.setdefault(peer.environment, []).append(peer.name)
    pythons: dict[str, Path] = {}
    with progress("the peers' environments", len(wanted)) as advance:
        for environment, names in wanted.items():
            advance(0, environment.name if environment else "")
            try:
                found = environment_python(environment, venvs.resolve()) if environment else Path(sys.executable)
            except NotInstalled as error:
                for name in names:
                    runs.fail(name, "install", str(error))
            else:
                pythons |= dict.fromkeys(names, found)
            advance()
    return pythons


def _round(turn: int, runs: PeerRuns, material: Material, settings: PeersSettings, advance: Advance) -> None:
    """Every workload in turn; every other round goes through the peers backwards."""
    reviews = material.texts[: settings.singly]
    singly = {WISH: [" ".join(review.split()[:WORDS]) for review in reviews], REVIEW: reviews}
    together = material.texts[turn * settings.together : (turn + 1) * settings.together]
    for workload in WORKLOADS:
        for name in reversed(runs.running) if turn % 2 else runs.running:
            if workload == OFFLINE:
                saved = own_folder(material, name) / QUALITY_FILE.format(turn)
                runs.turn(name, workload, turn, texts=together, save=str(saved.resolve()))
            else:
                runs.turn(name, workload, turn, texts=singly[workload])
            advance(note=f"round {turn + 1}, {workload}: {name}")


def peers_of(path: Path) -> dict[str, Any]:
    """What a run of the command wrote."""
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content
