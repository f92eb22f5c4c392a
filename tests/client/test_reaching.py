"""The command line's options for TLS, token and retries, against real servers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from client.__main__ import main
from tests.client import servers
from tests.client.test_tls import tls_server


@pytest.fixture(autouse=True)
def no_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BERTREC_TOKEN", raising=False)


def test_mutual_tls(capsys: pytest.CaptureFixture[str], scheme: str, keys: Path) -> None:
    ours = ["--ca", str(keys / "ca.pem"), "--certificate", str(keys / "client.pem"), "--key", str(keys / "client.key")]
    with tls_server(scheme, keys, mutual=True) as url:
        assert main(["recommend", "red", "--url", url, "--json", *ours]) == 0
        assert json.loads(capsys.readouterr().out)["items"][0]["item_id"] == "7"
        assert main(["recommend", "red", "--url", url, "--retries", "0", *ours[:2]]) == 1


@pytest.mark.parametrize("named", [True, False])
def test_the_token_comes_from_a_file_or_the_environment(
    scheme: str, named: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "token").write_text("of-the-file\n")
    monkeypatch.setenv("BERTREC_TOKEN", "of-the-environment")
    seen: list[dict[str, str]] = []
    with servers.server(scheme, lambda number: None, seen=seen) as url:
        main(["recommend", "red", "--url", url, *(["--token-file", str(tmp_path / "token")] if named else [])])
    assert seen[0]["authorization"] == ("Bearer of-the-file" if named else "Bearer of-the-environment")


def test_without_a_token_none_is_sent(scheme: str) -> None:
    seen: list[dict[str, str]] = []
    with servers.server(scheme, lambda number: None, seen=seen) as url:
        main(["recommend", "red", "--url", url])
    assert "authorization" not in seen[0]


@pytest.mark.parametrize("retries", [0, 3])
def test_retries_are_as_many_as_wanted(scheme: str, retries: int) -> None:
    seen: list[dict[str, str]] = []
    with servers.server(scheme, lambda number: "unavailable", seen=seen) as url:
        assert main(["recommend", "red", "--url", url, "--retries", str(retries)]) == 1
    assert len(seen) == 1 + retries


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--url", "grpc://127.0.0.1:1", "--retries", "-1"], "--retries is -1; accepted is a whole number from 0 to 9"),
        (["--url", "grpc://127.0.0.1:1", "--retries", "10"], "--retries is 10"),
        (["--url", "grpcs://127.0.0.1:1", "--ca", "no.pem"], "tls.ca is 'no.pem', which is no file"),
        (["--url", "grpcs://127.0.0.1:1", "--key", "no.pem"], "tls has one of certificate and key"),
        (["--url", "grpc://127.0.0.1:1", "--ca", __file__], "which is not encrypted, and tls is given"),
        (["--url", "grpc://127.0.0.1:1", "--token-file", "none"], "--token-file none cannot be read (No such file or directory)"),
        (["--url", "grpc://127.0.0.1:1", "--token-file", "/dev/null"], "--token-file /dev/null is empty"),
        (["--bundle", "x", "--token-file", "t"], "--token-file goes with --url"),
    ],
)
def test_what_makes_no_sense_is_bad_input(capsys: pytest.CaptureFixture[str], arguments: list[str], message: str) -> None:
    assert main(["recommend", "red", *arguments]) == 2
    assert message in capsys.readouterr().err


def test_a_token_that_is_no_header_is_not_repeated(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "token").write_text("se\ncret")
    assert main(["recommend", "red", "--url", "grpc://127.0.0.1:1", "--token-file", str(tmp_path / "token")]) == 2
    assert "cret" not in capsys.readouterr().err
