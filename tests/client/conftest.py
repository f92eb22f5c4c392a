"""One recommender for each way to be answered."""

from __future__ import annotations

import subprocess
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


@pytest.fixture(scope="session")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two authorities, ca and other, and certificates of the first for the server and a client."""
    folder = tmp_path_factory.mktemp("tls")
    for name in ("ca", "other"):
        openssl(folder, f"req -x509 {NEW_KEY} -keyout {name}.key -out {name}.pem -subj /CN={name} -days 2")
    for name in ("server", "client"):
        (folder / f"{name}.ext").write_text("subjectAltName=IP:127.0.0.1\n")
        openssl(folder, f"req {NEW_KEY} -keyout {name}.key -out {name}.csr -subj /CN={name}")
        signed = f"-CA ca.pem -CAkey ca.key -CAcreateserial -extfile {name}.ext -days 2"
        openssl(folder, f"x509 -req -in {name}.csr {signed} -out {name}.pem")
    return folder


NEW_KEY = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes"


def openssl(folder: Path, arguments: str) -> None:
    subprocess.run(["openssl", *arguments.split()], cwd=folder, check=True, capture_output=True, timeout=60)
