"""What the recommender decides: whom to ask, when to fall back, when to try again. Fake backends, a clock moved by hand."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bertrec.engine import OnnxEngine
from bertrec.tensors import ENCODER
from client import (
    Backend,
    BertrecError,
    DeadlineExceeded,
    InvalidAnswer,
    InvalidBundle,
    InvalidInput,
    MissingDependency,
    Recommender,
    ServedBy,
    Tls,
    Unavailable,
)
from client.backends import connect
from tests.client.fakes import FakeBackend, ManualClock

REST_S = 1.0


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def server() -> FakeBackend:
    return FakeBackend("server")


@pytest.fixture
def edge() -> FakeBackend:
    return FakeBackend("edge")


@pytest.fixture
def recommender(server: FakeBackend, edge: FakeBackend, clock: ManualClock) -> Recommender:
    return Recommender(server=server, fallback=edge, clock=clock, rest_s=REST_S)


def test_the_server_answers_while_it_can(recommender: Recommender, edge: FakeBackend) -> None:
    answer = recommender.recommend("red")
    assert (answer.engine, answer.served_by, answer.degraded) == ("server", ServedBy.TRITON, False)
    assert edge.asked == []


@pytest.mark.parametrize("failure", [Unavailable("gone"), InvalidAnswer("broken")])
def test_the_edge_answers_where_the_server_cannot(recommender: Recommender, server: FakeBackend, failure: Unavailable) -> None:
    server.failure = failure
    answers = recommender.recommend(["red", "green"])
    assert [(a.engine, a.served_by, a.degraded, a.fallback_reason) for a in answers] == 2 * [
        ("edge", ServedBy.EDGE, True, str(failure))
    ]
    assert server.asked == [["red", "green"]]  # once: a moment would not mend it


def test_bad_input_that_the_server_finds_is_not_sent_to_the_edge(
    recommender: Recommender, server: FakeBackend, edge: FakeBackend
) -> None:
    server.failure = InvalidInput("k is 500; accepted is 1 to 200")
    for _ in range(2):
        with pytest.raises(InvalidInput, match="k is 500"):
            recommender.recommend("red", k=500)
    assert (len(server.asked), len(edge.asked)) == (2, 0)  # and the server is not thought to be down


def test_without_a_fallback_the_error_is_raised_and_the_server_always_asked(server: FakeBackend) -> None:
    server.failure = Unavailable("gone")
    recommender = Recommender(server=server)
    for _ in range(3):
        with pytest.raises(Unavailable, match="gone"):
            recommender.recommend("red")
    assert len(server.asked) == 3


def test_a_failed_server_is_left_alone_then_tried_again(
    recommender: Recommender, server: FakeBackend, clock: ManualClock
) -> None:
    server.failure = Unavailable("gone")
    for _ in range(5):
        assert recommender.recommend("red").fallback_reason == "gone"
        clock.advance(REST_S / 10)
    assert len(server.asked) == 1
    clock.advance(REST_S)
    assert recommender.recommend("red").degraded
    assert len(server.asked) == 2
    server.failure = None
    assert recommender.recommend("red").degraded  # it rests again since the second failure
    clock.advance(REST_S)
    assert [recommender.recommend("red").served_by for _ in range(3)] == [ServedBy.TRITON] * 3
    assert len(server.asked) == 5


def test_a_server_that_hangs_rests_as_long_as_it_cost(recommender: Recommender, server: FakeBackend, clock: ManualClock) -> None:
    server.failure = DeadlineExceeded("late")
    server.meanwhile = lambda: clock.advance(5)
    answer = recommender.recommend("red")
    assert answer.latency_ms == 5000
    clock.advance(4.9)
    recommender.recommend("red")
    assert len(server.asked) == 1
    clock.advance(0.2)
    recommender.recommend("red")
    assert len(server.asked) == 2


def test_one_call_probes_while_others_go_on_with_the_edge(
    recommender: Recommender, server: FakeBackend, clock: ManualClock
) -> None:
    server.failure = Unavailable("gone")
    recommender.recommend("red")
    clock.advance(REST_S)
    probing, release = threading.Event(), threading.Event()
    server.failure = None

    def hold() -> None:
        probing.set()
        assert release.wait(10)

    server.meanwhile = hold
    served: list[str] = []
    probe = threading.Thread(target=lambda: served.append(recommender.recommend("probe").served_by))
    probe.start()
    assert probing.wait(10)
    assert [recommender.recommend("red").served_by for _ in range(3)] == [ServedBy.EDGE] * 3
    release.set()
    probe.join(10)
    assert served == [ServedBy.TRITON]
    assert server.asked == [["red"], ["probe"]]


def test_a_probe_that_dies_lets_another_call_try(recommender: Recommender, server: FakeBackend, clock: ManualClock) -> None:
    server.failure = Unavailable("gone")
    recommender.recommend("red")
    clock.advance(REST_S)

    def interrupt() -> None:
        raise KeyboardInterrupt

    server.meanwhile = interrupt
    with pytest.raises(KeyboardInterrupt):
        recommender.recommend("red")
    server.failure, server.meanwhile = None, lambda: None
    assert recommender.recommend("red").served_by is ServedBy.TRITON


def test_a_refusal_proves_that_the_server_is_back(recommender: Recommender, server: FakeBackend, clock: ManualClock) -> None:
    server.failure = Unavailable("gone")
    recommender.recommend("red")
    clock.advance(REST_S)
    server.failure = InvalidInput("k is 500")
    with pytest.raises(InvalidInput):
        recommender.recommend("red", k=500)
    server.failure = None
    assert recommender.recommend("red").served_by is ServedBy.TRITON


def test_an_outage_is_logged_once_at_each_end(
    recommender: Recommender, server: FakeBackend, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    server.failure = Unavailable("gone")
    for _ in range(3):
        recommender.recommend("red")
        clock.advance(REST_S)
    server.failure = None
    recommender.recommend("red")
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        ("WARNING", "server is unavailable and rests: gone"),
        ("INFO", "server answers again"),
    ]


def test_the_deadline_is_the_calls_or_else_the_recommenders(server: FakeBackend) -> None:
    recommender = Recommender(server=server, timeout_s=2, clock=ManualClock())
    recommender.recommend("red")
    recommender.recommend("red", timeout_s=0.25)
    assert server.timeouts_s == [2.0, 0.25]


def test_closing_closes_both_and_ends_its_use(recommender: Recommender, server: FakeBackend, edge: FakeBackend) -> None:
    with recommender:
        pass
    assert (server.closed, edge.closed) == (1, 1)
    with pytest.raises(InvalidInput, match="this recommender is closed; make a new one"):
        recommender.recommend("red")


def test_backends_are_told_by_their_shape(server: FakeBackend) -> None:
    assert isinstance(server, Backend)
    for url in (
        "grpc://127.0.0.1",
        "grpc://[::1]:9001/",
        "http://localhost:8000",
        "HTTP://example.com",
        "https://host",
        "grpcs://host",
    ):
        opened = connect(url)
        assert isinstance(opened, Backend)
        opened.close()
        opened.close()


@pytest.mark.parametrize(
    "url",
    ["", "127.0.0.1:8001", "ftp://host:8000", "grpc://", "grpc://host:port", "http://host/v2", "http://me@host", 8001, b"x"],
)
def test_other_addresses_are_refused(url: Any) -> None:
    with pytest.raises(InvalidInput, match=r"accepted are grpc://HOST\[:PORT\] and http://HOST\[:PORT\]"):
        Recommender(url)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "give either url"),
        ({"url": "grpc://host", "bundle": "bundles/NAME"}, "give either url"),
        ({"url": "grpc://host", "server": FakeBackend()}, "give either url"),
        ({"bundle": "bundles/NAME", "fallback": "bundles/NAME"}, "fallback goes with url"),
        ({"fallback": "bundles/NAME"}, "give either url"),
        ({"url": "grpc://host", "fallback": 5}, "fallback is of type int"),
        ({"bundle": 5}, "bundle is of type int"),
        ({"url": "grpc://host", "timeout_s": -1}, "timeout_s is -1"),
        ({"url": "grpc://host", "rest_s": -1}, "rest_s is -1"),
        ({"url": []}, r"url is \[\]; accepted is an address, or a list"),
        ({"url": ["grpc://host", "grpc://host"]}, "a list of one or more that differ"),
        ({"url": ["grpc://host", 5]}, "url is of type int"),
        ({"url": "grpc://host", "fallback_policy": "edge"}, "fallback_policy is 'edge' with no fallback"),
        ({"url": "grpc://host", "fallback": FakeBackend(), "fallback_policy": "none"}, "'none' with a fallback"),
        ({"url": "grpc://host", "fallback_policy": "late"}, "accepted are none, edge, edge-if-late"),
        ({"bundle": "bundles/NAME", "fallback_policy": "none"}, "fallback goes with url"),
        ({"url": "grpc://host", "late_after_s": 0}, "late_after_s is 0"),
        ({"url": "grpc://host", "hedge_after_s": True}, "hedge_after_s is True"),
        ({"url": "grpc://host", "retries": 3}, "retries is of type int"),
        ({"url": "grpc://host", "tls": Tls()}, "not encrypted, and tls is given; write grpcs:// or https://"),
        ({"url": "grpc://host", "tls": True}, "tls is of type bool"),
        ({"url": "grpc://host", "headers": "a"}, "headers is of type str"),
        ({"url": "grpc://host", "headers": {"a b": "c"}}, "headers names the header 'a b'"),
        ({"url": "grpc://host", "headers": {"a": "b\r\nc: d"}}, "headers has a value for 'a' that is not printable ASCII"),
        ({"url": "grpc://host", "token": "\n"}, "token has a value for 'authorization' that is not printable ASCII"),
    ],
)
def test_arguments_that_do_not_fit_together_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        Recommender(**arguments)


def test_a_fallback_that_is_broken_is_known_at_the_start(tiny_bundle: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(tiny_bundle, tmp_path / "bundle"))
    engine = copy / "encoder/fp32.onnx"
    content = bytearray(engine.read_bytes())
    content[len(content) // 2] ^= 1
    engine.write_bytes(content)
    with pytest.raises(InvalidBundle, match=r"fp32\.onnx was altered"):
        Recommender("grpc://127.0.0.1:8001", fallback=copy)


def test_an_unknown_engine_is_refused_with_the_known_ones(tiny_bundle: Path) -> None:
    with pytest.raises(InvalidInput, match="no encoder engine 'int4'; it has fp32, int8"):
        Recommender("grpc://127.0.0.1:8001", fallback=tiny_bundle, engine="int4")


@pytest.mark.parametrize("threads", [-1, 257, True, "2", 1.5])
def test_a_number_of_threads_that_is_none_is_refused(tiny_bundle: Path, threads: Any) -> None:
    with pytest.raises(InvalidInput, match="threads is .*; accepted is 0, for one per core, to 256"):
        Recommender(bundle=tiny_bundle, threads=threads)


def test_without_onnxruntime_the_error_holds_the_command(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bertrec.engine.onnxruntime", None)
    monkeypatch.setattr("bertrec.engine.DISTRIBUTIONS", ())  # nor does pip know of it
    with pytest.raises(MissingDependency, match=r"onnxruntime is not installed; it comes with: pip install 'bertrec\[cpu\]'"):
        Recommender("grpc://127.0.0.1:8001", fallback=tiny_bundle)


def test_an_engine_that_fails_while_running_is_an_error_of_ours(tiny_bundle: Path) -> None:
    engine = OnnxEngine(tiny_bundle / "encoder/fp32.onnx", ENCODER)
    inputs = {tensor.name: np.full((1, 4), 10**6) for tensor in ENCODER.inputs}  # tokens that the vocabulary has not
    with pytest.raises(Unavailable, match=r"fp32\.onnx failed in onnxruntime"):
        engine.run(inputs)


def test_another_engine_says_its_name(tiny_bundle: Path) -> None:
    with Recommender(bundle=tiny_bundle, engine="int8", threads=1) as recommender:
        answer = recommender.recommend("denim dress")
    assert (answer.engine, answer.items[0].item_id) == ("int8", "3")


def test_every_error_has_one_base() -> None:
    assert all(issubclass(error, BertrecError) for error in (InvalidInput, InvalidBundle, Unavailable, DeadlineExceeded))
