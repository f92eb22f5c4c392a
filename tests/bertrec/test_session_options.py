"""Threads, cores and memory of an engine: what is asked for is what runs, and no answer depends on it."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bertrec.engine import OnnxEngine
from bertrec.errors import InvalidInput
from bertrec.session_options import Device, SessionOptions, usable_cores
from bertrec.tensors import ENCODER
from client import Recommender
from client.server.__main__ import main

GIVEN = {"input_ids": np.full((8, 64), 7, np.int64), "attention_mask": np.ones((8, 64), np.int64)}
CORES = usable_cores()


@pytest.fixture
def encoder_file(tiny_bundle: Path) -> Path:
    return tiny_bundle / "encoder/fp32.onnx"


def started(make: Callable[[], Any]) -> tuple[Any, list[int]]:
    """What was made, and the threads that this started."""
    before = set(os.listdir("/proc/self/task"))
    made = make()
    time.sleep(0.05)
    return made, [int(task) for task in set(os.listdir("/proc/self/task")) - before]


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="threads are looked up in Linux's /proc")
def test_an_engine_has_the_threads_that_it_is_given_and_they_stay_on_their_cores(encoder_file: Path) -> None:
    for session, expected in (
        (SessionOptions(1), []),
        (SessionOptions(3), [set(CORES), set(CORES)]),
        (SessionOptions(affinity=[CORES[-1], CORES[0]]), [{CORES[-1]}, {CORES[0]}]),
    ):
        engine, threads = started(partial(OnnxEngine, encoder_file, ENCODER, session))
        assert session.threads == len(expected) + 1
        found = [os.sched_getaffinity(thread) for thread in threads]
        assert sorted(map(sorted, found)) == sorted(map(sorted, expected))
        engine.run(GIVEN)
    assert os.sched_getaffinity(threading.get_native_id()) == set(CORES)  # of the asking thread: its program's


def test_no_answer_depends_on_them(encoder_file: Path) -> None:
    expected = OnnxEngine(encoder_file, ENCODER, SessionOptions(1)).run(GIVEN)["interest_vector"]
    for session in (
        SessionOptions(1, memory_arena=False),
        SessionOptions(2, allow_spinning=True),
        SessionOptions(affinity=CORES[:1]),
    ):
        np.testing.assert_allclose(OnnxEngine(encoder_file, ENCODER, session).run(GIVEN)["interest_vector"], expected, atol=1e-6)


def test_without_the_arena_the_memory_of_a_run_is_given_back(encoder_file: Path) -> None:
    def held_bytes(session: SessionOptions) -> int:
        """What a large run leaves resident."""
        engine = OnnxEngine(encoder_file, ENCODER, session)
        large = {name: np.repeat(np.repeat(values, 64, 0), 2, 1) for name, values in GIVEN.items()}
        engine.run(GIVEN)
        before = resident_bytes()
        engine.run(large)
        return resident_bytes() - before

    def resident_bytes() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    kept, returned = held_bytes(SessionOptions(1)), held_bytes(SessionOptions(1, memory_arena=False))
    assert kept > 2 * returned


def test_a_recommender_and_the_edge_server_take_them(tiny_bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Recommender(bundle=tiny_bundle, threads=1) as plain:
        expected = plain.recommend("green gown")
    with Recommender(bundle=tiny_bundle, memory_arena=False, affinity=CORES[:1], allow_spinning=True) as recommender:
        assert recommender.recommend("green gown").items == expected.items
    with pytest.raises(InvalidInput, match="memory_arena is 'no'; accepted are true and false"):
        Recommender("grpc://127.0.0.1:1", memory_arena="no")  # type: ignore[arg-type]  # also where no bundle is opened
    assert main(["--bundle", str(tiny_bundle), "--affinity", "9999"]) == 2
    assert "affinity is [9999]; accepted is a list of the cores that this process may use: " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"threads": -1}, "threads is -1; accepted is 0, for one per core, to 256"),
        ({"threads": True}, "threads is True; accepted"),
        ({"device": "tpu"}, "device is 'tpu'; accepted are cpu, gpu"),
        ({"allow_spinning": 1}, "allow_spinning is 1; accepted are true and false"),
        ({"affinity": "0"}, "affinity is '0'; accepted is a list of the cores"),
        ({"affinity": [-1]}, r"affinity is \[-1\]; accepted is a list of the cores"),
        (
            {"affinity": [CORES[0]], "threads": 1},
            "affinity names 1 cores and threads is 1; accepted is a core for each thread but",
        ),
    ],
)
def test_what_cannot_be_had_is_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        SessionOptions(**given)


def test_a_device_is_known_by_its_name() -> None:
    assert SessionOptions(device="gpu").device is Device.GPU
