"""One recommender for each way to be answered."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from client import Recommender
from tests.client.opened import DRIVERS, opened

BACKENDS = ("edge", "edge-asyncio", "triton-grpc", "triton-grpc-asyncio", "triton-http", "triton-http-asyncio")


@pytest.fixture(scope="session", params=BACKENDS)
def recommender(request: pytest.FixtureRequest, tiny_bundle: Path) -> Iterator[Recommender]:
    """A recommender over the checkerboard, with nothing to fall back to."""
    driver = "asyncio" if request.param.endswith("-asyncio") else "blocking"
    if request.param.startswith("edge"):
        with opened(driver, bundle=tiny_bundle) as recommender:
            yield recommender
        return
    server = request.getfixturevalue("triton")
    # The first call after a start is slow on a busy machine; the deadline is other tests' business.
    url = server.grpc_url if "grpc" in request.param else server.http_url
    with opened(driver, url, timeout_s=30) as recommender:
        yield recommender


@pytest.fixture(scope="session")
def edge(tiny_bundle: Path) -> Iterator[Recommender]:
    with Recommender(bundle=tiny_bundle) as opened_edge:
        yield opened_edge


@pytest.fixture(params=["grpc", "http"])
def scheme(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=DRIVERS)
def driver(request: pytest.FixtureRequest) -> str:
    """Which of the two recommenders: see tests.client.opened."""
    return str(request.param)
