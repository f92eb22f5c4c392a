"""The capacity planner: plans that hold what they promise, checks against a real load test, and the page that says both."""

from __future__ import annotations

import asyncio
import json
import math
import re
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.__main__ import main
from benchmarks.drive import Driven, Traffic, arrivals, histogram, open_loop
from benchmarks.plan import PlanSettings, allowance, check, highest_rate, predict
from benchmarks.queueing import Serve, ServiceTimes, poisson, simulate
from bertrec.errors import InvalidInput
from bertrec.questions import Question
from client.backends import NO_HEADERS

SERVICE = ServiceTimes((1, 64), (0.005, 0.068), spread=(0.5, 1.0, 1.5), overhead_s=0.002)
"""4 ms and 1 ms a text, so that 64 texts take 68 ms."""

SLOW = ServiceTimes((1, 64), (0.044, 0.296))
"""So slow that what the event loop adds hardly shows."""


def row(load: dict[str, Any], latencies_s: list[float], batches: dict[str, Any]) -> dict[str, Any]:
    kept = histogram()
    for one in latencies_s:
        kept.record_value(round(1e6 * one))
    shown = {f"p{percent}": kept.get_value_at_percentile(percent) / 1e3 for percent in (50, 99)}
    about = {"server": "triton", "protocol": "grpc", "answered": len(latencies_s), "histogram_us": kept.encode().decode()}
    return {**about, **load, "latency_ms": shown, "batches": batches, "texts_per_execution": 1.0}


def slowed(serve: Serve, times: float, first: int, batch: int) -> float:
    return times * serve(first, batch)


class Batcher:
    """A backend that batches in real time: one execution after another, each of all that wait, as long as SERVICE says."""

    def __init__(self) -> None:
        self._waiting: list[asyncio.Future[None]] = []
        self._came = asyncio.Event()
        self._worker = asyncio.ensure_future(self._work())

    async def answer(
        self, texts: Sequence[str], question: Question, *, timeout_s: float, headers: Mapping[str, str] = NO_HEADERS
    ) -> list[Any]:
        self._waiting.append(asyncio.get_running_loop().create_future())
        self._came.set()
        await self._waiting[-1]
        return []

    async def close(self) -> None:
        self._worker.cancel()

    async def _work(self) -> None:
        while True:
            while not self._waiting:
                self._came.clear()
                await self._came.wait()
            batch, self._waiting = self._waiting, []
            await asyncio.sleep(SLOW.mean(len(batch)))
            for one in batch:
                one.set_result(None)


def load_result(rates: tuple[float, ...] = (50.0, 200.0), *, slower: float = 1.0) -> dict[str, Any]:
    """What a load test of a server with the times of SERVICE writes; ``slower``: but for its open loops."""
    batches = {str(size): {"executions": 100, "seconds": 100 * SERVICE.mean(size)} for size in (1, 2, 8, 64)}
    drawn = SERVICE.drawn(900, seed=5)
    rows = [row({"loop": "closed", "clients": 1}, [drawn(one, 1) + SERVICE.overhead_s for one in range(900)], batches)]
    for rate in rates:
        due = list(arrivals(rate, 10.0, seed=0))
        serve = SERVICE.drawn(len(due), seed=7)
        found = simulate(due, partial(slowed, serve, slower)).latencies_s + SERVICE.overhead_s
        met = bool(np.percentile(found, 99) <= 0.05)
        rows.append(row({"loop": "open", "rate": rate, "objective_met": met}, found.tolist(), {}))
    settings = {"seconds": 10.0, "seed": 0, "objective_ms": 50.0}
    origin = {"cpu": "a CPU", "cores": 3, "measured": "2026-01-02T03:04:05", "commit": "0123456789ab"}
    return {"provenance": origin, "settings": settings, "bundle": "b", "complete": True, "rows": rows}


def plan(folder: Path, load: dict[str, Any], *more: str) -> dict[str, Any]:
    source, output = folder / "load.json", folder / "plan.json"
    source.write_text(json.dumps(load))
    assert main(["plan", "--load", str(source), "--output", str(output), *more]) == 0
    return dict(json.loads(output.read_text()))


def test_the_highest_rate_keeps_the_objective_and_a_little_more_breaks_it() -> None:
    settings = PlanSettings(objective_ms=40.0)
    rate = highest_rate(SERVICE, settings)
    assert rate is not None

    def p99_ms(at: float) -> float:
        latencies = simulate((poisson(100_000, seed=9) / at).tolist(), SERVICE.drawn(100_000, seed=8)).latencies_s
        return 1e3 * float(np.percentile(latencies, 99) + SERVICE.overhead_s)

    assert p99_ms(0.95 * rate) < 40.0 < p99_ms(1.05 * rate)


