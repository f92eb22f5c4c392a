"""One recommender for each way to be answered."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from client import Recommender

BACKENDS = ("edge", "triton-grpc", "triton-http")


@pytest.fixture(scope="session", params=BACKENDS)
def recommender(request: pytest.FixtureRequest, tiny_bundle: Path) -> Iterator[Recommender]:
    """A recommender over the checkerboard, with nothing to fall back to."""
    if request.param == "edge":
        with Recommender(bundle=tiny_bundle) as opened:
            yield opened
        return
    server = request.getfixturevalue("triton")
    # The first call after a start is slow on a busy machine; the deadline is other tests' business.
    with Recommender(server.grpc_url if request.param == "triton-grpc" else server.http_url, timeout_s=30) as opened:
        yield opened


@pytest.fixture(scope="session")
def edge(tiny_bundle: Path) -> Iterator[Recommender]:
    with Recommender(bundle=tiny_bundle) as opened:
        yield opened
