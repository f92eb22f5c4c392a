"""Fixtures that several tests share."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import tiny


@pytest.fixture(scope="session")
def tiny_backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_backbone(tmp_path_factory.mktemp("backbone"))


@pytest.fixture(scope="session")
def tiny_bundle(tmp_path_factory: pytest.TempPathFactory, tiny_backbone: Path) -> Path:
    """A sealed bundle that tests must not change; copy it to alter it."""
    return tiny.write_bundle(tmp_path_factory.mktemp("bundle") / "tiny", tiny_backbone)
