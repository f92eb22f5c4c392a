"""What a recommender has done so far: numbers to read, and to hand to Prometheus."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field, fields

from .availability import State


@dataclass(frozen=True)
class Counters:
    """Totals since the recommender was made.

    calls: of ``recommend``, those refused as bad input before anything was asked not among them.
    failed: calls that ended as Unavailable. refused: calls whose input the server or the edge refused.
    attempts: requests to servers, retries and hedges among them. retries: attempts after a failed one.
    hedges: second requests beside one that was slow.
    unpaid: retries and hedges that the budget did not allow.
    fallbacks: calls that the edge answered instead of a server; late: those of them where the server was slower than the edge.
    servers: address → what its circuit breaker believes.
    """

    calls: int = 0
    failed: int = 0
    refused: int = 0
    attempts: int = 0
    retries: int = 0
    hedges: int = 0
    unpaid: int = 0
    fallbacks: int = 0
    late: int = 0
    servers: Mapping[str, State] = field(default_factory=dict)

    def to_prometheus(self) -> str:
        """Prometheus' text format, version 0.0.4: ``bertrec_client_<name>_total``, and for servers one gauge for each state."""
        lines: list[str] = []
        for name in _NAMES:
            lines += [f"# TYPE bertrec_client_{name}_total counter", f"bertrec_client_{name}_total {getattr(self, name)}"]
        lines.append("# TYPE bertrec_client_breaker gauge")
        for server, now in self.servers.items():
            label = server.replace("\\", r"\\").replace('"', r"\"")
            lines += [f'bertrec_client_breaker{{server="{label}",state="{one}"}} {int(one is now)}' for one in State]
        return "\n".join(lines) + "\n"


_NAMES = tuple(one.name for one in fields(Counters) if one.name != "servers")


class Tally:
    """The counters while they count. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counted = dict.fromkeys(_NAMES, 0)

    def add(self, name: str) -> None:
        """One more of ``name``, a field of :class:`Counters`."""
        with self._lock:
            self._counted[name] += 1

    def read(self, servers: Mapping[str, State]) -> Counters:
        """The totals of one moment."""
        with self._lock:
            return Counters(**self._counted, servers=servers)
