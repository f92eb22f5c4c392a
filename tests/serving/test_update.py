"""A bundle that changes under load, models whose processes die, and the probe, all with real servers."""

from __future__ import annotations

import os
import shutil
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from bertrec.answers import Options
from bertrec.bundle import Bundle
from bertrec.errors import BertrecError, InvalidInput, ServerFailed
from bertrec.tensors import MODELS
from client import Recommender
from serving import _supervise
from serving.__main__ import main
from serving._watch import Watch
from serving.assemble import Target, assemble, describe
from serving.control import CONTROL_FILE, ModelControl
from serving.triton import TritonServer
from serving.update import roll_back, update
from tests.serving.asking import ask
from tests.serving.processes import ROOT, members, regions, stub_of, wait_until, working_folders
from tests.serving.test_command import FREE_PORTS, read_until, server_of, up
from tests.serving.test_load import metric
from tests.serving.two_bundles import HALVES, WISH, Load, with_maps, with_new_items


@pytest.fixture(scope="module")
def tiny_bundle(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny bundle, with maps, so that items can be added to it."""
    return with_maps(tiny_bundle, tmp_path_factory.mktemp("first") / "bundle")


@pytest.fixture(scope="module")
def triton_repository(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return assemble(tiny_bundle, tmp_path_factory.mktemp("repository") / "first", target=Target.CPU)


@pytest.fixture(scope="module")
def other(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first bundle with twice the items."""
    return with_new_items(tiny_bundle, tmp_path_factory.mktemp("other"))


@pytest.fixture
def repository(triton_repository: Path, tmp_path: Path) -> Path:
    return shutil.copytree(triton_repository, tmp_path / "served")


@pytest.fixture
def server(repository: Path) -> Iterator[TritonServer]:
    with TritonServer(repository) as server:
        yield server


def control_of(server: TritonServer) -> ModelControl:
    return ModelControl(server.http_url, server.control.key)


def test_a_bundle_is_replaced_and_taken_back_under_load_without_an_error_or_a_mixture(
    server: TritonServer, repository: Path, tiny_bundle: Path, other: Path
) -> None:
    old, new = (Bundle.open(folder).fingerprint for folder in (tiny_bundle, other))
    control = control_of(server)
    with Load(server, old=old, new=new) as load:
        assert set(load.seen) == {(old, "fp32")}
        assert update(repository, other, control, engine="int8") == 2
        load.wait()
        assert load.seen[-1] == (new, "int8")
        assert all(control.ready(model.name) == {1, 2} for model in MODELS)
        assert roll_back(repository, control) == 1
        load.wait()
        assert load.seen[-1] == (old, "fp32")
        assert describe(repository).bundle == Bundle.open(tiny_bundle).manifest.fingerprint
        assert update(repository, other, control, engine="int8", keep=1) == 3  # 2 was used, and is not used again
        load.wait()
    assert set(load.seen) == {(old, "fp32"), (new, "int8")}
    assert load.seen[-1] == (new, "int8")
    assert all(control.ready(model.name) == {3} for model in MODELS)
    assert [path.name for path in (repository / "models/recommend").glob("[0-9]*")] == ["3"]
    with pytest.raises(InvalidInput, match="holds version 3 alone"):
        roll_back(repository, control)


def test_the_cache_of_the_old_bundle_does_not_answer_for_the_new_one(repository: Path, other: Path) -> None:
    with TritonServer(repository, cache_mb=8) as server:
        for _ in range(2):
            assert ask(server, "grpc", [WISH], Options(k=1))[0].items[0].item_id in HALVES
        update(repository, other, control_of(server))
        assert ask(server, "grpc", [WISH], Options(k=1))[0].items[0].item_id == "new-3"
        roll_back(repository, control_of(server))
        assert ask(server, "grpc", [WISH], Options(k=1))[0].items[0].item_id in HALVES


def test_a_bundle_that_does_not_load_leaves_the_old_one_in_service(
    server: TritonServer, repository: Path, other: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    control = control_of(server)
    move = os.rename

    def spoil(source: Path, target: Path) -> None:
        move(source, target)
        if Path(target).parts[-2:] == ("encoder", "2"):
            Path(target, "model.onnx").write_bytes(b"cut off")

    monkeypatch.setattr("serving.update.os.rename", spoil)
    with pytest.raises(ServerFailed, match="load failed for model 'encoder'"):
        update(repository, other, control)
    monkeypatch.undo()
    assert all(control.ready(model.name) == {1} for model in MODELS)
    assert not list((repository / "models").glob("*/2"))
    assert ask(server, "grpc", ["denim dress"], Options(k=1))[0].items[0].item_id == "3"
    assert ask(server, "grpc", [WISH], Options(k=1))[0].items[0].item_id in HALVES
    assert update(repository, other, control) == 3


def test_an_update_logs_the_bundle_that_it_serves(
    server: TritonServer, repository: Path, other: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "serving.update")
    update(repository, other, control_of(server))
    assert f"version 2 is served: bundle {Bundle.open(other).manifest.fingerprint}" in caplog.text


def test_what_was_updated_is_never_replaced(
    server: TritonServer,
    repository: Path,
    tiny_bundle: Path,
    other: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """``up --bundle B --repository R`` again, as a service manager restarts it, after ``update`` to another bundle."""
    update(repository, other, control_of(server))
    told, served = describe(repository), list[Path]()

    def serve(_: object, folder: Path, *__: object) -> int:
        served.append(folder)
        return 0

    monkeypatch.setattr("serving.__main__.signal.signal", lambda *_: None)
    monkeypatch.setattr("serving.__main__._serve", serve)
    for bundle in (tiny_bundle, other):
        caplog.clear()
        assert main(["up", "--bundle", str(bundle), "--repository", str(repository)]) == 0
        assert f"it is served as it is, version 2 of bundle {told.bundle}, and --bundle" in caplog.text
    assert served == [repository, repository]
    with pytest.raises(InvalidInput, match=rf"was updated since .* version 2, bundle {told.bundle}; choose another --output"):
        assemble(tiny_bundle, repository, target=Target.CPU)
    assert describe(repository) == told
    assert sorted(path.name for path in (repository / "models/recommend").glob("[0-9]*")) == ["1", "2"]


def test_models_are_changed_only_by_who_knows_the_key(server: TritonServer, repository: Path, other: Path) -> None:
    with pytest.raises(ServerFailed, match="HTTP 403: .*restricted"):
        update(repository, other, ModelControl(server.http_url, "guessed"))
    assert control_of(server).ready("recommend") == {1}


@pytest.mark.parametrize("model", ["encoder", "recommend"])
def test_a_model_whose_process_died_is_brought_back(server: TritonServer, model: str) -> None:
    watch = Watch(server.pid, control_of(server))
    assert [watch.look(), watch.look()] == [[], []]
    os.kill(stub_of(server.pid, model), signal.SIGKILL)
    wait_until(lambda: watch.look() == [model])
    assert ask(server, "grpc", ["denim dress"], Options(k=1))[0].items[0].item_id == "3"
    assert [watch.look(), watch.look()] == [[], []]


def test_a_model_that_died_and_does_not_load_at_once_is_tried_until_it_does(
    server: TritonServer, repository: Path, caplog: pytest.LogCaptureFixture
) -> None:
    watch, engine = Watch(server.pid, control_of(server)), repository / "models/encoder/1/model.onnx"
    whole = engine.read_bytes()
    os.kill(stub_of(server.pid, "encoder"), signal.SIGKILL)
    engine.write_bytes(b"cut off")
    wait_until(lambda: watch.look() != [] or "does not load" in caplog.text)
    assert control_of(server).ready("encoder") == set()
    assert [watch.look(), watch.look()] == [[], []]
    assert caplog.text.count("model encoder does not load, which is tried again: ") == 1
    engine.write_bytes(whole)
    assert watch.look() == ["encoder"]
    assert "model encoder is loaded again" in caplog.text
    assert ask(server, "grpc", ["denim dress"], Options(k=1))[0].items[0].item_id == "3"
    assert [watch.look(), watch.look()] == [[], []]


def test_a_model_that_an_update_took_away_is_not_tried_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    states, asked = {("embed", 1): "READY", ("match", 1): "READY"}, []

    def fail(_: ModelControl, model: str) -> None:
        asked.append(model)
        states[model, 1] = "UNAVAILABLE"
        raise ServerFailed("no room")

    monkeypatch.setattr(ModelControl, "states", lambda *_, **__: dict(states))
    monkeypatch.setattr(ModelControl, "reload", fail)
    watch = Watch(os.getpid(), ModelControl("http://127.0.0.1:1"))  # which has no model's process
    assert [watch.look(), watch.look()] == [[], []]
    assert asked == ["embed", "match"]  # both, though the first does not load
    del states["match", 1]
    assert watch.look() == []
    assert asked == ["embed", "match", "embed"]


def test_up_brings_back_a_model_and_update_and_probe_find_it(tiny_bundle: Path, other: Path, tmp_path: Path) -> None:
    """The whole road by the command line."""
    repository = tmp_path / "served"
    with up(tmp_path, "--bundle", str(tiny_bundle), "--repository", str(repository)) as process:
        url = next(line.split()[1] for line in read_until(process, "Ctrl-C").splitlines() if line.startswith("gRPC"))
        assert stat.S_IMODE((repository / CONTROL_FILE).stat().st_mode) == 0o600
        assert main(["probe", "--url", url, "--bundle", str(tiny_bundle)]) == 0
        assert main(["probe", "--url", url, "--bundle", str(other)]) == 1
        server = server_of(process.pid)
        os.kill(stub_of(server, "encoder"), signal.SIGKILL)
        wait_until(lambda: main(["probe", "--url", url, "--bundle", str(tiny_bundle), "--timeout", "2"]) == 0, 30)
        assert main(["update", "--repository", str(repository), "--bundle", str(other)]) == 0
        assert main(["probe", "--url", url, "--bundle", str(other)]) == 0
        assert main(["update", "--repository", str(repository), "--rollback"]) == 0
        assert main(["probe", "--url", url, "--bundle", str(tiny_bundle)]) == 0
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0
    assert not (repository / CONTROL_FILE).exists()
    assert main(["update", "--repository", str(repository), "--rollback"]) == 2


def test_what_a_killed_up_leaves_is_gone_after_the_next_start(
    tiny_bundle: Path, triton_repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = [sys.executable, "-m", "serving", "up", *FREE_PORTS, "--bundle", str(tiny_bundle)]
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, env=environment) as process:
        read_until(process, "Ctrl-C")
        group = server_of(process.pid)
        process.kill()
    wait_until(lambda: not members(group) and not regions(process.pid) and len(working_folders(tmp_path)) < 2)
    assert [path.name.split("-")[:3] for path in working_folders(tmp_path)] == [["bertrec", "repository", str(process.pid)]]
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with TritonServer(triton_repository):
        assert [path.name.split("-")[1] for path in working_folders(tmp_path)] == ["triton"]
    assert working_folders(tmp_path) == []


def test_dry_run_prints_the_commands_and_starts_nothing(tiny_bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = regions()
    assert main(["up", "--bundle", str(tiny_bundle), "--dry-run", "--cache-mb", "64", "--http-port", "9000"]) == 0
    key, server, docker = capsys.readouterr().out.splitlines()
    assert key.startswith("export CONTROL_KEY=")
    restricted = "--http-restricted-api=model-repository:bertrec-control=$CONTROL_KEY"
    assert server.startswith("BERTREC_CACHE_MB=64 tritonserver --model-repository=models --model-config-name=cpu")
    assert docker.startswith("docker run --rm --shm-size=256m -e CONTROL_KEY -e BERTREC_CACHE_MB=64 -p 9000:8000 -p 8001:8001")
    assert all("--model-control-mode=explicit --load-model=*" in line and restricted in line for line in (server, docker))
    assert "--http-port=9000" in server
    assert regions() == before


def test_a_shared_memory_that_is_too_small_is_said_in_one_line(triton_repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serving.triton.LEAST_SHARED_MEMORY", 2**60)
    with pytest.raises(ServerFailed, match=rf"^{_supervise.REGIONS} has \d+ MiB free; .*--shm-size=256m$"):
        TritonServer(triton_repository).start()


def test_a_cache_of_no_size_is_refused(triton_repository: Path) -> None:
    with pytest.raises(InvalidInput, match="the cache has -1 MB; accepted are"):
        TritonServer(triton_repository, cache_mb=-1)


@pytest.mark.parametrize("url", ["grpc://127.0.0.1:8001", "127.0.0.1:8000"])
def test_an_address_that_is_not_http_is_refused(url: str) -> None:
    with pytest.raises(InvalidInput, match="accepted is Triton's HTTP address"):
        ModelControl(url)


@pytest.mark.parametrize("arguments", [["up"], ["update", "--repository", "none", "--url", "http://127.0.0.1:1"]])
def test_a_command_without_what_it_needs_says_so(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    assert "is given; name" in capsys.readouterr().err


def test_models_come_and_go_with_the_bundles_that_have_them(server: TritonServer, repository: Path, full_bundle: Path) -> None:
    control = control_of(server)
    with Recommender(server.grpc_url, timeout_s=30) as recommender:
        assert update(repository, full_bundle, control) == 2
        assert [one.item_id for one in recommender.match("red", ["3", "4"]).matches] == ["3", "4"]
        assert set(recommender.classify("red").labels) == {"sentiment", "fabric"}
        assert roll_back(repository, control) == 1
        counted = metric(server, "bertrec_texts_total", model="embed")
        assert recommender.embed("red").vector.shape == (32,)
        assert metric(server, "bertrec_texts_total", model="embed") == counted + 1  # the others took theirs alone with them
        with pytest.raises(BertrecError, match="match"):
            recommender.match("red", ["3"])
    assert {path.name for path in (repository / "models").iterdir()} == {"recommend", "embed", "encoder", "ranker"}
    assert {name for (name, _), state in control.states().items() if state == "READY"} == {
        "recommend",
        "embed",
        "encoder",
        "ranker",
    }
