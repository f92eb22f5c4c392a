"""What the server bounds, so that a flood makes it refuse and not die."""

from __future__ import annotations

from dataclasses import dataclass

from bertrec.errors import InvalidInput
from bertrec.tensors import MAX_BATCH_SIZE

MAX_QUEUE = 1_000_000
MAX_SECONDS = 3600.0
MIN_BODY_BYTES, MAX_BODY_BYTES = 1024, 1 << 30


@dataclass(frozen=True)
class Limits:
    """Bounds of one server.

    queue: texts that may wait; a request that would exceed it gets 429. At least one full batch (64), so that no request is
    refused for ever. The default is that of Triton's ``recommend``: four batches, some two seconds of a BERT on two cores.
    timeout_s: how long a request may wait and compute; then it gets 503, and is not computed if it still waits.
    body_bytes: the largest body, also after decompression (413). 64 texts of the 10,000 characters that are read fit four times.
    body_timeout_s: how long a body may take to arrive (408).
    connections: open at once; what comes beyond gets 503.
    """

    queue: int = 4 * MAX_BATCH_SIZE
    timeout_s: float = 5.0
    body_bytes: int = 4 << 20
    body_timeout_s: float = 10.0
    connections: int = 1024

    def __post_init__(self) -> None:
        _check_integer("queue", self.queue, MAX_BATCH_SIZE, MAX_QUEUE)
        _check_integer("body_bytes", self.body_bytes, MIN_BODY_BYTES, MAX_BODY_BYTES)
        _check_integer("connections", self.connections, 1, MAX_QUEUE)
        for name in ("timeout_s", "body_timeout_s"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= MAX_SECONDS:
                raise InvalidInput(f"{name} is {value!r}; accepted is a number of seconds above 0, at most {MAX_SECONDS:g}")


def _check_integer(name: str, value: object, least: int, most: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise InvalidInput(f"{name} is {value!r}; accepted is a whole number from {least} to {most}")
