"""Dockerfiles, compose and kustomize agree with what serving assembles, and run with as few rights as they need."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from serving.assemble import CONTAINER, DEFAULT_TAG, TEMPLATES, Target
from serving.triton import READY_PATH, TritonServer
from tests.deploy.files import BASE, CHECKOUT, DEPLOY, OBSERVABILITY, dockerfile, manifests, read, words
from tests.serving.processes import stub_of

PORTS = {"http": 8000, "grpc": 8001, "metrics": 8002}
TARGETS = {"Dockerfile.cpu": Target.CPU, "Dockerfile.gpu": Target.GPU_ORT}
FILES = [path for folder in (DEPLOY, OBSERVABILITY) for path in sorted(folder.rglob("*.y*ml"))]
UID = 1000
ALIVE, ALIVE_SECONDS = "/usr/local/bin/bertrec-alive", 10
"""Where images have serving/deploy/alive.sh, and how long it waits for an answer."""


def option(command: list[str], name: str) -> str:
    return next(word.partition("=")[2] for word in command if word.startswith(f"--{name}="))


@pytest.fixture
def pod() -> Any:
    return manifests()["Deployment"]["spec"]["template"]["spec"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(CHECKOUT / "serving").as_posix())
def test_every_yaml_file_is_read_and_no_key_comes_twice(path: Path) -> None:
    assert read(path)


@pytest.mark.parametrize("name", TARGETS)
def test_an_image_serves_the_target_that_was_assembled(name: str) -> None:
    found = dockerfile(name)
    assert found["ARG"] == [f"TAG={DEFAULT_TAG}"]
    assert found["FROM"] == [CONTAINER.replace("{tag}", "${TAG}")]
    command = words(found["CMD"][0])
    assert command[0] == "tritonserver"
    target = option(command, "model-config-name")
    assert target == TARGETS[name].value
    for model in ("recommend", "encoder", "ranker"):
        assert (TEMPLATES / model / "configs" / f"{target}.pbtxt").is_file()
    assert found["EXPOSE"] == [" ".join(str(port) for port in PORTS.values())]
    assert f"http://127.0.0.1:{PORTS['http']}{READY_PATH}" in found["HEALTHCHECK"][0]
    assert found["USER"] == [f"{UID}:{UID}"]


@pytest.mark.parametrize("name", TARGETS)
def test_an_image_has_the_packages_that_were_tried(name: str) -> None:
    tried = (CHECKOUT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    installed = re.findall(r"\S+==\S+", dockerfile(name)["RUN"][0])
    assert {package.split("==")[0] for package in installed} == {"editdistpy", "symspellpy", "tokenizers", "vaderSentiment"}
    assert set(installed) <= set(tried)


def test_the_edge_image_serves_a_bundle_and_is_not_root() -> None:
    found = dockerfile("Dockerfile.edge")
    assert words(found["CMD"][0])[:4] == ["bertrec", "serve", "--bundle", "/bundle"]
    assert found["USER"] == [f"{UID}:{UID}"]
    assert READY_PATH in found["HEALTHCHECK"][0]


def test_compose_publishes_on_this_machine_alone_and_writes_nowhere() -> None:
    services = read(DEPLOY / "compose.yaml")["services"]
    for service in services.values():
        assert all(port.startswith("127.0.0.1:") for port in service["ports"])
        assert all(volume.endswith(":ro") for volume in service["volumes"])
        assert re.search(r":[^:]*\d", service["image"]) or service["image"].startswith("bertrec-triton:")  # never "latest"
    for name, file in (("triton", "Dockerfile.cpu"), ("triton-gpu", "Dockerfile.gpu")):
        service = services[name]
        assert (CHECKOUT / service["build"]["dockerfile"]).name == file
        assert (DEPLOY / service["build"]["context"]).resolve() == CHECKOUT
        assert service["read_only"]
        assert service["cap_drop"] == ["ALL"]
        assert service["user"] == f"{UID}:{UID}"
        assert service["ports"] == [f"127.0.0.1:{port}:{port}" for port in PORTS.values()]
        assert {"server"} <= set(service["networks"]["default"]["aliases"])  # whom Prometheus asks


def test_what_compose_mounts_is_there() -> None:
    for service in read(DEPLOY / "compose.yaml")["services"].values():
        for volume in service["volumes"]:
            source = volume.partition(":")[0]
            assert source.startswith("${MODELS") or (DEPLOY / source).exists()


def test_the_pod_serves_as_the_image_does(pod: Any) -> None:
    (container,) = pod["containers"]
    assert container["args"] == words(dockerfile("Dockerfile.cpu")["CMD"][0])
    assert {port["name"]: port["containerPort"] for port in container["ports"]} == PORTS
    (models,) = (mount for mount in container["volumeMounts"] if mount["name"] == "models")
    assert (models["mountPath"], models["readOnly"]) == (option(container["args"], "model-repository"), True)


def test_probes_ask_what_triton_answers(pod: Any) -> None:
    (container,) = pod["containers"]
    for name in ("startupProbe", "readinessProbe"):
        assert container[name]["httpGet"] == {"path": READY_PATH, "port": "http"}
    alive = container["livenessProbe"]
    assert alive["exec"]["command"] == [ALIVE]
    assert alive["periodSeconds"] > alive["timeoutSeconds"] > ALIVE_SECONDS
    assert f"seconds=${{2:-{ALIVE_SECONDS}}}" in (DEPLOY / "alive.sh").read_text(encoding="utf-8")
    for file in TARGETS:
        assert dockerfile(file)["COPY"] == [f"{(DEPLOY / 'alive.sh').relative_to(CHECKOUT)} {ALIVE}"]
    assert os.access(DEPLOY / "alive.sh", os.X_OK)


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed; NVIDIA's container has it")
def test_the_liveness_probe_tells_a_server_that_answers_from_one_whose_model_died(triton_repository: Path) -> None:
    def alive(url: str) -> tuple[int, str]:
        done = subprocess.run([DEPLOY / "alive.sh", url, "3"], capture_output=True, text=True, check=False)
        return done.returncode, done.stderr

    with TritonServer(triton_repository) as server:
        assert alive(server.http_url) == (0, "")
        os.kill(stub_of(server.pid, "recommend"), signal.SIGKILL)
        code, said = alive(server.http_url)
        assert code == 1
        assert "recommend answers with HTTP 500" in said
    assert alive(server.http_url)[0] == 1


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed; NVIDIA's container has it")
@pytest.mark.parametrize(
    ("status", "said", "code"),
    [
        (200, "{}", 0),
        (429, "", 0),
        (503, '{"error":"Exceeds maximum queue size: recommend lets 256 texts wait"}', 0),
        (503, '{"error":"Unavailable: model encoder, version 1: is not ready"}', 1),
        (503, "", 1),
        (400, '{"error":"Exceeds maximum queue size"}', 1),
        (500, "", 1),
    ],
)
def test_a_refusal_for_a_full_queue_is_a_sign_of_life(status: int, said: str, code: int) -> None:
    asked: list[Any] = []

    class Answer(BaseHTTPRequestHandler):
        def do_POST(self) -> None:  # noqa: N802  # http.server's name
            asked.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(status)
            self.end_headers()
            self.wfile.write(said.encode())

        def log_message(self, *_: object) -> None:
            """Nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Answer) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            done = subprocess.run([DEPLOY / "alive.sh", f"http://127.0.0.1:{server.server_port}"], check=False)
        finally:
            server.shutdown()
            thread.join()
    assert done.returncode == code
    assert [one["parameters"] for one in asked] == [{"bertrec_priority": 0}]


