"""The load benchmark: real servers are asked, stalls are charged, and the rows say what happened."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hdrh.histogram import HdrHistogram

from benchmarks.__main__ import main
from benchmarks.drive import Driven, Traffic, arrivals, closed_loop, open_loop
from benchmarks.load import LoadSettings, meets
from benchmarks.ramp import Kept, climb, counted, kept_rates, told
from benchmarks.record import Record
from bertrec.errors import InvalidInput, Unavailable
from bertrec.questions import Question
from client.backends import NO_HEADERS

if TYPE_CHECKING:
    from serving.triton import TritonServer

STALL_S = 0.3


class Stalling:
    """A backend that answers at once, but for the first request, behind which all others stand in line."""

    def __init__(self, *, fails: bool = False) -> None:
        self._line = asyncio.Lock()
        self._fails, self._asked = fails, 0

    async def answer(
        self, texts: Sequence[str], question: Question, *, timeout_s: float, headers: Mapping[str, str] = NO_HEADERS
    ) -> list[Any]:
        async with self._line:
            self._asked += 1
            if self._asked == 1:
                await asyncio.sleep(STALL_S)
        if self._fails:
            raise Unavailable("closed")
        await asyncio.sleep(0.001)
        return []

    async def close(self) -> None:
        pass


def test_a_stall_is_charged_to_everybody_who_came_meanwhile() -> None:
    rate, seconds = 200.0, 0.5
    driven = asyncio.run(open_loop(Traffic(Stalling(), ["red"], 1.0), rate, seconds, seed=0))
    due = list(arrivals(rate, seconds, seed=0))
    assert driven.answered == len(due)
    stalled = sum(one < due[0] + STALL_S for one in due)
    waited = sum(max(0.0, due[0] + STALL_S - one) for one in due)  # what each must at least have waited, in seconds
    assert stalled > len(due) / 3
    assert driven.latencies_us.get_mean_value() * driven.answered / 1e6 >= 0.99 * waited
    assert (driven.percentile_ms(100.0) or 0) >= 0.99e3 * STALL_S


def test_a_closed_loop_asks_on_until_the_time_is_over() -> None:
    driven = asyncio.run(closed_loop(Traffic(Stalling(), ["red", "green"], 1.0), 4, 0.4))
    assert driven.elapsed_s >= 0.4
    assert driven.answered > 4
    assert not driven.errors


def test_what_fails_is_counted_by_its_kind_and_has_no_latency() -> None:
    driven = asyncio.run(closed_loop(Traffic(Stalling(fails=True), ["red"], 1.0), 2, 0.1))
    assert driven.errors.total() == driven.errors["Unavailable"] >= 2
    assert (driven.answered, driven.percentile_ms(99)) == (0, None)
    assert not meets(driven, 1e6)


def test_the_objective_bounds_the_99th_percentile_and_the_failures() -> None:
    driven = Driven()
    driven.latencies_us.record_value(10_000, 990)
    driven.latencies_us.record_value(500_000, 9)
    assert meets(driven, 11.0)
    assert not meets(driven, 9.0)
    driven.errors["Overloaded"] = 11
    assert not meets(driven, 11.0)


def test_arrivals_have_the_rate_and_are_the_same_each_time() -> None:
    due = list(arrivals(100.0, 50.0, seed=3))
    assert due == sorted(due) == list(arrivals(100.0, 50.0, seed=3))
    assert len(due) == pytest.approx(5_000, rel=0.05)


def test_triton_and_the_edge_are_put_under_load(tiny_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "results" / "load.json"
    texts = tmp_path / "texts.txt"
    texts.write_text("a green gown\na denim dress\nred\n")
    arguments = ["load", "--bundle", str(tiny_bundle), "--output", str(output), "--texts", str(texts), "--threads", "1"]
    asked = ["--servers", "triton-cached,edge", "--clients", "1,8", "--rates", "40", "--seconds", "0.3", "--warm-up-s", "0.1"]
    assert main([*arguments, *asked, "--objective-ms", "5000"]) == 0
    written: dict[str, Any] = json.loads(output.read_text())
    assert written["complete"]
    assert written["settings"]["threads"] == 1
    loads = [(row["server"], row["protocol"], row.get("clients") or row["rate"]) for row in written["rows"]]
    routes = [("triton-cached", "grpc"), ("triton-cached", "http"), ("edge", "http")]
    assert loads == [(*route, load) for route in routes for load in (1, 8, 40)]
    for row in written["rows"]:
        assert row["errors"] == {}
        assert row["engine"] == "fp32"
        assert row["texts"] == row["answered"] > 0
        assert row["texts_per_execution"] >= 1
        kept = HdrHistogram.decode(row["histogram_us"])
        assert kept.get_total_count() == row["answered"]
        assert kept.get_value_at_percentile(50) / 1e3 == row["latency_ms"]["p50"]
        assert row["latency_ms"]["p50"] <= row["latency_ms"]["p99.9"]
    assert "texts/run" in capsys.readouterr().out


def test_after_a_rate_that_breaks_the_objective_no_higher_one_is_tried(tiny_bundle: Path, tmp_path: Path) -> None:
    output = tmp_path / "load.json"
    asked = ["--servers", "edge", "--clients", "", "--rates", "20,40,60", "--seconds", "0.3", "--warm-up-s", "0"]
    assert main(["load", "--bundle", str(tiny_bundle), "--output", str(output), *asked, "--objective-ms", "0.01"]) == 0
    rows = json.loads(output.read_text())["rows"]
    assert [(row["rate"], row["attempt"], row["objective_met"]) for row in rows] == [(20.0, 1, False), (20.0, 2, False)]
    assert rows[0]["answered"] + sum(rows[0]["errors"].values()) == rows[1]["answered"] + sum(rows[1]["errors"].values())


def ramp(outcomes: Mapping[float, Sequence[bool]]) -> tuple[int, list[dict[str, Any]]]:
    """How many rates were kept, and the rows, where each attempt at a rate comes out so."""
    rows: list[dict[str, Any]] = []

    async def measure(rate: float, attempt: int) -> bool:
        met = outcomes[rate][attempt - 1]
        about = {"server": "edge", "protocol": "http", "loop": "open", "rate": rate, "attempt": attempt}
        rows.append({**about, "objective_met": met})
        return met

    return asyncio.run(climb(list(outcomes), measure)), rows


def test_a_hiccup_ends_no_ramp_and_what_breaks_twice_does() -> None:
    kept, rows = ramp({5.0: [False, True], 10.0: [True], 20.0: [False, False], 40.0: [True]})
    assert kept == 2
    assert [(row["rate"], row["attempt"]) for row in rows] == [(5.0, 1), (5.0, 2), (10.0, 1), (20.0, 1), (20.0, 2)]
    assert [(row["rate"], row["attempt"]) for row in counted(rows)] == [(5.0, 2), (10.0, 1), (20.0, 2)]
    assert kept_rates(rows) == {("edge", "http"): Kept(10.0, 20.0)}
    assert told(Kept(10.0, 20.0)) == "10 requests/s"


def test_no_bound_is_claimed_where_the_greatest_rate_tried_kept_the_objective() -> None:
    kept, rows = ramp({5.0: [True], 10.0: [False, True]})
    assert kept == 2
    assert kept_rates(rows) == {("edge", "http"): Kept(10.0, None)}
    assert told(Kept(10.0, None)) == "at least 10 requests/s, the greatest rate tried"
    assert told(Kept(None, 5.0)) == "not even 5 requests/s"


def test_what_was_found_before_an_interruption_is_kept(tmp_path: Path) -> None:
    record = Record(tmp_path / "found" / "some.json", {"settings": {"seconds": 1}})
    record.add({"clients": 1})
    record.add({"clients": 2})
    written = json.loads((tmp_path / "found" / "some.json").read_text())
    assert (written["complete"], written["rows"]) == (False, [{"clients": 1}, {"clients": 2}])
    assert written["provenance"]["cores"] >= 1
    record.finish(bound=3)
    written = json.loads((tmp_path / "found" / "some.json").read_text())
    assert (written["complete"], written["bound"], len(written["rows"])) == (True, 3, 2)


def test_an_earlier_result_stays_until_there_is_something_new(tmp_path: Path) -> None:
    file = tmp_path / "some.json"
    earlier = Record(file, {})
    earlier.add({"clients": 1})
    earlier.finish()
    kept = file.read_bytes()
    again = Record(file, {})
    again.note(peaks=[1])
    assert file.read_bytes() == kept
    assert list(tmp_path.iterdir()) == [file]
    again.add({"clients": 2})
    written = json.loads(file.read_text())
    assert (written["complete"], written["peaks"], written["rows"]) == (False, [1], [{"clients": 2}])
    Record(file, {}).finish()
    written = json.loads(file.read_text())
    assert (written["complete"], written["rows"]) == (True, [])


def test_a_result_that_cannot_be_written_is_known_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "some.json").write_text("{}")
    (tmp_path / "some.json.new").mkdir()
    with pytest.raises(OSError, match=r"some\.json"):
        Record(tmp_path / "some.json", {})
    with pytest.raises(OSError, match="results"):
        (tmp_path / "results").mkdir()
        Record(tmp_path / "results", {})


@pytest.mark.parametrize(
    "given", [{"servers": ("elsewhere",)}, {"protocols": ()}, {"clients": (0,)}, {"rates": (-1.0,)}, {"seconds": 0.0}]
)
def test_settings_that_measure_nothing_are_refused(given: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput, match=f"{next(iter(given))} is .*accepted"):
        LoadSettings(**given)


def test_the_time_of_the_first_request_is_its_own(tiny_bundle: Path) -> None:
    driven = Driven()
    asyncio.run(Traffic(Stalling(), ["red"], 1.0).ask("red", time.perf_counter() - 1.0, driven))
    assert (driven.percentile_ms(100.0) or 0) >= 1e3 * (1.0 + STALL_S) * 0.99
    assert driven.lag_us.get_max_value() >= 0.99e6


def test_a_server_that_was_started_elsewhere_is_asked_at_its_addresses(
    triton: TritonServer, tiny_bundle: Path, tmp_path: Path
) -> None:
    output, texts = tmp_path / "load.json", tmp_path / "texts.txt"
    texts.write_text("a green gown\nred\n")
    asked = ["--running", f"{triton.http_url},{triton.grpc_url}", "--clients", "2", "--rates", "", "--seconds", "0.3"]
    more = ["--texts", str(texts), "--warm-up-s", "0"]
    assert main(["load", "--bundle", str(tiny_bundle), "--output", str(output), *asked, *more]) == 0
    rows = json.loads(output.read_text())["rows"]
    assert [(row["server"], row["protocol"]) for row in rows] == [("running", "grpc"), ("running", "http")]
    assert all(row["texts"] == row["answered"] > 0 and row["batches"] for row in rows)
    assert triton.is_alive()


def test_a_server_elsewhere_needs_the_address_of_its_statistics(
    tiny_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["--output", str(tmp_path / "load.json"), "--running", "grpc://127.0.0.1:9"]
    assert main(["load", "--bundle", str(tiny_bundle), *asked]) == 2
    assert "running is grpc://127.0.0.1:9; accepted is an http:// address" in capsys.readouterr().err
