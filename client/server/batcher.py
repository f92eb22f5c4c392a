"""Joins requests that wait at the same time into one run of the model, and refuses what it could not answer in time."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from bertrec.errors import InvalidInput
from bertrec.tensors import MAX_BATCH_SIZE

from .limits import Limits
from .model import Asked, Outcome
from .refusal import BAD_REQUEST, FAILED, LATE, TOO_MANY, Refusal

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Answered:
    """What one request got. texts: in the run that answered it, those of other requests too."""

    found: list[Any]
    queue_ms: float
    compute_ms: float
    texts: int


@dataclass
class Counts:
    """What the batcher did since it started."""

    requests: int = 0
    texts: int = 0
    runs: int = 0
    refused: int = 0
    late: int = 0
    queue_s: float = 0.0
    compute_s: float = 0.0


@dataclass
class _Waiting:
    asked: Asked
    outcome: asyncio.Future[Answered]
    since: float


class Batcher:
    """A queue before one thread. No delay is added: a batch gathers while the one before it runs, as in Triton's batcher."""

    def __init__(self, answer: Callable[[Sequence[Asked]], list[Outcome]], limits: Limits, *, joins: bool) -> None:
        """``answer`` runs in the batcher's own thread, never twice at once. joins: whether requests may share a run."""
        self._answer = answer
        self._limits = limits
        self._most = MAX_BATCH_SIZE if joins else 1
        self._queue: deque[_Waiting] = deque()
        self._text_s = 0.0  # what a text took lately
        self._wake = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="bertrec-edge")
        self._task: asyncio.Task[None] | None = None
        self.counts = Counts()

    @property
    def waiting(self) -> int:
        """Texts in the queue."""
        return sum(len(one.asked.texts) for one in self._queue if not one.outcome.done())

    @property
    def ready(self) -> bool:
        """Whether requests are being answered."""
        return self._task is not None and not self._task.done()

    def start(self) -> None:
        """Begin to answer, in the running event loop."""
        self._task = asyncio.get_running_loop().create_task(self._work())

    async def stop(self) -> None:
        """Let the run under way end. Requests that wait are refused."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
        for one in self._queue:
            one.outcome.cancel()
        await asyncio.to_thread(self._thread.shutdown)

    async def ask(self, asked: Asked) -> Answered:
        """The answers to one request. Raises Refusal: 400 for bad input, 429 where the queue is full, 503 when it is late."""
        waiting = self.waiting
        if waiting + len(asked.texts) > self._limits.queue:
            self.counts.refused += 1
            message = f"{waiting} texts wait, and at most {self._limits.queue} may; try again later"
            raise Refusal(TOO_MANY, message, retry_after_s=self._retry_after_s(waiting))
        one = _Waiting(asked, asyncio.get_running_loop().create_future(), time.monotonic())
        self._queue.append(one)
        self._wake.set()
        try:
            return await asyncio.wait_for(one.outcome, self._limits.timeout_s)
        except asyncio.TimeoutError:
            self.counts.late += 1
            message = f"no answer within {self._limits.timeout_s:g} s; the server is overloaded, try again later"
            raise Refusal(LATE, message, retry_after_s=self._retry_after_s(self.waiting)) from None

    def _retry_after_s(self, waiting: int) -> int:
        """Whole seconds until what waits now should be answered."""
        return max(1, math.ceil(waiting * self._text_s))

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._wake.wait()
            batch = self._take()
            if not batch:
                self._wake.clear()
                continue
            started = time.monotonic()
            asked = [one.asked for one in batch]
            try:
                outcomes = await loop.run_in_executor(self._thread, self._answer, asked)
            except Exception as error:  # whatever it was, every request is answered and the server goes on
                _logger.exception("a batch of %d requests failed", len(batch))
                outcomes = [error for _ in batch]
            self._finish(batch, outcomes, started)

    def _take(self) -> list[_Waiting]:
        """The requests for the next run, the oldest first: at most 64 texts, without those that nobody waits for any more."""
        batch: list[_Waiting] = []
        texts = 0
        while self._queue:
            more = len(self._queue[0].asked.texts)
            if batch and (texts + more > MAX_BATCH_SIZE or len(batch) >= self._most):
                break
            one = self._queue.popleft()
            if not one.outcome.done():
                batch.append(one)
                texts += more
        return batch

    def _finish(self, batch: list[_Waiting], outcomes: list[Outcome], started: float) -> None:
        compute_s = time.monotonic() - started
        texts = sum(len(one.asked.texts) for one in batch)
        self._text_s = compute_s / texts
        self.counts.runs += 1
        self.counts.texts += texts
        self.counts.requests += len(batch)
        self.counts.compute_s += compute_s
        for one, outcome in zip(batch, outcomes, strict=True):
            queue_s = started - one.since
            self.counts.queue_s += queue_s
            if one.outcome.done():  # it was late
                continue
            if isinstance(outcome, Exception):
                one.outcome.set_exception(_refusal(outcome))
            else:
                one.outcome.set_result(Answered(outcome, 1e3 * queue_s, 1e3 * compute_s, texts))


def _refusal(error: Exception) -> Refusal:
    if isinstance(error, InvalidInput):
        return Refusal(BAD_REQUEST, str(error))
    return Refusal(FAILED, f"{type(error).__name__}; the server's log says more")
