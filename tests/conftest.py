"""Fixtures that several tests share."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from bertrec.confidence import Confidence
from tests import tiny

if TYPE_CHECKING:
    from serving.triton import TritonServer

NARROW_QUEUE = 128
"""Texts that the recommend of narrow_triton lets wait."""


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("bertrec")
    group.addoption("--picture", metavar="FILE", help="where to keep a picture (PNG) of the edge server's page")
    group.addoption("--picture-bundle", metavar="FOLDER", help="the bundle that the page in the picture answers from")


@pytest.fixture(scope="session")
def tiny_backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_backbone(tmp_path_factory.mktemp("backbone"))


@pytest.fixture(scope="session")
def tiny_bundle(tmp_path_factory: pytest.TempPathFactory, tiny_backbone: Path) -> Path:
    """A sealed bundle that tests must not change; copy it to alter it."""
    return tiny.write_bundle(tmp_path_factory.mktemp("bundle") / "tiny", tiny_backbone)


@pytest.fixture(scope="session")
def full_bundle(tmp_path_factory: pytest.TempPathFactory, tiny_backbone: Path) -> Path:
    """The same with a matcher and heads, and sure of an answer whose first item has a score of 10 or more."""
    sure = Confidence("score", 10.0)
    return tiny.write_bundle(tmp_path_factory.mktemp("bundle") / "full", tiny_backbone, matcher=True, heads=True, confidence=sure)


@pytest.fixture(scope="session")
def triton_repository(tmp_path_factory: pytest.TempPathFactory, tiny_bundle: Path) -> Path:
    """An assembled repository that tests must not change; copy it to alter it."""
    from serving.assemble import Target, assemble

    return assemble(tiny_bundle, tmp_path_factory.mktemp("repository") / "tiny", target=Target.CPU)


@pytest.fixture(scope="session")
def full_triton(tmp_path_factory: pytest.TempPathFactory, full_bundle: Path) -> Iterator[TritonServer]:
    """A real Triton that serves the bundle with matcher and heads."""
    from serving.assemble import Target, assemble
    from serving.triton import TritonServer

    with TritonServer(assemble(full_bundle, tmp_path_factory.mktemp("repository") / "full", target=Target.CPU)) as server:
        yield server


@pytest.fixture(scope="session")
def narrow_triton(tmp_path_factory: pytest.TempPathFactory, triton_repository: Path) -> Iterator[TritonServer]:
    """A real Triton whose recommend queues few requests, so that its queue is filled by load alone."""
    from serving.triton import TritonServer

    repository = shutil.copytree(triton_repository, tmp_path_factory.mktemp("repository") / "narrow")
    config = repository / "models/recommend/configs/cpu.pbtxt"
    config.write_text(re.sub(r'(most_waiting_texts" .*: ")\d+', rf"\g<1>{NARROW_QUEUE}", config.read_text()))
    with TritonServer(repository) as server:
        yield server


@pytest.fixture(scope="session")
def triton(triton_repository: Path) -> Iterator[TritonServer]:
    """A real Triton that serves the tiny bundle on loopback; tests that stop or kill a server start one of their own."""
    from serving.triton import TritonServer

    with TritonServer(triton_repository) as server:
        yield server
