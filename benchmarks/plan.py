"""The capacity planner: how many instances keep the 99th percentile under an objective, from service times that were measured.

Service times come from the load test's closed loops, and the model is held against its open loops, which it has not seen; by how
much it was too low there at worst, plans allow for (:func:`allowance`).
Everything for higher rates is on paper: independent instances, among which requests are divided at random.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from hdrh.histogram import HdrHistogram

from benchmarks.drive import arrivals
from benchmarks.load import CACHED
from benchmarks.queueing import ServiceTimes, fitted, poisson, simulate
from benchmarks.ramp import counted
from benchmarks.record import Record
from bertrec.checks import number
from bertrec.errors import InvalidInput
from train.progress import progress

QUANTILES = 1_000
"""Of the undisturbed latencies, as which their distribution is kept."""
WARMING = 0.05
"""Share of simulated requests that come first, to an empty queue, and are not counted."""
TRIALS = 20
"""Simulations of each measured load: their middle is the prediction, 95% of them its range."""
HALVINGS = 14
"""Of the interval that holds the highest rate: to 1 in 16,000."""
ENOUGH_REQUESTS = 100
"""Of fewer the 99th percentile is hardly more than the slowest."""

Row = Mapping[str, Any]


@dataclass(frozen=True)
class PlanSettings:
    """What to plan for. Raises InvalidInput for what no plan can be made for.

    objective_ms: for the 99th percentile. rates: requests a second of all instances together. price_per_hour: of one instance,
    None where it is not known. cores, gpus: of one instance. requests: simulated for each figure.
    """

    objective_ms: float = 50.0
    rates: tuple[float, ...] = (1e3, 3e3, 1e4, 3e4, 1e5, 3e5, 1e6)
    price_per_hour: float | None = None
    cores: int = 2
    gpus: int = 0
    requests: int = 20_000
    seed: int = 0

    def __post_init__(self) -> None:
        number("objective_ms", self.objective_ms, 0.01, 1e6)
        if not self.rates:
            raise InvalidInput("rates is empty; accepted is at least one number of requests a second")
        for rate in self.rates:
            number("rates", rate, 0.001, 1e9)
        if self.price_per_hour is not None:
            number("price_per_hour", self.price_per_hour, 0.0, 1e6)
        number("cores", self.cores, 1, 100_000)
        number("gpus", self.gpus, 0, 1_000)
        number("requests", self.requests, 1_000, 10_000_000)


@dataclass(frozen=True)
class Line:
    """The plan for one rate.

    instances: that keep the objective, none to spare; spared: with one more, so that one may fail. used: share of what the
    instances could answer at most. p99_ms: predicted, the allowance in it, without and with the one to spare. cost:
    per million requests, with the one to spare, in the currency of the price.
    """

    rate: float
    instances: int
    spared: int
    cores: int
    gpus: int
    used: float
    p99_ms: tuple[float, float]
    instance_hours_per_million: float
    cost: float | None


def make_plans(load: Mapping[str, Any], settings: PlanSettings, record: Record) -> None:
    """A row of ``record`` for each route (server and protocol) of a load result: service times, check, plan.

    Left out are routes whose executions are not known (the edge server) and answers from a cache, whose cost is that of what it
    does not hold. Raises InvalidInput where no route is left, or one client alone was not measured.
    """
    routes: dict[tuple[str, str], list[Row]] = {}
    for row in load["rows"]:
        if row["server"] != CACHED:
            routes.setdefault((row["server"], row["protocol"]), []).append(row)
    known = {route: rows for route, rows in routes.items() if any(row.get("batches") for row in rows)}
    if not known:
        raise InvalidInput(
            "the load result has no service times; accepted is one of python -m benchmarks load with a Triton among its --servers"
        )
    with progress("planning", len(known) * (len(settings.rates) + 1)) as advance:
        for (server, protocol), rows in known.items():
            service = service_times(rows)
            checked = check(rows, service, load["settings"])
            factor = checked["allowance"]
            highest = highest_rate(service, replace(settings, objective_ms=settings.objective_ms / factor))
            advance(note=f"{server}, {protocol}: checked")
            lines = []
            for rate in settings.rates if highest is not None else ():
                lines.append(asdict(_line(rate, highest or 0.0, factor, service, settings)))
                advance(note=f"{rate:g} requests/s")
            record.add({"server": server, "protocol": protocol, **_described(service, highest), "check": checked, "plan": lines})


def service_times(rows: Sequence[Row]) -> ServiceTimes:
    """Of one route, from its closed loops. Raises InvalidInput where one client alone was not measured."""
    closed = [row for row in rows if row["loop"] == "closed"]
    executed: dict[int, tuple[int, float]] = {}
    for row in closed:
        for size, one in row.get("batches", {}).items():
            executions, seconds = executed.get(int(size), (0, 0.0))
            executed[int(size)] = (executions + one["executions"], seconds + one["seconds"])
    single = [row for row in closed if row["clients"] == 1 and row["answered"]]
    return fitted(executed, _quantiles(single[0]["histogram_us"]) if single else [])


def highest_rate(service: ServiceTimes, settings: PlanSettings) -> float | None:
    """Requests a second at which one instance just meets the objective; None where a request that meets no other misses it."""

    def meets(rate: float) -> bool:
        return _p99_ms(service, rate, settings) <= settings.objective_ms

    low, high = service.bound / 1_000, service.bound
    if not meets(low):
        return None
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if meets(middle) else (low, middle)
    return low


def check(rows: Sequence[Row], service: ServiceTimes, measured: Mapping[str, Any]) -> dict[str, Any]:
    """Predictions for the very requests of the open loops, beside what was measured; and the rate that breaks the objective."""
    loads = [row for row in counted(rows) if row["answered"]]
    seconds, seed, objective_ms = measured["seconds"], measured["seed"], measured["objective_ms"]
    compared = []
    for row in loads:
        predicted = predict(service, list(arrivals(row["rate"], seconds, seed=seed)))
        compared.append(
            {
                "rate": row["rate"],
                "requests": row["answered"],
                "measured": {name: row["latency_ms"][name] for name in ("p50", "p99")},
                "predicted": {name: predicted[name][1] for name in ("p50", "p99")},
                "range": {name: [predicted[name][0], predicted[name][2]] for name in ("p50", "p99")},
                "error": {name: predicted[name][1] / row["latency_ms"][name] - 1.0 for name in ("p50", "p99")},
                "texts_per_execution": {"measured": row["texts_per_execution"], "predicted": predicted["texts_per_execution"][1]},
            }
        )
    met = [row["rate"] for row in loads if row["objective_met"]]
    missed = [row["rate"] for row in loads if not row["objective_met"]]
    highest = highest_rate(service, PlanSettings(objective_ms=objective_ms))
    return {
        "objective_ms": objective_ms,
        "loads": compared,
        "allowance": allowance(compared, max(met, default=None)),
        "highest_met": max(met, default=None),
        "lowest_missed": min(missed, default=None),
        "predicted_highest": highest,
    }


def allowance(loads: Sequence[Row], highest_met: float | None) -> float:
    """By what the 99th percentiles of plans are multiplied: the greatest of measured over predicted, never below 1.

    Of the loads that a plan may be like: at most the highest rate that met the objective, of ``ENOUGH_REQUESTS`` at least. Where
    there is none, of all.
    """
    held = [load for load in loads if highest_met is not None and load["rate"] <= highest_met]
    sure = [load for load in held if load["requests"] >= ENOUGH_REQUESTS]
    ratios: list[float] = [load["measured"]["p99"] / load["predicted"]["p99"] for load in sure or loads]
    return max(1.0, *ratios) if ratios else 1.0


def predict(service: ServiceTimes, due_s: Sequence[float]) -> dict[str, list[float]]:
    """What a measurement of requests at these times would show, over ``TRIALS``: low, middle and high of 95% of them."""
    shown: dict[str, list[float]] = {"p50": [], "p99": [], "texts_per_execution": []}
    for trial in range(TRIALS):
        found = simulate(due_s, service.drawn(len(due_s), seed=trial))
        p50_ms, p99_ms = 1e3 * (np.percentile(found.latencies_s, [50, 99]) + service.overhead_s)
        shown["p50"].append(float(p50_ms))
        shown["p99"].append(float(p99_ms))
        shown["texts_per_execution"].append(len(due_s) / found.executions)
    return {name: np.percentile(values, [2.5, 50, 97.5]).tolist() for name, values in shown.items()}


def floors(throughput: Mapping[str, Any], rates: Sequence[float]) -> dict[str, Any]:
    """Engine → its offline texts a second, and the instances without which its texts could not even be read, at each rate."""
    found = {}
    for engine, one in throughput["engines"].items():
        median = one["texts_per_s"][1]
        found[engine] = {"texts_per_s": median, "instances": [math.ceil(rate / median) for rate in rates]}
    return found


def _line(rate: float, highest: float, factor: float, service: ServiceTimes, settings: PlanSettings) -> Line:
    instances = math.ceil(rate / highest)
    spared = instances + 1
    hours = spared / (3_600 * rate) * 1e6
    return Line(
        rate=rate,
        instances=instances,
        spared=spared,
        cores=spared * settings.cores,
        gpus=spared * settings.gpus,
        used=rate / instances / service.bound,
        p99_ms=(factor * _p99_ms(service, rate / instances, settings), factor * _p99_ms(service, rate / spared, settings)),
        instance_hours_per_million=hours,
        cost=None if settings.price_per_hour is None else hours * settings.price_per_hour,
    )


def _p99_ms(service: ServiceTimes, rate: float, settings: PlanSettings) -> float:
    """Of one instance at a rate, the same requests at each rate but for their pace."""
    due_s = (poisson(settings.requests, seed=settings.seed) / rate).tolist()
    latencies = simulate(due_s, service.drawn(settings.requests, seed=settings.seed + 1)).latencies_s
    return float(1e3 * (np.percentile(latencies[int(WARMING * settings.requests) :], 99) + service.overhead_s))


def _quantiles(histogram: str) -> list[float]:
    """(QUANTILES,) Equally likely latencies of an HdrHistogram of microseconds, in seconds."""
    kept = HdrHistogram.decode(histogram)
    percents = [100 * (row + 0.5) / QUANTILES for row in range(QUANTILES)]
    return [kept.get_value_at_percentile(percent) / 1e6 for percent in percents]


def _described(service: ServiceTimes, highest: float | None) -> dict[str, Any]:
    """What the plan stands on; undisturbed_p99_ms is that of a request that meets no other."""
    return {
        "service_ms": {str(size): 1e3 * seconds for size, seconds in zip(service.sizes, service.seconds, strict=True)},
        "overhead_ms": 1e3 * service.overhead_s,
        "undisturbed_p99_ms": float(1e3 * (service.seconds[0] * np.percentile(service.spread, 99) + service.overhead_s)),
        "most_rate": service.bound,
        "highest_rate": highest,
    }
