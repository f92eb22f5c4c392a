"""Every metric that is charted, alerted on or scaled by is one that a real tritonserver gives."""

from __future__ import annotations

import json
import re
import subprocess
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from client import Recommender
from serving.assemble import TEMPLATES
from serving.triton import TritonServer
from tests.deploy.files import CHECKOUT, OBSERVABILITY, read

NAMES = re.compile(r"\b(?:nv|bertrec)_\w+")
RECORDED = re.compile(r"\bbertrec:[\w:]+")
MADE = {"bertrec_queue_ms"}
"""What prometheus-adapter makes."""


@pytest.fixture(scope="module")
def metrics(triton: TritonServer) -> str:
    """What Triton says after it has answered."""
    with Recommender(triton.grpc_url, timeout_s=30) as recommender:
        recommender.recommend("green gown")
    with urllib.request.urlopen(triton.metrics_url, timeout=10) as response:
        return str(response.read().decode())


def dashboard() -> Any:
    return json.loads((OBSERVABILITY / "dashboard.json").read_text(encoding="utf-8"))


def rules() -> list[Any]:
    return [rule for group in read(OBSERVABILITY / "rules.yml")["groups"] for rule in group["rules"]]


def expressions() -> Iterator[tuple[str, str]]:
    """Pairs of a place and a PromQL expression."""
    for panel in dashboard()["panels"]:
        yield from ((panel["title"], target["expr"]) for target in panel["targets"])
    for variable in dashboard()["templating"]["list"]:
        yield variable["name"], variable["query"]
    yield from ((rule.get("record") or rule["alert"], rule["expr"]) for rule in rules())
    for rule in read(OBSERVABILITY / "adapter.yaml")["rules"]["custom"]:
        yield "adapter", rule["metricsQuery"]
        yield "adapter series", rule["seriesQuery"]


EXPRESSIONS = list(expressions())


@pytest.mark.parametrize(("place", "expression"), EXPRESSIONS, ids=[place for place, _ in EXPRESSIONS])
def test_a_real_triton_gives_every_metric(metrics: str, place: str, expression: str) -> None:
    given = set(re.findall(r"^# TYPE (\w+)", metrics, re.MULTILINE))
    recorded = {rule["record"] for rule in rules() if "record" in rule}
    named = set(NAMES.findall(expression)) - MADE
    assert named <= given
    assert set(RECORDED.findall(expression)) <= recorded
    assert named or RECORDED.search(expression)
    assert "job=" not in expression  # compose and each cluster call it otherwise


@pytest.mark.parametrize(("place", "expression"), EXPRESSIONS, ids=[place for place, _ in EXPRESSIONS])
def test_counters_are_rated_and_gauges_are_not(metrics: str, place: str, expression: str) -> None:
    kinds = dict(re.findall(r"^# TYPE (\w+) (\w+)", metrics, re.MULTILINE))
    if place in ("model", "instance", "adapter series"):  # these list series
        return
    for found in NAMES.finditer(expression):
        rated = expression[: found.start()].endswith("rate(")
        assert rated == (kinds[found[0]] == "counter"), found[0]


def test_labels_that_are_grouped_by_are_there(metrics: str) -> None:
    assert re.search(r'^nv_inference_queue_duration_us\{[^}]*model="recommend"', metrics, re.MULTILINE)
    assert re.search(r'^nv_inference_request_failure\{[^}]*reason="REJECTED"', metrics, re.MULTILINE)
    assert re.search(r'^bertrec_bucket_texts_total\{[^}]*model="recommend",tokens="16"', metrics, re.MULTILINE)
    assert re.search(r'^nv_inference_pending_request_count\{[^}]*model="recommend"', metrics, re.MULTILINE)


def test_the_dashboard_reads_from_the_source_that_is_provided() -> None:
    (source,) = read(OBSERVABILITY / "provisioning/datasources/prometheus.yaml")["datasources"]
    panels = dashboard()["panels"]
    assert {panel["datasource"]["uid"] for panel in panels} == {source["uid"]}
    assert len({panel["id"] for panel in panels}) == len(panels) >= 9
    places = {(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in panels}
    assert len(places) == len(panels)
    assert all(panel["description"] for panel in panels)


def test_every_alert_says_what_to_do() -> None:
    alerts = [rule for rule in rules() if "alert" in rule]
    assert len(alerts) >= 4
    for alert in alerts:
        assert set(alert["annotations"]) == {"summary", "action"}
        assert alert["labels"]["severity"] in ("page", "warn")


def test_the_rules_go_into_a_cluster_as_the_docs_say() -> None:
    page = (CHECKOUT / "docs/deploy.md").read_text(encoding="utf-8")
    (command,) = re.findall(r"^    (\{ printf .*\}) \| kubectl apply", page, re.MULTILINE)
    given = subprocess.run(["sh", "-c", command], cwd=CHECKOUT, capture_output=True, text=True, check=True).stdout
    resource = yaml.safe_load(given)
    assert (resource["apiVersion"], resource["kind"]) == ("monitoring.coreos.com/v1", "PrometheusRule")
    assert resource["spec"] == read(OBSERVABILITY / "rules.yml")


def test_the_queue_alert_is_at_half_of_the_queue() -> None:
    found = re.search(r'most_waiting_texts" .*: "(\d+)', (TEMPLATES / "recommend/configs/cpu.pbtxt").read_text(encoding="utf-8"))
    assert found is not None
    [rule] = [rule for rule in rules() if rule.get("alert") == "BertrecQueueFilling"]
    assert float(rule["expr"].rpartition(">")[2]) == int(found[1]) / 2
