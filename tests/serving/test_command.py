"""python -m serving: what it prints, how it ends, and what it leaves."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from bertrec.bundle import Bundle
from bertrec.errors import BertrecError, Overloaded, ServerFailed, Unavailable
from client import Recommender
from serving.__main__ import main
from serving._flags import Ports, Tracing
from serving._pulse import Pulse
from serving._restarts import STEADY_S, Restarts
from serving.assemble import describe
from serving.triton import TritonServer
from tests.serving.processes import ROOT, members, parent_of, regions, stub_of, wait_until, working_folders

FREE_PORTS = ("--grpc-port", "0", "--http-port", "0", "--metrics-port", "0")


@contextmanager
def up(tmp_path: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """``python -m serving up`` as a shell would start it; nothing of it may be left afterwards."""
    with subprocess.Popen(
        [sys.executable, "-m", "serving", "up", *FREE_PORTS, *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    ) as process:
        try:
            yield process
        finally:
            process.kill()
    assert regions(process.pid) == set()
    assert working_folders(tmp_path) == []


def read_until(process: subprocess.Popen[str], word: str) -> str:
    """What the process printed up to the line that holds ``word``."""
    assert process.stdout is not None
    text = ""
    for line in process.stdout:
        text += line
        if word in line:
            return text
    raise AssertionError(f"ended without {word!r}: {text}")


def server_of(program: int) -> int:
    """The tritonserver that a program's supervisor started."""
    processes = [int(path.name) for path in Path("/proc").glob("[0-9]*")]
    (supervisor,) = [process for process in processes if parent_of(process) == program]
    (server,) = [process for process in processes if parent_of(process) == supervisor]
    return server


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_up_with_code_0_and_nothing_left(tiny_bundle: Path, tmp_path: Path, number: int) -> None:
    with up(tmp_path, "--bundle", str(tiny_bundle)) as process:
        printed = read_until(process, "Ctrl-C")
        assert re.search(r"python -m client recommend 'a warm coat .*' --url grpc://127\.0\.0\.1:\d+$", printed, re.MULTILINE)
        found = re.search(r"^HTTP +(http://127\.0\.0\.1:\d+)$", printed, re.MULTILINE)
        assert found
        with urllib.request.urlopen(f"{found[1]}/v2/models/recommend/config", timeout=5) as answer:
            assert json.load(answer)["name"] == "recommend"
        group = server_of(process.pid)
        process.send_signal(number)
        assert process.wait(20) == 0
        assert members(group) == []
        assert process.stderr is not None
        assert process.stderr.read() == ""


def test_a_signal_during_the_start_ends_up_too(tiny_bundle: Path, tmp_path: Path) -> None:
    with up(tmp_path, "--bundle", str(tiny_bundle)) as process:
        read_until(process, "starting")
        wait_until(lambda: bool(regions(process.pid)))
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0


def test_up_fails_when_the_server_dies_and_may_not_be_started_again(tiny_bundle: Path, tmp_path: Path) -> None:
    log = tmp_path / "triton.log"
    with up(tmp_path, "--bundle", str(tiny_bundle), "--log", str(log), "--no-restart") as process:
        read_until(process, "Ctrl-C")
        os.kill(server_of(process.pid), signal.SIGKILL)
        assert process.wait(20) == 1
        assert process.stderr is not None
        assert process.stderr.read() == f"error: Triton ended by itself; see {log}.died\n"
    assert "Started GRPCInferenceService" in Path(f"{log}.died").read_text()


def test_a_server_that_died_is_started_again_at_the_same_address(tiny_bundle: Path, tmp_path: Path) -> None:
    log = tmp_path / "triton.log"
    with up(tmp_path, "--bundle", str(tiny_bundle), "--log", str(log)) as process:
        printed = read_until(process, "Ctrl-C")
        (url,) = re.findall(r"^gRPC +(\S+)$", printed, re.MULTILINE)
        os.killpg(server_of(process.pid), signal.SIGABRT)
        assert process.stderr is not None
        said = process.stderr.readline()
        assert said == f"Triton ended by itself; it is started again in 0.5 s (1 of 5); see {log}.died\n"
        wait_until(lambda: main(["probe", "--url", url, "--bundle", str(tiny_bundle)]) == 0, timeout_s=30)
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    assert "Started GRPCInferenceService" in log.read_text()


