"""How engines are timed: in turns, on the same texts, beside the reference."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from numpy.typing import NDArray

from bertrec.bundle import Bundle
from bertrec.engine import OnnxEngine
from bertrec.errors import InvalidInput
from bertrec.session_options import SessionOptions
from bertrec.tensors import ModelSpec
from export.timing import EngineTimes, TimingSettings, evenly, take_turns, time_engines, timed
from tests import tiny

TEXTS = [" ".join([tiny.item_text(item)] * (1 + item)) for item in range(tiny.ITEMS)]
FEW = TimingSettings(rounds=3, single_texts=4, batched_texts=8, batch=4, threads=1)


@pytest.fixture
def slowed(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """The int8 engine takes 20 ms longer a run; what was run is noted, as the engine's name and the number of rows."""
    run, load = OnnxEngine.run, OnnxEngine.__init__
    names: dict[int, str] = {}
    asked: list[tuple[str, int]] = []

    def named(self: OnnxEngine, path: Path, *others: Any, **options: Any) -> None:
        names[id(self)] = path.stem
        load(self, path, *others, **options)

    def slow(self: OnnxEngine, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        name = names[id(self)]
        asked.append((name, len(inputs["input_ids"])))
        if name == "int8":
            time.sleep(0.02)
        return run(self, inputs)

    monkeypatch.setattr(OnnxEngine, "__init__", named)
    monkeypatch.setattr(OnnxEngine, "run", slow)
    return asked


def test_times_are_of_the_engine_and_ratios_beside_the_reference(tiny_bundle: Path, slowed: list[tuple[str, int]]) -> None:
    times = time_engines(Bundle.open(tiny_bundle), TEXTS, ["fp32", "int8"], reference="fp32", settings=FEW)
    assert list(times) == ["fp32", "int8"]
    fp32, int8 = times.values()
    assert (fp32.latency_ratio, fp32.throughput_ratio) == (1.0, 1.0)
    assert 20 < int8.single_ms_median <= int8.single_ms_p95
    assert int8.latency_ratio < 0.5 > int8.throughput_ratio
    assert int8.texts_per_s_low <= int8.texts_per_s_median <= int8.texts_per_s_high < 4 / 0.02
    assert (int8.rounds, int8.threads, int8.single_texts, int8.batched_texts, int8.batch) == (3, 1, 4, 8, 4)
    assert {rows for _, rows in slowed} <= {1, 2, 3, 4}
    rows = {name: sum(rows for engine, rows in slowed if engine == name) for name in times}
    assert rows["fp32"] == rows["int8"] == (1 + 4) + 3 * (4 + 8)  # a warm-up of every fourth request, and three rounds


def test_the_numbers_go_into_the_manifest_as_they_are(tiny_bundle: Path) -> None:
    times = time_engines(Bundle.open(tiny_bundle), TEXTS, ["fp32"], reference="fp32", settings=FEW)["fp32"]
    latency = times.as_latency()
    assert EngineTimes(**latency) == times  # type: ignore[arg-type]
    assert all(isinstance(value, (int, float)) and value > 0 for value in latency.values())


def test_subjects_take_turns_and_every_other_round_goes_backwards() -> None:
    order: list[str] = []

    def turn(name: str, warm_up: bool) -> list[float]:
        order.append(name.upper() if warm_up else name)
        return [0.5]

    work = {name: (lambda warm_up, name=name: turn(name, warm_up)) for name in "abc"}
    kept = take_turns(work, 3, label="turns")
    assert "".join(order) == "ABC" + "abc" + "cba" + "abc"
    assert kept == {name: [[0.5]] * 3 for name in "abc"}


def test_no_round_begins_after_the_time_given_but_the_first_three() -> None:
    def turn(warm_up: bool) -> list[float]:
        return timed(lambda _: time.sleep(0.02), [["text"]], warm_up)

    assert len(take_turns({"a": turn}, 50, label="late", max_seconds=0.01)["a"]) == 3


def test_a_request_takes_what_it_takes() -> None:
    asked: list[Sequence[str]] = []

    def ask(texts: Sequence[str]) -> None:
        asked.append(texts)
        time.sleep(0.01 * len(texts))

    seconds = timed(ask, [["a"], ["b", "c", "d"]], False)
    assert asked == [["a"], ["b", "c", "d"]]
    assert 0.01 <= seconds[0] < seconds[1]
    assert seconds[1] >= 0.03


def test_texts_are_drawn_evenly_over_their_lengths() -> None:
    texts = ["x" * length for length in (50, 10, 30, 20, 40)]
    assert [len(text) for text in evenly(texts, 3)] == [10, 30, 50]
    assert [len(text) for text in evenly(texts, 9)] == [10, 20, 30, 40, 50]


def test_every_engine_gets_its_threads(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    threads: list[int] = []
    load = OnnxEngine.__init__

    def noting(self: OnnxEngine, path: Path, spec: ModelSpec, session: SessionOptions) -> None:
        threads.append(session.threads)
        load(self, path, spec, session)

    monkeypatch.setattr(OnnxEngine, "__init__", noting)
    settings = dataclasses.replace(FEW, threads=2)
    times = time_engines(Bundle.open(tiny_bundle), TEXTS, ["fp32", "int8"], reference="fp32", settings=settings)
    assert threads == [2, 2]
    assert times["int8"].threads == 2


def test_what_makes_no_measurement_is_refused(tiny_bundle: Path) -> None:
    bundle = Bundle.open(tiny_bundle)
    with pytest.raises(InvalidInput, match="rounds is 2; accepted is a number from 3"):
        TimingSettings(rounds=2)
    with pytest.raises(InvalidInput, match="threads is -1; accepted is a number from 0 to 256"):
        TimingSettings(threads=-1)
    with pytest.raises(InvalidInput, match="engines cannot be timed without texts"):
        time_engines(bundle, [], ["fp32"], reference="fp32")
    with pytest.raises(InvalidInput, match="without the reference fp32 among int8"):
        time_engines(bundle, TEXTS, ["int8"], reference="fp32")
    with pytest.raises(InvalidInput, match="has no encoder engine 'fp16'"):
        time_engines(bundle, TEXTS, ["fp32", "fp16"], reference="fp32")