def test_the_pod_has_no_rights_that_it_does_not_need(pod: Any) -> None:
    (container,) = pod["containers"]
    assert pod["securityContext"]["runAsNonRoot"]
    assert pod["securityContext"]["runAsUser"] == UID
    assert not pod["automountServiceAccountToken"]
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    assert set(mounts.values()) == set(volumes)
    assert volumes[mounts["/dev/shm"]]["emptyDir"] == {"medium": "Memory", "sizeLimit": "256Mi"}


def test_stopping_leaves_time_to_answer(pod: Any) -> None:
    (container,) = pod["containers"]
    drain_s = int(container["lifecycle"]["preStop"]["exec"]["command"][1])
    assert drain_s + int(option(container["args"], "exit-timeout-secs")) < pod["terminationGracePeriodSeconds"]


def test_the_manifests_find_each_other(pod: Any) -> None:
    found = manifests()
    deployment, claim = found["Deployment"], found["PersistentVolumeClaim"]
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert labels
    assert deployment["spec"]["selector"]["matchLabels"] == labels
    assert found["Service"]["spec"]["selector"] == labels
    assert found["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"] == labels
    assert {port["targetPort"]: port["port"] for port in found["Service"]["spec"]["ports"]} == PORTS
    assert "replicas" not in deployment["spec"]  # or applying the file would undo the autoscaler
    (store,) = (volume["persistentVolumeClaim"] for volume in pod["volumes"] if "persistentVolumeClaim" in volume)
    assert store == {"claimName": claim["metadata"]["name"], "readOnly": True}
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]
    target = found["HorizontalPodAutoscaler"]["spec"]["scaleTargetRef"]
    assert (target["kind"], target["name"]) == ("Deployment", deployment["metadata"]["name"])


