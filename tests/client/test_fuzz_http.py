"""Requests that nobody would write, to the real edge server as a process: each gets an answer or is refused, none ends it."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import content_type_conformance, status_code_conformance

from bertrec.tensors import QUESTIONS
from client import Recommender
from client.server.kserve import HEADER_LENGTH
from client.server.openapi import description
from tests.client.server.running import Running
from tests.tiny import item_text

MODELS = [model.name for model in QUESTIONS]
INFER = "/v2/models/recommend/infer"
SAME_EACH_TIME = settings(
    max_examples=30, derandomize=True, database=None, deadline=None, suppress_health_check=list(HealthCheck)
)
CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance]
BYTES_REQUESTS = 300
DOCUMENTED = {200, 400, 413, 415}


@pytest.fixture(scope="module")
def process(full_bundle: Path) -> Iterator[tuple[subprocess.Popen[str], Running]]:
    """The server as a process of its own, so that one that a request ends is seen to have ended."""
    command = [sys.executable, "-m", "client.server", "--bundle", str(full_bundle), "--port", "0", "--threads", "1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]) as started:
        assert started.stdout is not None
        try:
            port = int(started.stdout.readline().split()[1].rpartition(":")[2])
            yield started, Running(port)
        finally:
            started.kill()


@pytest.fixture(autouse=True)
def goes_on(process: tuple[subprocess.Popen[str], Running]) -> Iterator[None]:
    """After each test the same process answers the next good request, rightly."""
    yield
    started, server = process
    with Recommender(server.url) as one:
        assert one.recommend(item_text(3), k=1).items[0].item_id == "3"
    assert started.poll() is None


@pytest.mark.parametrize("mode", list(schemathesis.GenerationMode))
@pytest.mark.parametrize("path", [path for model in MODELS for path in (f"/{model}", f"/v2/models/{model}/infer")])
def test_what_the_openapi_description_suggests_and_what_it_forbids(
    process: tuple[subprocess.Popen[str], Running], path: str, mode: schemathesis.GenerationMode
) -> None:
    schema: Any = schemathesis.openapi.from_dict(description(MODELS))
    statuses: Counter[int] = Counter()

    @SAME_EACH_TIME
    @given(schema[path]["POST"].as_strategy(generation_mode=mode))
    def send(case: Any) -> None:
        response = case.call(base_url=process[1].url)
        statuses[response.status_code] += 1
        case.validate_response(response, checks=CHECKS)

    send()
    assert sum(statuses.values()) >= SAME_EACH_TIME.max_examples / 2
    if mode is schemathesis.GenerationMode.NEGATIVE:
        assert statuses[400] > 0.9 * sum(statuses.values())


def _json_body() -> bytes:
    inputs = [{"name": name, "datatype": "BYTES", "shape": [1, 1], "data": ["{}"]} for name in ("TEXT", "OPTIONS")]
    return json.dumps({"inputs": inputs}).encode()


def _binary_body() -> tuple[bytes, int]:
    tensor = (2).to_bytes(4, "little") + b"{}"
    inputs = [
        {"name": name, "datatype": "BYTES", "shape": [1, 1], "parameters": {"binary_data_size": len(tensor)}}
        for name in ("TEXT", "OPTIONS")
    ]
    header = json.dumps({"inputs": inputs}).encode()
    return header + tensor + tensor, len(header)


def _flipped(body: bytes, chance: random.Random) -> bytes:
    changed = bytearray(body)
    for _ in range(chance.randint(1, 4)):
        changed[chance.randrange(len(changed))] = chance.randrange(256)
    return bytes(changed)


Made = tuple[bytes, dict[str, str]]


def _cut(chance: random.Random) -> Made:
    body, header = _binary_body()
    return body[: chance.randrange(len(body))], {HEADER_LENGTH: str(header)}


def _wrong_length(chance: random.Random) -> Made:
    body, _ = _binary_body()
    return body, {HEADER_LENGTH: chance.choice(["-1", "0", "99999999999", "1e3", "0x10", "", str(chance.randrange(len(body)))])}


def _flipped_binary(chance: random.Random) -> Made:
    body, header = _binary_body()
    return _flipped(body, chance), {HEADER_LENGTH: str(header)}


def _unpackable(chance: random.Random) -> Made:
    return chance.randbytes(50), {"Content-Encoding": chance.choice(["gzip", "deflate", "br", "identity, gzip", "\u00e9"])}


KINDS: list[Callable[[random.Random], Made]] = [
    _cut,
    _wrong_length,
    _flipped_binary,
    _unpackable,
    lambda chance: (_flipped(_json_body(), chance), {}),
    lambda chance: (chance.randbytes(chance.randrange(200)), {}),
]


def test_bytes_that_are_no_request(process: tuple[subprocess.Popen[str], Running]) -> None:
    chance, statuses = random.Random(0), Counter[int]()
    for number in range(BYTES_REQUESTS):
        body, headers = KINDS[number % len(KINDS)](chance)
        response = process[1].send("POST", INFER, body, headers)
        statuses[response.status] += 1
        assert response.status in DOCUMENTED, (body, headers, response.body)
        assert response.status == 200 or response.json["error"]
    assert statuses[400] > BYTES_REQUESTS / 2


@pytest.mark.parametrize("depth", [100, 10_000, 500_000])
def test_json_that_is_nested_deeply(process: tuple[subprocess.Popen[str], Running], depth: int) -> None:
    assert process[1].send("POST", INFER, b'{"inputs":' + b"[" * depth).status == 400
