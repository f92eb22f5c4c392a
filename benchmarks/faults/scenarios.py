"""The scenarios by name, and how they are run one after another."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.faults.asking import Known
from benchmarks.faults.long import overloaded, steady
from benchmarks.faults.network import clock, connections, flipped
from benchmarks.faults.outcome import Outcome
from benchmarks.faults.servers import frozen, killed, restarted, stopped, stub
from benchmarks.faults.stage import Stage
from benchmarks.faults.starved import disk, shared_memory
from bertrec.bundle import Bundle
from bertrec.errors import InvalidInput
from serving.assemble import Target, assemble
from train.progress import progress

SCENARIOS: Mapping[str, Callable[[Stage], Outcome]] = {
    "killed": killed,
    "stopped": stopped,
    "frozen": frozen,
    "restarted": restarted,
    "stub": stub,
    "connections": connections,
    "disk": disk,
    "shared-memory": shared_memory,
    "flipped": flipped,
    "clock": clock,
    "overload": overloaded,
    "steady": steady,
}


@dataclass(frozen=True)
class FaultSettings:
    """only: names of scenarios, all if empty. minutes: of full load in ``steady``. overload_s: of ``overload``.

    calls: in flight when the server is killed. clients: threads of the ordinary load, many_clients: of the overload.
    timeout_s: each call's deadline. Raises InvalidInput for a scenario that there is none of, or a number out of bounds.
    """

    only: Sequence[str] = ()
    minutes: float = 10.0
    overload_s: float = 60.0
    calls: int = 200
    clients: int = 4
    many_clients: int = 64
    timeout_s: float = 5.0

    def __post_init__(self) -> None:
        if unknown := [name for name in self.only if name not in SCENARIOS]:
            raise InvalidInput(f"there is no scenario {', '.join(unknown)}; accepted are {', '.join(SCENARIOS)}")
        for name in ("minutes", "overload_s", "timeout_s"):
            if not 0 < getattr(self, name) <= 3600:
                raise InvalidInput(f"{name} is {getattr(self, name)}; accepted is a number above 0, at most 3600")
        for name in ("calls", "clients", "many_clients"):
            if not 1 <= getattr(self, name) <= 1000:
                raise InvalidInput(f"{name} is {getattr(self, name)}; accepted is a whole number from 1 to 1000")


def measure_faults(bundle: Path, settings: FaultSettings) -> Iterator[Outcome]:
    """Run the scenarios, each on servers of its own, one by one. Raises InvalidBundle, ServerFailed, MissingDependency."""
    Bundle.open(bundle)
    names = [name for name in SCENARIOS if not settings.only or name in settings.only]
    with tempfile.TemporaryDirectory(prefix="bertrec-faults-") as folder:
        base = Path(folder)
        repository = assemble(bundle, base / "repository", target=Target.CPU)
        known = Known(bundle)
        with progress("faults", len(names)) as advance:
            for name in names:
                own = base / name
                own.mkdir()
                yield SCENARIOS[name](_stage(settings, bundle, repository, known, own))
                advance(note=name)


def _stage(settings: FaultSettings, bundle: Path, repository: Path, known: Known, folder: Path) -> Stage:
    return Stage(
        bundle=bundle,
        repository=repository,
        known=known,
        folder=folder,
        steady_s=60 * settings.minutes,
        overload_s=settings.overload_s,
        calls=settings.calls,
        clients=settings.clients,
        many_clients=settings.many_clients,
        timeout_s=settings.timeout_s,
    )
