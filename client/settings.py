"""How a recommender behaves towards its servers: retries, fallback, TLS, headers. Frozen, and checked when made."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from bertrec.errors import InvalidInput

MAX_SECONDS = 3600.0
MOST_ATTEMPTS = 10
_HEADER_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")  # what both gRPC metadata and HTTP take
_HEADER_VALUE = re.compile(r"[\x20-\x7e]*")


class Fallback(str, Enum):
    """When the edge answers instead of a server. Never for bad input."""

    NONE = "none"
    """Never: the call raises."""
    EDGE = "edge"
    """Where the servers cannot answer: they failed, all rest after failures, or the edge needs what is left of the deadline."""
    EDGE_IF_LATE = "edge-if-late"
    """As EDGE; and where no server answered within ``late_after_s``, the edge computes beside it and the first answer counts.
    So where the edge needs what is left of the deadline, of which the server has all."""

    def __str__(self) -> str:
        return self.value


@dataclass(frozen=True)
class Retries:
    """How often, how soon and how many.

    attempts: requests at most for one batch of texts, the first included; 1 never retries.
    first_pause_s, longest_pause_s: before retry n the call waits a random time from 0 to first_pause_s · 2ⁿ⁻¹, at most
    longest_pause_s ("full jitter", Brooker, *Exponential backoff and jitter*, AWS 2015). Another server is asked without waiting.
    attempt_timeout_s: what one request may take; by default what is left of the call's deadline, shared among the servers that
    may be asked and were not yet. The call's own deadline bounds all attempts and pauses together.
    budget_burst, budget_ratio: retries and hedges are paid from a bucket of ``budget_burst`` tokens, to which each call adds
    ``budget_ratio``: so during an outage a client sends about that share more than its calls, not ``attempts`` times as many.
    """

    attempts: int = 3
    first_pause_s: float = 0.05
    longest_pause_s: float = 1.0
    attempt_timeout_s: float | None = None
    budget_burst: float = 10.0
    budget_ratio: float = 0.2

    def __post_init__(self) -> None:
        attempts: object = self.attempts
        if isinstance(attempts, bool) or not isinstance(attempts, int) or not 1 <= attempts <= MOST_ATTEMPTS:
            raise InvalidInput(f"retries.attempts is {attempts!r}; accepted is a whole number from 1 to {MOST_ATTEMPTS}")
        for name in ("first_pause_s", "longest_pause_s"):
            checked_seconds(f"retries.{name}", getattr(self, name))
        if self.attempt_timeout_s is not None:
            checked_seconds("retries.attempt_timeout_s", self.attempt_timeout_s)
        for name in ("budget_burst", "budget_ratio"):
            given = getattr(self, name)
            if isinstance(given, bool) or not isinstance(given, int | float) or not 0 <= given <= 1e6:
                raise InvalidInput(f"retries.{name} is {given!r}; accepted is a number from 0 to 1e6")


@dataclass(frozen=True)
class Tls:
    """Files (PEM) for ``grpcs://`` and ``https://``.

    ca: certificates that the server's must descend from; by default those that gRPC, or Python's ssl, trusts.
    certificate, key: the client's own, where the server asks for one (mutual TLS); both or neither.
    """

    ca: str | Path | None = None
    certificate: str | Path | None = None
    key: str | Path | None = None

    def __post_init__(self) -> None:
        if (self.certificate is None) != (self.key is None):
            raise InvalidInput("tls has one of certificate and key; mutual TLS needs both, otherwise leave both out")
        for name in ("ca", "certificate", "key"):
            path = getattr(self, name)
            if path is not None and not Path(path).is_file():
                raise InvalidInput(f"tls.{name} is {str(path)!r}, which is no file; accepted is a PEM file")

    def path(self, name: str) -> str | None:
        """The file as a str, None where it is not given."""
        given = getattr(self, name)
        return None if given is None else str(given)


def request_headers(headers: Mapping[str, str] | None, token: str | None) -> dict[str, str]:
    """The headers of every request, their names in lower case, as gRPC wants them; the token as ``authorization: Bearer``."""
    given: object = {} if headers is None else headers
    if not isinstance(given, Mapping):
        raise InvalidInput(f"headers is of type {type(given).__name__}; accepted is a mapping of name to value, both str")
    for name, value in given.items():
        _check_header(name, value, shown="headers")
    sent = {name.lower(): value for name, value in given.items()}
    if token is None:
        return sent
    _check_header("authorization", token, shown="token")
    return {**sent, "authorization": f"Bearer {token}"}


def _check_header(name: object, value: object, *, shown: str) -> None:
    """Raises InvalidInput for what cannot travel as a header; does not repeat the value, which may be a secret."""
    if not isinstance(name, str) or not _HEADER_NAME.fullmatch(name) or name.lower().endswith("-bin"):
        raise InvalidInput(f"{shown} names the header {name!r}; accepted are letters, digits, '-', '_' and '.', and no '-bin'")
    if not isinstance(value, str) or not _HEADER_VALUE.fullmatch(value):
        raise InvalidInput(f"{shown} has a value for {name!r} that is not printable ASCII; encode it first")


def checked_seconds(name: str, seconds: float) -> float:
    """The seconds as a float. Raises InvalidInput for what is none, or is out of bounds."""
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 < seconds <= MAX_SECONDS:
        raise InvalidInput(f"{name} is {seconds!r}; accepted is a number of seconds above 0, at most {MAX_SECONDS:g}")
    return float(seconds)