def test_another_bundle_goes_live_by_the_patch_of_the_docs(pod: Any) -> None:
    page = (CHECKOUT / "docs/deploy.md").read_text(encoding="utf-8")
    (patch,) = re.findall(r"kubectl patch deployment bertrec-triton --type json -p '(.*)'", page)
    ((_, *place),) = (change["path"].removeprefix("/spec/template/spec").split("/") for change in json.loads(patch))
    found = pod
    for key in place:
        found = found[int(key) if key.isdecimal() else key]
    assert found == manifests()["PersistentVolumeClaim"]["metadata"]["name"]


def test_the_autoscaler_asks_for_the_metric_that_the_adapter_gives() -> None:
    (metric,) = manifests()["HorizontalPodAutoscaler"]["spec"]["metrics"]
    (rule,) = read(OBSERVABILITY / "adapter.yaml")["rules"]["custom"]
    assert metric["pods"]["metric"]["name"] == rule["name"]["as"]


def test_the_cache_is_asked_for_by_the_name_that_the_model_reads(pod: Any) -> None:
    (variable,) = pod["containers"][0]["env"]
    assert f'"{variable["name"]}"' in (TEMPLATES / "model.py").read_text(encoding="utf-8")
    assert variable["name"] in read(DEPLOY / "compose.yaml")["services"]["triton"]["environment"]


def test_the_gpu_overlay_changes_the_arguments_that_it_means() -> None:
    overlay = read(DEPLOY / "kustomize/gpu/kustomization.yaml")
    assert [(DEPLOY / "kustomize/gpu" / path).resolve() for path in overlay["resources"]] == [BASE]
    (patch,) = overlay["patches"]
    changes = {one["path"]: one["value"] for one in yaml.safe_load(patch["patch"])}
    arguments = manifests()["Deployment"]["spec"]["template"]["spec"]["containers"][0]["args"]
    place = "/spec/template/spec/containers/0/args/"
    changed = {arguments[int(path.removeprefix(place))]: value for path, value in changes.items() if path.startswith(place)}
    assert changed == {
        "--model-config-name=cpu": f"--model-config-name={Target.GPU_ORT.value}",
        "--allow-gpu-metrics=false": "--allow-gpu-metrics=true",
    }