def test_an_objective_below_what_one_request_takes_has_no_rate() -> None:
    assert highest_rate(SERVICE, PlanSettings(objective_ms=5.0)) is None


def test_a_plan_has_instances_for_the_rate_one_to_spare_and_its_cost(tmp_path: Path) -> None:
    page = tmp_path / "capacity.md"
    written = plan(
        tmp_path, load_result((100.0, 900.0)), "--rates", "1000,100000", "--price-per-hour", "0.5", "--page", str(page)
    )
    assert written["complete"]
    (route,) = written["rows"]
    assert route["overhead_ms"] == pytest.approx(2.0, rel=0.1)
    assert route["service_ms"] == pytest.approx({"1": 5.0, "2": 6.0, "8": 12.0, "64": 68.0})
    for line in route["plan"]:
        assert line["instances"] == math.ceil(line["rate"] / route["highest_rate"])
        assert line["spared"] == line["instances"] + 1
        assert line["cores"] == 3 * line["spared"]
        assert line["p99_ms"][1] < line["p99_ms"][0] <= 50.0
        assert line["cost"] == pytest.approx(line["spared"] * 0.5 / 3600 / line["rate"] * 1e6)
    said = page.read_text()
    assert "**On paper.**" in said
    assert f"| 100,000 | {route['plan'][1]['instances']:,} |" in said
    assert re.search(r"held at 100/s and broke at 900/s;\nby the model it holds up to \d+\.\d/s, which agrees", said)
    assert "GPUs |" not in said
    assert max(map(len, said.splitlines()[:40])) <= 140


def test_predictions_are_near_where_the_server_is_as_its_times_say(tmp_path: Path) -> None:
    for load in plan(tmp_path, load_result())["rows"][0]["check"]["loads"]:
        assert abs(load["error"]["p50"]) < 0.1
        assert abs(load["error"]["p99"]) < 0.2
        assert load["range"]["p99"][0] <= load["measured"]["p99"] <= load["range"]["p99"][1]


def test_predictions_are_near_what_the_generator_measures_in_real_time() -> None:
    rate, seconds = 80.0, 3.0

    async def drive() -> Driven:
        batcher = Batcher()
        driven = await open_loop(Traffic(batcher, ["red"], 5.0), rate, seconds, seed=0)
        await batcher.close()
        return driven

    driven = asyncio.run(drive())
    predicted = predict(SLOW, list(arrivals(rate, seconds, seed=0)))
    assert driven.percentile_ms(50) == pytest.approx(predicted["p50"][1], rel=0.25)
    assert driven.percentile_ms(99) == pytest.approx(predicted["p99"][1], rel=0.35)


def test_a_server_that_is_slower_than_its_times_is_found_out(tmp_path: Path) -> None:
    loads = plan(tmp_path, load_result(slower=1.5))["rows"][0]["check"]["loads"]
    assert all(load["error"]["p50"] < -0.15 and load["error"]["p99"] < -0.15 for load in loads)


def test_a_plan_allows_for_what_the_model_is_too_low_by(tmp_path: Path) -> None:
    page = tmp_path / "capacity.md"
    (as_said,), (slower,) = (
        plan(tmp_path, load_result(slower=factor), "--rates", "1000", "--page", str(page))["rows"] for factor in (1.0, 1.5)
    )
    assert as_said["check"]["allowance"] == pytest.approx(1.0, abs=0.1)
    factor = slower["check"]["allowance"]
    assert 1.3 < factor < 2.5
    assert f"multiplied by {factor:.2f} here, the greatest of measured over predicted" in page.read_text()
    assert "no load that it has not seen confirms it" in page.read_text()
    assert slower["highest_rate"] < as_said["highest_rate"]
    line = slower["plan"][0]
    assert line["p99_ms"][1] < line["p99_ms"][0] <= 50.0
    assert predict(SERVICE, list(arrivals(1000 / line["instances"], 60.0, seed=3)))["p99"][1] * factor < 1.15 * 50.0


def test_a_model_that_is_too_high_makes_no_plan_bolder() -> None:
    assert allowance([], None) == 1.0
    assert allowance([compared(10.0, 100, 0.8)], 10.0) == 1.0


def compared(rate: float, requests: int, ratio: float) -> dict[str, Any]:
    return {"rate": rate, "requests": requests, "measured": {"p99": 10.0 * ratio}, "predicted": {"p99": 10.0}}


