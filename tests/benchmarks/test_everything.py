"""One command runs them all: within half an hour, on from where it was interrupted, and each with what it found."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks import children
from benchmarks.__main__ import main
from benchmarks.children import STOP_S
from benchmarks.everything import FAILED, FINISHED, KEPT, SHARES, SHORT, Ran, Share, is_finished, run_all
from bertrec.bundle import Bundle
from train import records

KILLED, DEAF = "kill -9 $$", "trap '' INT\nwhile :; do sleep 0.1; done"
"""What memory that runs out does to a command, and one that does not heed Ctrl-C."""


def test_the_shares_are_half_an_hour() -> None:
    assert sum(share.minutes for share in SHARES) <= 30.0
    assert len({share.name for share in SHARES}) == len(SHARES) == 7
    page = (Path(__file__).parents[2] / "docs/benchmarks.md").read_text(encoding="utf-8")
    for share in SHARES:
        said = " ".join(share.arguments)
        assert f"| `{share.name}` | {share.minutes:g} | {f'`{said}`' if said else 'as by default'} |" in page


def test_what_is_finished_is_not_measured_again(tiny_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["all", "--bundle", str(tiny_bundle), "--output", str(tmp_path), "--short", "--only"]
    assert main([*arguments, "edge"]) == 0
    assert FINISHED in capsys.readouterr().out
    file = tmp_path / "edge.json"
    first = file.read_bytes()
    written = json.loads(first)
    assert (written["complete"], len(written["runs"])) == (True, 2)
    assert written["provenance"]["command"].startswith(f"python -m benchmarks edge --bundle {tiny_bundle}")
    assert main([*arguments, "edge"]) == 0
    assert file.read_bytes() == first
    assert KEPT in capsys.readouterr().out


def test_only_the_whole_result_of_the_same_command_bundle_and_commit_is_finished(tiny_bundle: Path, tmp_path: Path) -> None:
    share = next(share for share in SHARES if share.name == "throughput")
    file, command = tmp_path / "throughput.json", share.command(tiny_bundle, tmp_path, short=True)
    bundle = Bundle.open(tiny_bundle).fingerprint
    assert not is_finished(file, command, bundle)
    assert main(command) == 0
    content = json.loads(file.read_text())
    content["provenance"]["command"] = " ".join(["python", "-m", "benchmarks", *command])  # the test's own is pytest
    file.write_text(json.dumps(content))
    assert is_finished(file, command, bundle)
    assert not is_finished(file, command, "another bundle")
    assert not is_finished(file, [*command, "--rounds", "2"], bundle)
    origin = content["provenance"]
    others = ({"commit": "another"}, {"uncommitted": "other changes"})
    wrongs: list[dict[str, Any]] = [{"complete": False}, *({"provenance": {**origin, **other}} for other in others)]
    for wrong in wrongs:
        file.write_text(json.dumps({**content, **wrong}))
        assert not is_finished(file, command, bundle)
    file.write_text(json.dumps(content)[:100])
    assert not is_finished(file, command, bundle)


def test_a_command_beyond_its_share_is_interrupted(tiny_bundle: Path, tmp_path: Path) -> None:
    ran: list[Ran] = []
    run_all(tiny_bundle, tmp_path, ran, only=[Share("edge", 0.02, ("--repetitions", "1000"), ())])
    assert [one.verdict for one in ran] == [SHORT]
    assert ran[0].minutes >= 0.02


def test_a_job_in_the_background_interrupts_too(tiny_bundle: Path, tmp_path: Path) -> None:
    ran: list[Ran] = []
    outside = signal.signal(signal.SIGINT, signal.SIG_IGN)  # as shells start such jobs
    try:
        run_all(tiny_bundle, tmp_path, ran, only=[Share("latency", 0.02, ("--rounds", "1000000"), ())])
    finally:
        signal.signal(signal.SIGINT, outside)
    assert [one.verdict for one in ran] == [SHORT]
    assert 60 * ran[0].minutes < STOP_S  # it stopped by itself, and was not killed in the end


def test_what_is_killed_by_others_has_failed_and_what_must_be_killed_was_interrupted(
    tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[Ran] = []
    monkeypatch.setattr(children, "STOP_S", 0.5)
    for number, program in enumerate((KILLED, DEAF)):
        python = tmp_path / f"python-{number}"
        python.write_text(f"#!/bin/sh\n{program}\n")
        python.chmod(0o755)
        monkeypatch.setattr(sys, "executable", str(python))
        run_all(tiny_bundle, tmp_path, ran, only=[Share("edge", 0.02, (), ())])
    assert [one.verdict for one in ran] == [FAILED, SHORT]


def test_changes_to_the_code_are_told_apart_and_those_to_pages_and_results_are_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(records, "ROOT", tmp_path)
    assert (records.source_commit(), records.source_changes()) == ("unknown", "")
    (tmp_path / "train").mkdir()
    code, page = tmp_path / "train" / "some.py", tmp_path / "page.md"
    code.write_text("a = 1\n")
    for command in (["init", "-q"], ["add", "."], ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "first"]):
        subprocess.run(["git", "-C", str(tmp_path), *command], check=True)
    page.write_text("figures\n")
    assert (len(records.source_commit()), records.source_changes()) == (40, "")
    found = []
    for text in ("a = 2\n", "a = 3\n"):
        code.write_text(text)
        found.append(records.source_changes())
    code.write_text("a = 1\n")
    assert records.source_changes() == ""
    for text in ("b = 1\n", "b = 2\n"):
        (tmp_path / "new.py").write_text(text)
        found.append(records.source_changes())
    assert len(set(found)) == 4
    assert all(len(digest) == 12 for digest in found)


def test_what_cannot_be_run_is_said(tiny_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["all", "--bundle", str(tiny_bundle), "--output", str(tmp_path), "--only", "peers"]) == 2
    assert "--only names peers; accepted are roofline, latency" in capsys.readouterr().err
    assert main(["all", "--bundle", str(tmp_path), "--output", str(tmp_path)]) == 2
    assert "has no manifest.json" in capsys.readouterr().err
