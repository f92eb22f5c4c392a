"""The servers of a recommender, and which of them is asked next."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from bertrec.errors import InvalidInput, Transient, Unavailable

from .availability import Breaker, State


@dataclass(frozen=True, eq=False)
class Endpoint:
    """One server: its address, what asks it (a Backend, or an AsyncBackend), and its breaker."""

    name: str
    backend: Any
    breaker: Breaker

    @contextmanager
    def judged(self, clock: Callable[[], float]) -> Iterator[None]:
        """Tells the breaker how the attempt inside ended."""
        started = clock()
        try:
            yield
        except Unavailable as error:
            self.breaker.failed(str(error), started=started, for_good=not isinstance(error, Transient))
            raise
        except InvalidInput:  # the server is there, and has read the request
            self.breaker.answered()
            raise
        except BaseException:
            self.breaker.given_up()
            raise
        self.breaker.answered()


@dataclass
class Asked:
    """What one call has to do with each endpoint so far."""

    free: list[Endpoint] = field(default_factory=list)  # were up when this call first asked them: it may ask again
    failed: list[Endpoint] = field(default_factory=list)  # the latest last
    turn: int | None = None  # whose turn it is: one for each batch, or retries and hedges would take those of the next calls


class Endpoints:
    """Round robin over the endpoints that are up. Thread-safe."""

    def __init__(self, endpoints: Sequence[Endpoint], *, insist: bool) -> None:
        """insist: where all rest, ask one nevertheless, because nobody else can answer."""
        self.all = tuple(endpoints)
        self._insist = insist
        self._turns = count()

    def choose(self, asked: Asked) -> Endpoint:
        """The next to ask: one that is up and did not fail this call; then, of those that were up, whose failure is longest ago.

        Raises Unavailable, with a last failure's message, where all rest.
        """
        if asked.turn is None:
            asked.turn = next(self._turns) % len(self.all)
        rotated = self.all[asked.turn :] + self.all[: asked.turn]
        for endpoint in rotated:
            if endpoint not in asked.failed and (admitted := endpoint.breaker.admit()) is not None:
                if admitted is State.CLOSED and endpoint not in asked.free:
                    asked.free.append(endpoint)
                return endpoint
        for endpoint in asked.failed:
            if endpoint in asked.free:
                return endpoint
        if self._insist:
            return next((endpoint for endpoint in rotated if endpoint not in asked.failed), rotated[0])
        raise Unavailable(rotated[0].breaker.failure)

    def fresh(self, asked: Asked) -> int:
        """How many may be asked that did not fail this call."""
        return sum(one.breaker.ready and one not in asked.failed for one in self.all)

    def any_left(self, asked: Asked) -> bool:
        """Whether :meth:`choose` would find one for another attempt of this call."""
        return self._insist or self.fresh(asked) > 0 or any(one in asked.free for one in asked.failed)
