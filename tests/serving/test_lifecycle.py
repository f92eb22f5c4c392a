"""Starting and stopping a real tritonserver: it is ready when it says so, leaves nothing behind, and says why it failed."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import sys
import textwrap
import urllib.request
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import pytest

from bertrec.answers import Options, Recommendation
from bertrec.bundle import Bundle
from bertrec.errors import InvalidInput, MissingDependency, ServerFailed
from bertrec.tensors import ANSWER, ENCODER, MODELS, OPTIONS, RECOMMEND, TEXT
from serving import _installation, _supervise
from serving import triton as triton_module
from serving.assemble import MODELS_FOLDER, Target, assemble
from serving.triton import TritonServer
from tests.serving.asking import ask, edge, infer, strings, texts_per_execution
from tests.serving.processes import ROOT, members, parent_of, regions, wait_until, working_folders


@pytest.fixture(autouse=True)
def temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Servers put their temporary folders here, so that what they leave is seen."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path


def test_server_is_ready_with_all_its_endpoints_once_started(triton: TritonServer) -> None:
    with urllib.request.urlopen(f"{triton.http_url}/v2/health/ready", timeout=5) as answer:
        assert answer.status == 200
    with urllib.request.urlopen(triton.metrics_url, timeout=5) as answer:
        assert b"nv_inference_request_success" in answer.read()
    for model in ("recommend", "encoder", "ranker"):
        with urllib.request.urlopen(f"{triton.http_url}/v2/models/{model}/ready", timeout=5) as answer:
            assert answer.status == 200
    assert triton.is_alive()
    assert Path(f"/proc/{triton.pid}/comm").read_text() == "tritonserver\n"


def test_it_listens_on_loopback_alone(triton: TritonServer) -> None:
    rows = [row.split() for kind in ("tcp", "tcp6") for row in Path(f"/proc/{triton.pid}/net", kind).read_text().splitlines()[1:]]
    listening = {port: address for address, _, port in (row[1].partition(":") for row in rows if row[3] == "0A")}  # in hex
    for url in (triton.grpc_url, triton.http_url, triton.metrics_url):
        port = int(url.split(":")[2].split("/")[0])
        assert listening[f"{port:04X}"] in ("0100007F", "0000000000000000FFFF00000100007F")


def test_ctrl_c_before_the_server_has_a_process_id_stays_ctrl_c(triton_repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(triton_module, "int", MagicMock(side_effect=KeyboardInterrupt), raising=False)  # which reads the id
    server, before = TritonServer(triton_repository), regions()
    with pytest.raises(KeyboardInterrupt):
        server.start()
    assert not server.is_alive()
    assert regions() == before


def test_kill_and_stop_leave_nothing_and_the_ports_are_free_again(triton_repository: Path, tmp_path: Path) -> None:
    before = regions()
    server = TritonServer(triton_repository).start()
    group, ports = server.pid, [int(url.rpartition(":")[2]) for url in (server.grpc_url, server.http_url)]
    assert len(members(group)) == 5  # tritonserver and four stubs, of encoder, ranker, recommend and embed
    assert len(regions() - before) == 4
    server.kill()
    assert not server.is_alive()
    assert members(group) == []
    assert regions() == before
    assert working_folders(tmp_path) == []

    with TritonServer(triton_repository, grpc_port=ports[0], http_port=ports[1]) as again:
        assert again.grpc_url == f"grpc://127.0.0.1:{ports[0]}"
        assert texts_per_execution(again, ENCODER.name)[0] == (3, 3)  # the encoder's warm-up
        assert ask(again, "grpc", ["green gown"], Options(k=1))[0].items[0].item_id == "6"
        group = again.pid
    assert members(group) == []
    assert regions() == before
    assert working_folders(tmp_path) == []
    again.stop()  # once more does nothing


def test_two_versions_side_by_side_never_mix(tiny_bundle: Path, triton_repository: Path, tmp_path: Path) -> None:
    """A rolling update: the new version's folders are put beside the old one's."""
    both = shutil.copytree(triton_repository, tmp_path / "both")
    newer = assemble(tiny_bundle, tmp_path / "newer", target=Target.CPU, engine="int8", version=2)
    for model in MODELS:
        shutil.copytree(newer / MODELS_FOLDER / model.name / "2", both / MODELS_FOLDER / model.name / "2")
    bundle, text = Bundle.open(tiny_bundle), "a green gown for my sister"
    with TritonServer(both) as server:
        for version, engine in (("1", "fp32"), ("2", "int8")):
            asked = {TEXT.name: strings([text]), OPTIONS.name: strings([""])}
            answer = infer(server, "grpc", RECOMMEND.name, asked, version=version).as_numpy(ANSWER.name)
            here = Recommendation.from_json(answer[0, 0].decode())
            (there,) = edge(bundle, engine).recommend([text], [Options()])
            assert (here.engine, here.bundle) == (engine, bundle.fingerprint)
            assert [item.score for item in here.items] == pytest.approx([item.score for item in there.items], abs=1e-6)


def test_it_dies_with_the_program_that_started_it(triton_repository: Path, tmp_path: Path) -> None:
    program = textwrap.dedent("""
        import sys, time
        from pathlib import Path
        from serving.triton import TritonServer
        server = TritonServer(Path(sys.argv[1])).start()
        print(server.pid, flush=True)
        time.sleep(600)
    """)
    command = [sys.executable, "-c", program, str(triton_repository)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, env={**os.environ, "TMPDIR": str(tmp_path)}) as parent:
        assert parent.stdout is not None
        group = int(parent.stdout.readline())
        assert len(members(group)) == 5
        assert len(regions(parent.pid)) == 4
        parent.kill()
    wait_until(lambda: not members(group))
    wait_until(lambda: not regions(parent.pid))
    wait_until(lambda: not working_folders(tmp_path))


def test_it_dies_with_its_supervisor_and_stop_cleans_up(triton_repository: Path) -> None:
    before = regions()
    server = TritonServer(triton_repository).start()
    supervisor = parent_of(server.pid)
    os.kill(supervisor, signal.SIGKILL)
    wait_until(lambda: not members(server.pid))
    assert not server.is_alive()
    server.stop()
    assert regions() == before


def test_regions_of_a_dead_program_are_removed_and_those_of_a_living_one_kept(triton_repository: Path) -> None:
    with subprocess.Popen(["true"]) as dead:
        pass
    abandoned = _supervise.REGIONS / f"{_supervise.PREFIX_STEM}-{dead.pid}-00000000-x"
    alive = _supervise.REGIONS / f"{_supervise.PREFIX_STEM}-{os.getpid()}-00000000-x"
    try:
        abandoned.touch()
        alive.touch()
        _supervise.remove_abandoned_regions()
        assert not abandoned.exists()
        assert alive.exists()
    finally:
        alive.unlink()


@pytest.mark.parametrize("name", ["grpc", "http", "metrics"])
def test_a_port_that_is_taken_is_named(triton_repository: Path, name: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ServerFailed, match=rf"^{name} port {port} on 127\.0\.0\.1 cannot be used .*already in use"):
            TritonServer(triton_repository, **{f"{name}_port": port}).start()


def test_an_impossible_port_is_named(triton_repository: Path) -> None:
    with pytest.raises(ServerFailed, match="http port 99999 on"):
        TritonServer(triton_repository, http_port=99_999).start()


def test_a_port_lost_between_choice_and_start_is_chosen_anew(triton_repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    choose: Any = sys.modules["serving.triton"]._choose_ports
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        calls = []

        def unlucky(address: str, wanted: Any) -> Any:
            calls.append(wanted)
            ports = choose(address, wanted)
            return type(ports)(grpc=taken.getsockname()[1], http=ports.http, metrics=ports.metrics) if len(calls) == 1 else ports

        monkeypatch.setattr("serving.triton._choose_ports", unlucky)
        with TritonServer(triton_repository) as server:
            assert server.is_alive()
    assert len(calls) == 2


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("encoder/1/model.onnx", b"not an onnx file", "model encoder does not load: .*model.onnx does not load in onnxruntime"),
        ("recommend/1/bundle/tokenizer.json", b"{}", "model recommend does not load: .*tokenizer.json has 2 bytes instead of"),
        ("ranker/configs/cpu.pbtxt", b"name: 'ranker' no", "model ranker cannot be read: failed to read text proto"),
    ],
    ids=["engine", "bundle", "config"],
)
def test_a_model_that_does_not_load_is_named_in_one_line(
    triton_repository: Path, tmp_path: Path, file: str, content: bytes, message: str
) -> None:
    broken = shutil.copytree(triton_repository, tmp_path / "broken")
    (broken / "models" / file).write_bytes(content)
    before = regions()
    with pytest.raises(ServerFailed, match=message) as caught:
        TritonServer(broken, log_path=tmp_path / "triton.log").start()
    assert str(caught.value).startswith("Triton did not start: ")
    assert "\n" not in str(caught.value)
    assert str(tmp_path / "triton.log") in str(caught.value)
    assert regions() == before
    assert working_folders(tmp_path) == []


def test_a_model_that_is_not_there_is_named(triton_repository: Path, tmp_path: Path) -> None:
    broken = shutil.copytree(triton_repository, tmp_path / "broken")
    shutil.rmtree(broken / "models/ranker")
    with pytest.raises(ServerFailed, match="Triton serves no model ranker"):
        TritonServer(broken).start()


def test_a_server_that_is_not_ready_in_time_is_stopped(triton_repository: Path) -> None:
    before = regions()
    server = TritonServer(triton_repository, ready_timeout_s=0.1)
    with pytest.raises(ServerFailed, match=r"was not ready after 0\.1 s"):
        server.start()
    assert not server.is_alive()
    assert regions() == before


def test_what_is_no_repository_for_this_machine_is_refused(tiny_bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="is not an assembled repository; one is written by: python -m serving assemble"):
        TritonServer(tmp_path).start()
    for_gpu = assemble(tiny_bundle, tmp_path / "gpu", target=Target.GPU_ORT)
    with pytest.raises(ServerFailed, match="is for the target gpu-ort, which needs NVIDIA's container"):
        TritonServer(for_gpu).start()


def test_a_server_is_started_once(triton: TritonServer) -> None:
    with pytest.raises(ServerFailed, match=f"started already, as process {triton.pid}"):
        triton.start()


def test_a_server_that_was_not_started_has_no_address(triton_repository: Path) -> None:
    with pytest.raises(ServerFailed, match="was not started"):
        _ = TritonServer(triton_repository).grpc_url
    with pytest.raises(ServerFailed, match="was not started"):
        _ = TritonServer(triton_repository).pid


def test_numpy_2_is_refused_before_the_start(triton_repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.metadata, "version", lambda _: "2.1.0")
    with pytest.raises(ServerFailed, match=r"numpy 2\.1\.0 crashes .* pip install 'numpy<2'"):
        TritonServer(triton_repository).start()


def test_a_library_that_the_stub_lacks_is_named_at_once(
    triton_repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = tmp_path / f"libpython{_installation.PYTHON}.so.1.0"
    broken.write_bytes(b"no library")
    monkeypatch.setattr(_installation, "_python_library", lambda: broken)
    with pytest.raises(
        ServerFailed, match=rf"python backend does not load: .*{broken.name}: file too short; if that is Python's"
    ):
        TritonServer(triton_repository).start()


def test_another_python_is_refused_in_one_line(triton_repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_installation, "PYTHONS", ((3, 99),))
    with pytest.raises(ServerFailed, match=r"runs on Python 3\.11 or 3\.12 on Linux x86_64; this is Python 3\.1"):
        TritonServer(triton_repository).start()


@pytest.mark.parametrize(("module", "package"), [("pytriton", "nvidia-pytriton"), ("onnxruntime", "onnxruntime")])
def test_a_missing_package_is_named_with_its_pip_command(
    triton_repository: Path, monkeypatch: pytest.MonkeyPatch, module: str, package: str
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == module else find(name))
    with pytest.raises(MissingDependency, match=rf"{package} is not installed; it comes with: pip install 'bertrec\[serving\]'"):
        TritonServer(triton_repository).start()
