"""The deployment files as their own linters and schemas see them; each linter is shown a mistake as well, and must find it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import compose_spec
import kubernetes_validate
import promql_parser
import pytest
import yaml

from tests.deploy.files import BASE, DEPLOY, OBSERVABILITY, manifests, read
from tests.deploy.test_observability import EXPRESSIONS

DOCKERFILES = sorted(DEPLOY.glob("Dockerfile.*"))
OLDEST_KUBERNETES, NEWEST_KUBERNETES = "1.28", "1.37"
OVERLAYS = ("base", "gpu")
PLACEHOLDERS = {"$__rate_interval": "1m", "<<.GroupBy>>": "pod", "<<.LabelMatchers>>": 'namespace="default"'}
"""What Grafana and prometheus-adapter put into an expression before Prometheus sees it."""

PROMQL = [one for one in EXPRESSIONS if not one[1].startswith("label_values(")]  # which is Grafana's own function


def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=60, check=False)


def packaged(name: str) -> Path:
    """A linter that pip installed beside this Python."""
    return Path(sys.executable).with_name(name)


def installed(name: str, variable: str) -> str:
    """A program that pip cannot install; the test is skipped, and says so, where it is not."""
    found = shutil.which(os.environ.get(variable) or name)
    if found is None:
        pytest.skip(f"{name} is not on PATH, and {variable} names none")
    return found


def composed(folder: Path) -> Path:
    """compose.yaml beside its linter's settings, with the variable that whoever starts it gives."""
    shutil.copytree(DEPLOY, folder / "deploy")
    target = folder / "deploy/compose.yaml"
    text, given = re.subn(r"\$\{MODELS:\?[^}]*\}", "/srv/models", target.read_text(encoding="utf-8"))
    assert given == 1
    target.write_text(text, encoding="utf-8")
    return target


def parsed(expression: str) -> Any:
    """A PromQL expression, as Prometheus' grammar and types read it. Raises ValueError."""
    for placeholder, value in PLACEHOLDERS.items():
        expression = expression.replace(placeholder, value)
    return promql_parser.parse(expression)


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_hadolint_has_nothing_to_say(path: Path) -> None:
    done = run(packaged("hadolint"), "--no-color", path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_hadolint_finds_a_mistake(tmp_path: Path) -> None:
    broken = tmp_path / "Dockerfile"
    broken.write_text("FROM python\nRUN pip install numpy\n")
    done = run(packaged("hadolint"), "--no-color", broken)
    assert done.returncode == 1
    assert {"DL3006", "DL3013"} <= set(re.findall(r"DL\d+", done.stdout))


@pytest.mark.parametrize("version", [OLDEST_KUBERNETES, NEWEST_KUBERNETES])
@pytest.mark.parametrize("kind", sorted(manifests()))
def test_a_manifest_has_nothing_that_kubernetes_does_not_know(kind: str, version: str) -> None:
    assert kubernetes_validate.validate(manifests()[kind], version, strict=True)


def test_a_field_that_kubernetes_does_not_know_is_found() -> None:
    deployment = manifests()["Deployment"]
    container = deployment["spec"]["template"]["spec"]["containers"][0]
    container["readynessProbe"] = container.pop("readinessProbe")
    with pytest.raises(kubernetes_validate.ValidationError, match="readynessProbe"):
        kubernetes_validate.validate(deployment, NEWEST_KUBERNETES, strict=True)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_what_kustomize_writes_is_valid(overlay: str) -> None:
    done = run(installed("kubectl", "KUBECTL"), "kustomize", BASE.parent / overlay)
    assert (done.returncode, done.stderr) == (0, "")
    written = {one["kind"]: one for one in yaml.safe_load_all(done.stdout)}
    assert set(written) == set(manifests())
    for one in written.values():
        kubernetes_validate.validate(one, NEWEST_KUBERNETES, strict=True)
    (container,) = written["Deployment"]["spec"]["template"]["spec"]["containers"]
    (target,) = (word.partition("=")[2] for word in container["args"] if word.startswith("--model-config-name="))
    gpus = container["resources"]["limits"].get("nvidia.com/gpu")
    expected = {"base": ("bertrec-triton:cpu", "cpu", None), "gpu": ("bertrec-triton:gpu", "gpu-ort", "1")}
    assert (container["image"], target, gpus) == expected[overlay]


def test_compose_has_nothing_that_its_specification_does_not_know(tmp_path: Path) -> None:
    merged = yaml.safe_dump(yaml.safe_load(composed(tmp_path).read_text(encoding="utf-8")))  # "<<" is YAML's, not compose's
    assert set(compose_spec.PyCompose.from_yaml(merged).service_names()) == set(read(DEPLOY / "compose.yaml")["services"])
    with pytest.raises(ValueError, match="readonly"):
        compose_spec.PyCompose.from_yaml(merged.replace("read_only", "readonly"))


def test_compose_lint_has_nothing_to_say(tmp_path: Path) -> None:
    compose = composed(tmp_path)
    command = (packaged("compose-lint"), "check", "--skip-suppressed", "--fail-on", "low", "--config")
    done = run(*command, compose.parent / ".compose-lint.yml", compose)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "CL-" not in done.stdout
    compose.write_text(compose.read_text(encoding="utf-8").replace("cap_drop: [ALL]", "privileged: true"), encoding="utf-8")
    done = run(*command, compose.parent / ".compose-lint.yml", compose)
    assert (done.returncode, "CL-0002" in done.stdout) == (1, True)


@pytest.mark.parametrize(("place", "expression"), PROMQL, ids=[place for place, _ in PROMQL])
def test_an_expression_is_one_that_prometheus_reads(place: str, expression: str) -> None:
    assert parsed(expression), place


@pytest.mark.parametrize("expression", ["rate(nv_inference_count)", "sum by (model) (x", "sum(rate(x[1m])"])
def test_an_expression_that_prometheus_would_refuse_is_found(expression: str) -> None:
    with pytest.raises(ValueError, match="matrix|parenthesis"):
        parsed(expression)


def test_promtool_accepts_rules_and_settings() -> None:
    promtool = installed("promtool", "PROMTOOL")
    rules = run(promtool, "check", "rules", "--lint=all", "--lint-fatal", OBSERVABILITY / "rules.yml")
    assert (rules.returncode, "SUCCESS: 9 rules found" in rules.stdout) == (0, True), rules.stderr
    settings = run(promtool, "check", "config", "--syntax-only", OBSERVABILITY / "prometheus.yml")
    assert settings.returncode == 0, settings.stderr
