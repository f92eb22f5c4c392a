"""Many at once: joined, bounded, refused in time; and the command that serves."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import onnxruntime
import pytest

from bertrec.errors import InvalidInput
from bertrec.session_options import SessionOptions
from client import Recommender, ServedBy
from client.server.__main__ import main
from client.server.limits import Limits
from client.server.model import EdgeModel
from client.server.running import LOOPBACK, listen
from tests.client.server.running import TIMEOUT_S, HeldModel, Running, running
from tests.tiny import ITEMS, item_text

CHECKOUT = Path(__file__).parents[3]


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while not condition():
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.005)


def test_requests_that_wait_together_are_answered_together(tiny_bundle: Path) -> None:
    model = HeldModel(tiny_bundle)
    with running(model) as server, ThreadPoolExecutor(12) as pool:
        first = pool.submit(server.recommend, {"text": item_text(0), "k": 1})
        assert model.entered.acquire(timeout=TIMEOUT_S)
        rest = [pool.submit(server.recommend, {"text": item_text(item), "k": 1}) for item in range(1, 9)]
        bad = pool.submit(server.recommend, {"text": " "})
        until(lambda: server.metric("bertrec_edge_waiting_texts") == 9)
        model.go_on.set()
        answers = [future.result().json for future in (first, *rest)]
        refused = bad.result()
    assert [answer["items"][0]["item_id"] for answer in answers] == [str(item) for item in range(9)]
    assert (refused.status, "text 0 is empty" in refused.json["error"]) == (400, True)
    assert model.runs == [1, 9]


def test_an_engine_that_is_swayed_by_neighbours_gets_one_request_at_a_time(tiny_bundle: Path) -> None:
    model = HeldModel(tiny_bundle)
    model.joins = False
    model.go_on.set()
    with running(model) as server, ThreadPoolExecutor(6) as pool:
        assert [one.status for one in pool.map(server.recommend, [{"text": "red"}] * 12)] == [200] * 12
    assert model.runs == [1] * 12


def test_a_full_queue_refuses_at_once_and_says_when_to_come_back(tiny_bundle: Path) -> None:
    model = HeldModel(tiny_bundle)
    with running(model, Limits(queue=64)) as server, ThreadPoolExecutor(3) as pool:
        first = pool.submit(server.recommend, {"text": "red"})
        assert model.entered.acquire(timeout=TIMEOUT_S)
        full = pool.submit(server.recommend, {"text": ["green"] * 64})
        until(lambda: server.metric("bertrec_edge_waiting_texts") == 64)
        started = time.monotonic()
        refused = server.recommend({"text": "blue"})
        assert time.monotonic() - started < 1
        with Recommender(server.url, fallback=tiny_bundle, timeout_s=2) as recommender:
            fallen_back = recommender.recommend("green gown", k=1)
        assert server.get("/v2/health/ready").status == 200
        model.go_on.set()
        assert (first.result().status, full.result().status) == (200, 200)
        assert server.recommend({"text": "blue"}).status == 200
        assert server.metric("bertrec_edge_refused_total") >= 2
    assert refused.status == 429
    assert int(refused.headers["retry-after"]) >= 1
    assert "64 texts wait, and at most 64 may" in refused.json["error"]
    assert (fallen_back.items[0].item_id, fallen_back.served_by) == ("6", ServedBy.EDGE)


def test_what_is_late_gets_503_and_is_not_computed(tiny_bundle: Path) -> None:
    model = HeldModel(tiny_bundle)
    with running(model, Limits(timeout_s=0.3)) as server, ThreadPoolExecutor(4) as pool:
        late = [pool.submit(server.recommend, {"text": "red"}) for _ in range(4)]
        answers = [future.result() for future in late]
        assert [answer.status for answer in answers] == [503] * 4
        assert all(int(answer.headers["retry-after"]) >= 1 for answer in answers)
        assert server.metric("bertrec_edge_waiting_texts") == 0
        model.go_on.set()
        assert server.recommend({"text": "green gown", "k": 1}).json["items"][0]["item_id"] == "6"
        assert server.metric("bertrec_edge_late_total") == 4
    assert sum(model.runs) <= 4 + 1
    assert len(model.runs) <= 3


def test_a_run_that_fails_ends_its_requests_and_not_the_server(tiny_bundle: Path) -> None:
    class Failing(EdgeModel):
        fails = True

        def answer(self, requests: Any) -> Any:
            if self.fails:
                raise MemoryError("no room")
            return super().answer(requests)

    model = Failing(tiny_bundle, session=SessionOptions(1))
    with running(model) as server:
        failed = server.recommend({"text": "red"})
        assert (failed.status, "MemoryError" in failed.json["error"]) == (500, True)
        model.fails = False
        assert server.recommend({"text": "red"}).status == 200


def test_an_answer_does_not_wait_for_an_acknowledgement(served: Running) -> None:
    """Head and body are written apart; with Nagle's algorithm the body waits 40 ms, once a connection is no longer new."""
    with Recommender(served.url, timeout_s=20) as recommender:
        latencies_ms = [recommender.recommend("green gown", k=1).latency_ms for _ in range(60)]
    assert min(latencies_ms[-20:]) < 30


