"""One edge server for the tests that change nothing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from bertrec.session_options import SessionOptions
from client import Recommender
from client.server.model import EdgeModel
from tests.client.server.running import Running, running


@pytest.fixture(scope="session")
def model(tiny_bundle: Path) -> EdgeModel:
    return EdgeModel(tiny_bundle, session=SessionOptions(1))


@pytest.fixture(scope="module")
def served(model: EdgeModel) -> Iterator[Running]:
    with running(model) as server:
        yield server


@pytest.fixture(scope="session")
def in_process(tiny_bundle: Path) -> Iterator[Recommender]:
    with Recommender(bundle=tiny_bundle, threads=1) as opened:
        yield opened