def test_a_server_that_lives_and_no_longer_answers_is_started_again(tiny_bundle: Path, tmp_path: Path) -> None:
    with up(tmp_path, "--bundle", str(tiny_bundle), "--answer-within", "3") as process:
        printed = read_until(process, "Ctrl-C")
        (url,) = re.findall(r"^gRPC +(\S+)$", printed, re.MULTILINE)
        server = server_of(process.pid)
        os.kill(stub_of(server, "recommend"), signal.SIGSTOP)
        assert process.stderr is not None
        assert process.stderr.readline() == "Triton answered nothing for 3 s; it is started again in 0.5 s (1 of 5)\n"
        wait_until(lambda: members(server) == [])
        wait_until(lambda: main(["probe", "--url", url, "--bundle", str(tiny_bundle)]) == 0, timeout_s=30)
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0


def test_a_restart_that_fails_before_the_launch_neither_ends_up_nor_loses_a_log(
    tiny_bundle: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The first server dies, then two starts fail without a log of their own, the next server dies, and so does the last."""
    log, starts, cause = tmp_path / "triton.log", iter(range(5)), "grpc port 8001 on 127.0.0.1 cannot be used"

    class Dying:
        ports, is_alive = Ports(1, 2, 3), staticmethod(lambda: False)

        def __enter__(self) -> Any:
            number = next(starts)
            if number in (1, 2):
                raise ServerFailed(cause) if number == 1 else OSError(28, "No space left on device")
            log.write_text(f"server {number}")
            return self

        def __exit__(self, *_: object) -> None:
            """Nothing."""

    for name, fake in (
        ("_server", lambda *_: Dying()),
        ("_known", lambda *_: contextlib.nullcontext()),
        *(("_tell", lambda _: None), ("_watch", lambda *_: None)),
    ):
        monkeypatch.setattr(f"serving.__main__.{name}", fake)
    monkeypatch.setattr("serving.__main__.signal.signal", lambda *_: None)
    monkeypatch.setattr("serving.__main__.MOST_RESTARTS", 4)
    monkeypatch.setattr("serving._restarts.FIRST_PAUSE_S", 0.001)
    assert main(["up", "--bundle", str(tiny_bundle), "--log", str(log), *FREE_PORTS]) == 1
    said = [record.getMessage() for record in caplog.records if record.name == "serving.__main__"]
    assert [one.rpartition("again in")[0] + one.rpartition(")")[2] for one in said] == [
        f"Triton ended by itself; it is started ; see {log}.died",
        f"{cause}; it is started ",
        "[Errno 28] No space left on device; it is started ",
        f"Triton ended by itself; it is started ; see {log}.died",
    ]
    assert capsys.readouterr().err.endswith(f"error: Triton ended by itself; see {log}.died\n")
    kept = {path.name: path.read_text() for path in tmp_path.glob("triton.log*")}
    assert kept == {"triton.log.died": "server 4", "triton.log.died.1": "server 3", "triton.log.died.2": "server 0"}


@pytest.mark.parametrize(("error", "alive"), [(Overloaded, True), (Unavailable, False)])
def test_a_refusal_is_a_sign_of_life(
    triton: TritonServer, monkeypatch: pytest.MonkeyPatch, error: type[BertrecError], alive: bool
) -> None:
    class Refusing:
        def answer(self, *_: object, **__: object) -> None:
            raise error("no")

        def close(self) -> None:
            """Nothing."""

    monkeypatch.setattr("serving._pulse.connect", lambda _: Refusing())
    with Pulse(triton.grpc_url, every_s=0.1) as pulse:
        time.sleep(1.0)
        assert (pulse.silent_s < 0.9) == alive


def test_the_servers_spans_hang_on_the_clients_trace(triton_repository: Path) -> None:
    trace, parent = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
    spans: list[dict[str, Any]] = []
    services: list[str] = []

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self) -> None:  # noqa: N802  # http.server's name
            assert self.path == "/v1/traces"
            for one in json.loads(self.rfile.read(int(self.headers["Content-Length"])))["resourceSpans"]:
                services.append(json.dumps(one["resource"]))
                spans.extend(span for scope in one["scopeSpans"] for span in scope["spans"])
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Collector) as collector:
        thread = threading.Thread(target=collector.serve_forever)
        thread.start()
        tracing = Tracing(f"http://127.0.0.1:{collector.server_port}/v1/traces", rate=1)
        try:
            with TritonServer(triton_repository, tracing=tracing) as server, Recommender(server.grpc_url) as recommender:
                recommender.recommend("green gown", traceparent=f"00-{trace}-{parent}-01")
                wait_until(lambda: bool(spans), timeout_s=20)  # the server sends them every few seconds
        finally:
            collector.shutdown()
            thread.join()
    assert {span["traceId"] for span in spans} == {trace}
    assert parent in {span["parentSpanId"] for span in spans}
    assert {"recommend", "encoder", "ranker"} <= {span["name"] for span in spans}
    assert all('"bertrec"' in one for one in services)


def test_traces_go_to_a_file_in_tritons_own_format(triton_repository: Path, tmp_path: Path) -> None:
    file = tmp_path / "traces.json"
    with (
        TritonServer(triton_repository, tracing=Tracing(str(file), rate=1)) as server,
        Recommender(server.grpc_url) as recommender,
    ):
        recommender.recommend("green gown")
    timed = [one for one in json.loads(file.read_text()) if "timestamps" in one]
    named = {one["model_name"] for one in json.loads(file.read_text()) if "model_name" in one}
    assert {"recommend", "encoder", "ranker"} <= named
    assert "COMPUTE_START" in {stamp["name"] for one in timed for stamp in one["timestamps"]}


def test_restarts_are_few_later_and_later_and_counted_anew_after_a_steady_time() -> None:
    restarts = Restarts(3)
    assert [restarts.pause_s(1.0) for _ in range(4)] == [0.5, 1.0, 2.0, None]
    assert restarts.pause_s(STEADY_S) == 0.5
    assert restarts.count == "1 of 3"
    assert Restarts(0).pause_s(STEADY_S) is None


def test_assemble_tells_how_to_serve_and_that_it_reuses(
    tiny_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    arguments = [
        "assemble",
        "--bundle",
        str(tiny_bundle),
        "--target",
        "gpu-ort",
        "--output",
        str(tmp_path / "out"),
        "--version",
        "3",
    ]
    assert main(arguments) == 0
    assert main(arguments) == 0
    assert "used as it is" in caplog.text
    printed = capsys.readouterr().out
    assert "tritonserver --model-repository=models --model-config-name=gpu-ort" in printed
    repository = describe(tmp_path / "out")
    assert (repository.bundle, repository.target, repository.version) == (
        Bundle.open(tiny_bundle).manifest.fingerprint,
        "gpu-ort",
        3,
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["assemble", "--bundle", "{tmp}/none", "--target", "cpu", "--output", "{tmp}/out"], "error: {tmp}/none is not a folder"),
        (["assemble", "--bundle", "{bundle}", "--target", "cpu", "--output", "{bundle}"], "error: {bundle} holds something else"),
        (["assemble", "--bundle", "{bundle}", "--target", "cpu", "--output", "/dev/null/x"], "error: "),
        (["up", "--bundle", "{bundle}", "--engine", "fp8"], "error: {bundle} has no encoder engine 'fp8'; it has fp32, int8"),
        (["up", "--bundle", "{bundle}", "--answer-within", "-1"], "error: --answer-within is -1.0; accepted is a number from 0"),
        (["up", "--bundle", "{bundle}", "--trace", ""], "error: the traces' target is empty; accepted are the URL"),
        (
            ["up", "--bundle", "{bundle}", "--trace", "x", "--trace-rate", "0"],
            "error: the traces' rate is 0; accepted is a number",
        ),
        (["up", "--bundle", "{bundle}", "--http-port", "-1"], "error: http port -1 on 127.0.0.1 cannot be used"),
    ],
    ids=["no bundle", "foreign output", "no folder", "engine", "seconds", "trace", "rate", "port"],
)
def test_what_cannot_be_done_is_said_in_one_line(
    tiny_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    places = {"tmp": str(tmp_path), "bundle": str(tiny_bundle)}
    assert main([argument.format(**places) for argument in arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith(message.format(**places))
    assert error.count("\n") == 1


@pytest.mark.parametrize("arguments", [[], ["assemble", "--bundle", "b", "--target", "tpu", "--output", "o"], ["down"]])
def test_wrong_usage_ends_with_code_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert "usage: python -m serving" in capsys.readouterr().err
