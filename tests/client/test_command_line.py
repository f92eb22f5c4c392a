"""The command line: what it prints, for people and for programs, and how it fails."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from client.__main__ import main
from tests.client import servers
from tests.serving.processes import heed_ctrl_c
from tests.tiny import attributes

CHECKOUT = Path(__file__).parent.parent.parent
COMMAND = [sys.executable, "-m", "client", "recommend"]


@pytest.fixture
def bundle(tiny_bundle: Path) -> str:
    return str(tiny_bundle)


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    status = main(arguments)
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def stdin(monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content), encoding="ascii"))


def test_the_table_is_aligned_and_says_why_and_who(capsys: pytest.CaptureFixture[str], bundle: str) -> None:
    status, out, err = run(capsys, "recommend", "denim dress", "--bundle", bundle, "-k", "2")
    heading, first, second, last = out.splitlines()
    assert (status, err) == (0, "")
    assert heading.split() == ["rank", "item", "title", "score", "reasons"]
    assert first.split()[:5] == ["1", "3", "Item", "3", f"{float(first.split()[4]):.2f}"]
    assert "your words: denim dress +" in first or "your words: denim, dress +" in first
    assert {line.index(word) for line, word in ((heading, "title"), (first, "Item"), (second, "Item"))} == {
        heading.index("title")
    }
    assert last.startswith("served by edge, engine fp32, bundle ")
    assert last.endswith(" ms")


def test_json_is_one_object_with_a_fixed_set_of_keys(capsys: pytest.CaptureFixture[str], bundle: str) -> None:
    status, out, _ = run(capsys, "recommend", "denim dress", "--bundle", bundle, "-k", "1", "--engine", "int8", "--json")
    record = json.loads(out)
    assert (status, out.count("\n")) == (0, 1)
    assert set(record) == {
        *("text", "items", "truncated", "engine", "bundle", "served_by", "degraded", "fallback_reason", "latency_ms"),
        *("rules", "corrections", "confident", "stages_ms", "attempts", "request_id"),
    }
    assert (record["text"], record["engine"], record["served_by"]) == ("denim dress", "int8", "edge")
    assert (record["degraded"], record["fallback_reason"], record["truncated"]) == (False, None, False)
    [item] = record["items"]
    assert (item["item_id"], item["title"], item["attributes"]) == ("3", "Item 3", attributes(3))
    assert item["score"] == pytest.approx(sum(reason["score"] for reason in item["reasons"]), abs=1e-4)
    assert set(item["reasons"][0]) == {"signal", "score", "words", "sentence"}


def test_a_server_that_is_down_is_said_in_the_last_line(capsys: pytest.CaptureFixture[str], bundle: str) -> None:
    url = f"http://127.0.0.1:{servers.closed_port()}"
    status, out, _ = run(capsys, "recommend", "denim dress", "--url", url, "--bundle", bundle, "-k", "1")
    assert status == 0
    last = out.splitlines()[-1]
    assert f"; the server was unavailable ({url} cannot answer: " in last
    assert last.endswith("Connection refused); answered by the edge")
    _, out, _ = run(capsys, "recommend", "denim dress", "--url", url, "--bundle", bundle, "-k", "1", "--json")
    assert json.loads(out)["degraded"] is True


def test_a_server_that_is_up_is_asked(capsys: pytest.CaptureFixture[str], bundle: str, request: pytest.FixtureRequest) -> None:
    triton = request.getfixturevalue("triton")
    for url in (triton.grpc_url, triton.http_url):
        status, out, _ = run(capsys, "recommend", "denim dress", "--url", url, "--timeout-s", "30", "-k", "1", "--json")
        record = json.loads(out)
        assert (status, record["served_by"], record["items"][0]["item_id"]) == (0, "triton", "3")


def test_rules_are_passed_on(capsys: pytest.CaptureFixture[str], bundle: str) -> None:
    rules = ["--exclude", "3", "--exclude", "9", "--filter", "colour=denim", "--filter", "colour=jade", "--filter", "colour=red"]
    _, out, _ = run(capsys, "recommend", "denim dress", "--bundle", bundle, *rules, "--json")
    assert [item["item_id"] for item in json.loads(out)["items"]] == ["17"]
    _, out, _ = run(capsys, "recommend", "denim dress", "--bundle", bundle, "--filter", "colour=denim", "--filter", "kind=vest")
    assert out.splitlines()[0] == "no item passes the filters, exclusions and rules"


def test_preferences_are_passed_on(capsys: pytest.CaptureFixture[str], bundle: str, tmp_path: Path) -> None:
    file = tmp_path / "rules.json"
    file.write_text('[{"name": "no red", "then": {"attribute": "colour", "equals": ["red"], "effect": "exclude"}}]')
    history = ["--history", "3", "--history", "9", "--popularity", "0", "--diversity", "0.5", "--rules", str(file)]
    status, out, _ = run(capsys, "recommend", "", "--bundle", bundle, *history, "-k", "21", "--json")
    record = json.loads(out)
    found = [item["item_id"] for item in record["items"]]
    assert (status, len(found), record["rules"]) == (0, 18, ["no red"])
    assert not {"3", "9", "17"} & set(found)
    assert "prior" not in {reason["signal"] for item in record["items"] for reason in item["reasons"]}
    _, out, _ = run(capsys, "recommend", "a dres", "--bundle", bundle)
    assert "read “dres” as “dress”" in out.splitlines()
    _, out, _ = run(capsys, "recommend", "a dres", "--bundle", bundle, "--no-spelling", "--no-reasons", "--json")
    assert json.loads(out)["corrections"] == []
    assert [item["reasons"] for item in json.loads(out)["items"]] == [[]] * 10


def test_a_text_that_is_too_long_says_so(capsys: pytest.CaptureFixture[str], bundle: str) -> None:
    _, out, _ = run(capsys, "recommend", "denim " * 500, "--bundle", bundle, "-k", "1")
    assert "the text is longer than the encoder reads; it did not see the end" in out.splitlines()


def test_lines_of_stdin_are_answered_one_by_one(
    capsys: pytest.CaptureFixture[str], bundle: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    stdin(monkeypatch, 'denim dress\n\n  \n\x01\n"red" 👗 \\\n'.encode() + b"\xff\xfe\n" + b"jade")
    status, out, err = run(capsys, "recommend", "-", "--bundle", bundle, "-k", "1", "--json")
    records = [json.loads(line) for line in out.splitlines()]
    assert [(record["text"], record["items"][0]["item_id"]) for record in records] == [
        ("denim dress", "3"),
        ('"red" 👗 \\', "17"),
        ("jade", "9"),
    ]
    assert status == 2
    assert err.splitlines() == [
        "error: line 4: text 0 is empty; say in a few words what is wanted",
        "error: line 6: text 0 is not valid Unicode: lone surrogate at character 0; decode it as UTF-8 first",
    ]


def test_tables_of_stdin_begin_with_their_text(
    capsys: pytest.CaptureFixture[str], bundle: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    stdin(monkeypatch, b"denim \x1b[31mdress\njade\n")
    status, out, _ = run(capsys, "recommend", "-", "--bundle", bundle, "-k", "1")
    first, second = out.strip().split("\n\n")
    assert status == 0
    assert [first.splitlines()[0], second.splitlines()[0]] == ["denim  [31mdress", "jade"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["recommend", " "], "text 0 is empty"),
        (["recommend", "red", "-k", "0"], "k is 0; accepted is a whole number of at least 1"),
        (["recommend", "red", "-k", "201"], "k is 201; accepted is 1 to 200"),
        (["recommend", "red", "-k", "ten"], "argument -k: invalid int value: 'ten'; see bertrec recommend --help"),
        (["recommend", "red", "--engine", "int4"], "no encoder engine 'int4'; it has fp32, int8"),
        (["recommend", "red", "--filter", "red"], "--filter is 'red'; accepted is attribute=value"),
        (["recommend", "red", "--filter", "size=xl"], "the catalogue has ['colour', 'fabric', 'kind', 'price']"),
        (["recommend", "red", "--diversity", "2"], "diversity is 2.0; accepted is a number from 0 to 1"),
        (["recommend", "red", "--popularity", "nan"], "popularity is nan; accepted is a number from 0 to 10"),
        (["recommend", "red", "--rules", "no such file"], "--rules no such file cannot be read"),
        (["recommend", "red", "--timeout-s", "0"], "timeout_s is 0.0"),
        (["recommend", "red", "--url", "ftp://host"], "accepted are grpc://HOST[:PORT]"),
        (["recommend"], "the following arguments are required: TEXT; see bertrec recommend --help"),
        (["recommend", "red", "--nonsense"], "unrecognized arguments: --nonsense"),
        (["suggest", "red"], "invalid choice: 'suggest'"),
    ],
)
def test_bad_input_is_one_line_and_status_2(
    capsys: pytest.CaptureFixture[str], bundle: str, arguments: list[str], message: str
) -> None:
    status, out, err = run(capsys, *arguments, "--bundle", bundle)
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert err.startswith("error: ")
    assert message in err


def test_nobody_to_ask_is_bad_input(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert run(capsys, "recommend", "red")[::2] == (
        *(2, "error: say whom to ask: --url grpc://127.0.0.1:8001 for a server, --bundle FOLDER for this process, or both\n"),
    )
    status, _, err = run(capsys, "recommend", "red", "--bundle", str(tmp_path))
    assert status == 2
    assert "has no manifest.json; a bundle is written by: python -m export build" in err


def test_an_unavailable_server_is_one_line_and_status_1(capsys: pytest.CaptureFixture[str]) -> None:
    url = f"grpc://127.0.0.1:{servers.closed_port()}"
    status, out, err = run(capsys, "recommend", "red", "--url", url)
    assert (status, out, err.count("\n")) == (1, "", 1)
    assert err.startswith(f"error: {url} cannot answer: ")


def test_it_runs_as_a_module_with_any_locale(bundle: str) -> None:
    environment = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = subprocess.run(
        [*COMMAND, "denim 👗 dress", "--bundle", bundle, "--json"],
        cwd=CHECKOUT,
        env=environment,
        capture_output=True,
        timeout=60,
        check=True,
    )
    record = json.loads(done.stdout.decode("utf-8"))
    assert (record["text"], record["items"][0]["item_id"], done.stderr) == ("denim 👗 dress", "3", b"")


def test_help_names_the_program_as_it_was_called(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as leave:
        main(["recommend", "--help"])
    assert leave.value.code == 0
    assert capsys.readouterr().out.startswith("usage: bertrec recommend ")
    done = subprocess.run([*COMMAND, "--help"], cwd=CHECKOUT, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.startswith("usage: python -m client recommend ")


def test_answers_stream_and_ctrl_c_is_quiet(bundle: str) -> None:
    process = subprocess.Popen(
        [*COMMAND, "-", "--bundle", bundle, "--json"],
        cwd=CHECKOUT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=heed_ctrl_c,
    )
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write(b"denim dress\n")
    process.stdin.flush()
    assert json.loads(process.stdout.readline())["items"][0]["item_id"] == "3"  # before the next line is given
    process.send_signal(signal.SIGINT)
    assert process.wait(20) == 130
    assert process.communicate()[1] == b""


def test_a_reader_who_leaves_ends_it_quietly(bundle: str) -> None:
    process = subprocess.Popen(
        [*COMMAND, "-", "--bundle", bundle, "--json"],
        cwd=CHECKOUT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write(b"denim dress\n")
    process.stdin.flush()
    process.stdout.readline()
    process.stdout.close()
    process.stdin.write(b"red\njade\n")
    process.stdin.close()
    assert process.wait(20) == 141
    assert process.stderr is not None
    assert process.stderr.read() == b""
