"""A dynamic batcher as a queue, by simulation: requests wait, and each execution takes all that wait, up to its largest batch.

The batch-service queue of Inoue, "Queueing analysis of GPU-based inference servers with dynamic batching" (Performance Evaluation
147, 2021): Poisson arrivals, no delay for the sake of a batch, service times that depend on the batch. Simulated and not
solved, because the closed forms give means and the 99th percentile is asked.
"""

from __future__ import annotations

import heapq
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import isotonic_regression

from bertrec.errors import InvalidInput
from bertrec.tensors import MAX_BATCH_SIZE

Seconds = NDArray[np.float64]
Serve = Callable[[int, int], float]
"""Position of the first request and their number → seconds that their execution takes."""


@dataclass(frozen=True)
class ServiceTimes:
    """How long an execution takes, by the number of texts in it.

    sizes, seconds: batch → mean time, both rising. spread: the time of one text over the mean, as equally likely values with
    mean 1; that of a batch is the mean of its texts' own. overhead_s: of a request outside the queue and its execution.
    """

    sizes: tuple[int, ...]
    seconds: tuple[float, ...]
    spread: tuple[float, ...] = (1.0,)
    overhead_s: float = 0.0

    def mean(self, batch: int) -> float:
        """Between measured sizes on a line; above the largest in proportion, which is no better than what was measured."""
        if batch > self.sizes[-1]:
            return self.seconds[-1] * batch / self.sizes[-1]
        return float(np.interp(batch, self.sizes, self.seconds))

    def drawn(self, requests: int, *, seed: int) -> Serve:
        """Times for ``requests`` requests, each with a spread of its own."""
        drawn = np.random.default_rng(seed).choice(np.asarray(self.spread), requests)
        until = np.concatenate([[0.0], np.cumsum(drawn)]).tolist()
        means = [self.mean(batch) for batch in range(MAX_BATCH_SIZE + 1)]

        def serve(first: int, batch: int) -> float:
            return float(means[batch] * (until[first + batch] - until[first]) / batch)

        return serve

    @property
    def bound(self) -> float:
        """Requests a second that one server answers at most, with full batches or whichever are best."""
        return max(batch / self.mean(batch) for batch in range(1, MAX_BATCH_SIZE + 1))


def fitted(executed: Mapping[int, tuple[int, float]], undisturbed_s: Sequence[float]) -> ServiceTimes:
    """Service times from what was measured. Raises InvalidInput where single texts were not measured, alone.

    executed: batch → executions and their seconds together. The means are made to rise with the batch, each weighted by its
    executions (isotonic regression: Barlow et al., 1972). undisturbed_s: latencies of requests that met no others, whose mean
    beyond a single text's execution is the overhead, and whose distribution gives the spread.
    """
    if 1 not in executed or not len(undisturbed_s):
        raise InvalidInput("no execution of one text was measured; accepted is a load result with one client (--clients 1,…)")
    sizes = sorted(executed)
    counts = [executed[size][0] for size in sizes]
    means = [executed[size][1] / executed[size][0] for size in sizes]
    seconds = isotonic_regression(means, weights=counts).x.tolist()
    alone = np.asarray(undisturbed_s, np.float64)
    overhead_s = max(0.0, float(alone.mean()) - seconds[0])
    within = np.maximum(alone - overhead_s, 0.01 * seconds[0])
    return ServiceTimes(tuple(sizes), tuple(seconds), tuple((within / within.mean()).tolist()), overhead_s)


@dataclass(frozen=True)
class Simulated:
    """latencies_s: (requests,), from when a request came until its execution ended. executions: how many there were."""

    latencies_s: Seconds
    executions: int


def simulate(due_s: Sequence[float], serve: Serve, *, servers: int = 1, most: int = MAX_BATCH_SIZE) -> Simulated:
    """Serve requests in their order. due_s: when each comes, rising. servers: that share the queue. most: in one execution.

    A server that is free takes what waits at once, and the next to come if nothing does.
    """
    free = [0.0] * servers
    finished: list[float] = []
    batches: list[int] = []
    first = 0
    while first < len(due_s):
        start = max(free[0], due_s[first])
        batch = min(bisect_right(due_s, start, first), first + most) - first
        finished.append(start + serve(first, batch))
        heapq.heapreplace(free, finished[-1])
        batches.append(batch)
        first += batch
    return Simulated(np.repeat(finished, batches) - np.asarray(due_s), len(batches))


def poisson(requests: int, *, seed: int) -> Seconds:
    """(requests,) Times of a Poisson process of one request a second; divide by a rate for that rate."""
    return np.cumsum(np.random.default_rng(seed).exponential(size=requests))