def test_a_body_beyond_the_bound_is_refused_before_it_is_read(model: EdgeModel) -> None:
    with running(model, Limits(body_bytes=2048)) as server:
        assert server.recommend({"text": "a" * 1500}).status == 200
        assert server.recommend({"text": "a" * 3000}).status == 413
        head = b"POST /recommend HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        assert b" 413 " in exchange(server, head + b"Content-Length: 1000000\r\n\r\n")
        chunks = (b"400\r\n" + b"a" * 1024 + b"\r\n") * 3
        assert b" 413 " in exchange(server, head + b"Transfer-Encoding: chunked\r\n\r\n" + chunks)


def test_a_body_that_does_not_come_is_not_waited_for(model: EdgeModel) -> None:
    with running(model, Limits(body_timeout_s=0.3)) as server:
        head = b"POST /recommend HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{"
        assert b" 408 " in exchange(server, head)
        assert server.recommend({"text": "red"}).status == 200


def exchange(server: Running, sent: bytes) -> bytes:
    """The start of what comes back, while the request is not ended."""
    with socket.create_connection((LOOPBACK, server.port), timeout=TIMEOUT_S) as connection:
        connection.sendall(sent)
        return connection.recv(4096)


@pytest.mark.parametrize(
    ("name", "value"), [("queue", 63), ("queue", True), ("timeout_s", 0), ("timeout_s", float("nan")), ("body_bytes", 10)]
)
def test_limits_that_make_no_sense_are_refused(name: str, value: Any) -> None:
    with pytest.raises(InvalidInput, match=f"{name} is "):
        Limits(**{name: value})


def test_the_command_serves_on_loopback_until_it_is_told_to_stop(tiny_bundle: Path) -> None:
    command = [sys.executable, "-m", "client.server", "--bundle", str(tiny_bundle), "--port", "0", "--threads", "1"]
    with subprocess.Popen(command, cwd=CHECKOUT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            said = process.stdout.readline()
            assert said.startswith("serving http://127.0.0.1:")
            assert "encoder by CPUExecutionProvider, ranker by CPUExecutionProvider" in said
            with Recommender(said.split()[1], timeout_s=20) as recommender:
                answers = recommender.recommend([item_text(item) for item in range(ITEMS)], k=1)
            assert [answer.items[0].item_id for answer in answers] == [str(item) for item in range(ITEMS)]
            os.kill(process.pid, signal.SIGTERM)
            _, errors = process.communicate(timeout=TIMEOUT_S)
        finally:
            process.kill()
    assert (process.returncode, errors) == (0, "")


@pytest.mark.skipif(onnxruntime.get_device() != "CPU", reason="this onnxruntime has a GPU's providers, and may get one")
def test_a_gpu_that_is_not_there_is_told_and_the_cpu_answers(
    tiny_bundle: Path, caplog: pytest.LogCaptureFixture, in_process: Recommender
) -> None:
    model = EdgeModel(tiny_bundle, session=SessionOptions(1, "gpu"))
    assert model.providers == {"encoder": "CPUExecutionProvider", "ranker": "CPUExecutionProvider"}
    warnings = [record.getMessage() for record in caplog.records]
    assert len(warnings) == 2 and all("runs on CPUExecutionProvider; the GPU was asked for" in one for one in warnings)
    with running(model) as server:
        found = server.recommend({"text": "green gown"}).json["items"]
    assert [item["item_id"] for item in found] == [item.item_id for item in in_process.recommend("green gown").items]
    with pytest.raises(InvalidInput, match="device is 'tpu'; accepted are cpu, gpu"):
        EdgeModel(tiny_bundle, session=SessionOptions(device="tpu"))


def test_a_port_that_is_taken_is_said_in_one_line(tiny_bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with listen(LOOPBACK, 0) as taken:
        port = taken.getsockname()[1]
        assert main(["--bundle", str(tiny_bundle), "--port", str(port)]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: port {port} on 127.0.0.1 cannot be used")
    assert error.count("\n") == 1


def test_without_the_extra_the_command_says_what_to_install(tiny_bundle: Path) -> None:
    check = "import sys; sys.modules['starlette'] = None; from client.server.__main__ import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", check, "--bundle", str(tiny_bundle)]
    done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, "pip install 'bertrec[serve]'" in done.stderr) == (2, True)


def test_answers_are_json_whatever_the_text(model: EdgeModel, tiny_bundle: Path) -> None:
    with running(model) as server:
        text = 'quote " slash \\ 😀 \u2028 </script> green gown'
        response = server.recommend({"text": text})
        assert json.loads(response.body)["text"] == text
