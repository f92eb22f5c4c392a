"""TLS and mutual TLS, over gRPC and over HTTPS, with certificates made for the test."""

from __future__ import annotations

import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc  # type: ignore[import-untyped]  # its stubs are a package of their own
import pytest

from client import DeadlineExceeded, InvalidInput, Retries, Tls, Unavailable
from tests.client import servers
from tests.client.opened import opened


@contextmanager
def tls_server(scheme: str, keys: Path, *, mutual: bool = False, delay_s: float = 0.0) -> Iterator[str]:
    if scheme == "grpc":
        pair = ((keys / "server.key").read_bytes(), (keys / "server.pem").read_bytes())
        credentials = grpc.ssl_server_credentials([pair], (keys / "ca.pem").read_bytes() if mutual else None, mutual)
        respond = lambda n, _: servers.grpc_answer([servers.GOOD] * n)  # noqa: E731
        with servers.grpc_server(respond, tls=credentials, delay_s=delay_s) as url:
            yield url
        return
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(keys / "server.pem", keys / "server.key")
    if mutual:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(keys / "ca.pem")
    with servers.http_server(lambda n: (200, servers.http_answer([servers.GOOD] * n)), tls=context, delay_s=delay_s) as url:
        yield url


def test_a_server_with_the_right_certificate_is_asked(driver: str, scheme: str, keys: Path) -> None:
    with tls_server(scheme, keys) as url, opened(driver, url, tls=Tls(ca=keys / "ca.pem")) as one:
        assert url.startswith(("grpcs://", "https://"))
        assert [one.recommend("red").items[0].item_id for _ in range(3)] == ["7"] * 3  # the connection is used again


@pytest.mark.parametrize("ca", [None, "other.pem"])
def test_a_server_that_nobody_vouches_for_is_not_believed(driver: str, scheme: str, keys: Path, ca: str | None) -> None:
    tls = None if ca is None else Tls(ca=keys / ca)
    with tls_server(scheme, keys) as url, opened(driver, url, tls=tls, retries=Retries(attempts=1)) as one:
        with pytest.raises(Unavailable, match="cannot answer"):
            one.recommend("red", timeout_s=5)


def test_a_server_that_asks_for_the_clients_certificate_gets_it(driver: str, scheme: str, keys: Path) -> None:
    ours = Tls(ca=keys / "ca.pem", certificate=keys / "client.pem", key=keys / "client.key")
    with tls_server(scheme, keys, mutual=True) as url:
        with opened(driver, url, tls=ours) as one:
            assert one.recommend("red").items[0].item_id == "7"
        with opened(driver, url, tls=Tls(ca=keys / "ca.pem"), retries=Retries(attempts=1)) as one:
            with pytest.raises(Unavailable, match="cannot answer"):
                one.recommend("red", timeout_s=5)


def test_the_deadline_holds_with_tls(scheme: str, keys: Path) -> None:
    with tls_server(scheme, keys, delay_s=1.5) as url, opened("blocking", url, tls=Tls(ca=keys / "ca.pem")) as one:
        started = time.monotonic()
        with pytest.raises(DeadlineExceeded, match=r"gave no answer within 0\.4 s"):
            one.recommend("red", timeout_s=0.4)
        assert 0.36 <= time.monotonic() - started < 1.2


def test_the_deadline_holds_while_tls_is_agreed_on_and_while_the_answer_drips(keys: Path) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(keys / "server.pem", keys / "server.key")

    def drip(connection: object) -> None:
        servers.drip_body(context.wrap_socket(connection, server_side=True))  # type: ignore[arg-type]

    for handle in (servers.hang, drip):
        with servers.tcp_server(handle) as port:
            with opened("blocking", f"https://127.0.0.1:{port}", tls=Tls(ca=keys / "ca.pem"), timeout_s=0.4) as one:
                started = time.monotonic()
                with pytest.raises(DeadlineExceeded):
                    one.recommend("red")
                assert 0.36 <= time.monotonic() - started < 1.2


def test_files_that_do_not_fit_are_refused(keys: Path) -> None:
    with pytest.raises(InvalidInput, match=r"tls\.ca is '.*nothing\.pem', which is no file; accepted is a PEM file"):
        Tls(ca=keys / "nothing.pem")
    with pytest.raises(InvalidInput, match="one of certificate and key; mutual TLS needs both"):
        Tls(certificate=keys / "client.pem")
    with pytest.raises(InvalidInput, match="tls cannot be used"):
        with opened(
            "blocking", "https://host", tls=Tls(ca=keys / "ca.pem", certificate=keys / "client.pem", key=keys / "ca.key")
        ):
            pass