def test_the_allowance_is_the_worst_of_the_loads_that_a_plan_may_be_like() -> None:
    few, held, worst, broke = compared(5, 99, 4.0), compared(20, 100, 1.2), compared(40, 500, 1.7), compared(80, 900, 3.0)
    loads = [few, held, worst, broke]
    assert allowance(loads, 40.0) == pytest.approx(1.7)
    assert allowance(loads, 20.0) == pytest.approx(1.2)
    assert allowance(loads, 5.0) == pytest.approx(4.0)  # too few requests where it held: the greatest of all
    assert allowance(loads, None) == pytest.approx(4.0)


def test_the_rate_that_breaks_the_objective_lies_between_the_measured_ones() -> None:
    load = load_result((100.0, 300.0, 600.0, 900.0))
    found = check(load["rows"], SERVICE, load["settings"])
    assert found["highest_met"] < found["predicted_highest"] < found["lowest_missed"]
    hiccup = {**next(row for row in load["rows"] if row.get("rate") == 100.0), "attempt": 1, "objective_met": False}
    assert check([hiccup, *load["rows"]], SERVICE, load["settings"]) == found


def test_floors_and_gpus_are_said_where_they_are_given(tmp_path: Path) -> None:
    throughput, page = tmp_path / "throughput.json", tmp_path / "capacity.md"
    throughput.write_text(json.dumps({"provenance": {}, "engines": {"fp32": {"texts_per_s": [90.0, 100.0, 110.0]}}}))
    more = ["--throughput", str(throughput), "--gpus", "1", "--rates", "1000,2050", "--page", str(page)]
    written = plan(tmp_path, load_result(), *more)
    assert written["throughput"] == {"fp32": {"texts_per_s": 100.0, "instances": [10, 21]}}
    assert "| fp32 | 100 | 10 | 21 |" in page.read_text()
    assert [line["gpus"] for line in written["rows"][0]["plan"]] == [line["spared"] for line in written["rows"][0]["plan"]]
    assert "Nothing about GPUs" not in page.read_text()


def test_an_objective_that_nothing_keeps_is_said(tmp_path: Path) -> None:
    page = tmp_path / "capacity.md"
    written = plan(tmp_path, load_result(), "--objective-ms", "4", "--page", str(page))
    assert written["rows"][0]["plan"] == []
    assert "No number of instances keeps 4 ms" in page.read_text()


def test_a_real_load_test_is_planned_from(tiny_bundle: Path, tmp_path: Path) -> None:
    load, texts = tmp_path / "measured.json", tmp_path / "texts.txt"
    texts.write_text("a green gown\na denim dress\nred\n")
    asked = ["--servers", "triton", "--protocols", "grpc", "--clients", "1,8", "--rates", "40"]
    short = ["--texts", str(texts), "--seconds", "1", "--warm-up-s", "0.2", "--threads", "1", "--objective-ms", "10000"]
    assert main(["load", "--bundle", str(tiny_bundle), "--output", str(load), *asked, *short]) == 0
    measured = json.loads(load.read_text())
    for row in measured["rows"]:
        assert sum(one["executions"] for one in row["batches"].values()) == row["executions"]
        assert sum(int(size) * one["executions"] for size, one in row["batches"].items()) == row["texts"]
        assert 0 < sum(one["seconds"] for one in row["batches"].values()) <= row["seconds"]
    (route,) = plan(tmp_path, measured, "--objective-ms", "5000", "--rates", "1000")["rows"]
    assert (route["server"], route["protocol"]) == ("triton", "grpc")
    assert route["plan"][0]["instances"] >= 1
    assert route["check"]["loads"][0]["predicted"]["p50"] > 0


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"rows": []}, "no service times; accepted .* load with a Triton"),
        ({"rows": [{"engine": "fp32"}]}, "rows that are no load; accepted"),
        ({"settings": None, "provenance": None}, "lacks provenance, settings; accepted"),
    ],
)
def test_results_that_cannot_be_planned_from_are_refused(
    change: dict[str, Any], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "load.json"
    content = {**load_result(), **change}
    source.write_text(json.dumps({name: value for name, value in content.items() if value is not None}))
    assert main(["plan", "--load", str(source), "--output", str(tmp_path / "plan.json")]) == 2
    assert re.search(said, capsys.readouterr().err)


@pytest.mark.parametrize("given", [{"objective_ms": 0.0}, {"rates": ()}, {"rates": (0.0,)}, {"price_per_hour": -1}, {"cores": 0}])
def test_settings_that_plan_nothing_are_refused(given: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput, match=f"{next(iter(given))} is .*accepted"):
        PlanSettings(**given)
