"""The scenarios count what they should: known right answers, typed errors, what comes after the fault."""

from __future__ import annotations

import json
import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import pytest

from benchmarks.__main__ import main
from benchmarks.faults import FaultSettings, Outcome, faults_page, measure_faults, network, scenarios, servers, starved
from benchmarks.faults.asking import Asker, Known
from benchmarks.faults.outcome import lateness, outcome_of, row_of
from benchmarks.faults.processes import Confined
from benchmarks.faults.proxy import Proxy
from benchmarks.faults.stage import Stage
from benchmarks.machine import provenance
from client import Recommender, ServedBy
from serving.triton import TritonServer
from tests.benchmarks.interrupting import interrupted
from tests.client.fakes import FakeBackend
from tests.serving.processes import wait_until


@pytest.fixture(scope="module")
def known(tiny_bundle: Path) -> Known:
    return Known(tiny_bundle)


def test_an_answer_is_right_by_items_scores_and_bundle(known: Known, tiny_bundle: Path) -> None:
    text, other = known.texts[:2]
    with Recommender(bundle=tiny_bundle, threads=1) as recommender:
        answer, foreign = recommender.recommend(text, k=5), recommender.recommend(other, k=5)
    first, *rest = answer.items
    assert known.is_right(text, answer)
    assert known.is_right(text, replace(answer, items=(replace(first, score=first.score + 0.01), *rest)))
    for wrong in (
        foreign,
        replace(answer, items=answer.items[:4]),
        replace(answer, items=(replace(first, score=first.score + 0.1), *rest)),
        replace(answer, items=(replace(first, item_id=rest[-1].item_id), *rest)),
        replace(answer, items=tuple(reversed(answer.items))),
        replace(answer, bundle="another"),
    ):
        assert not known.is_right(text, wrong)


def test_connections_cut_and_refused_are_counted_as_typed_errors_and_served_afterwards(
    known: Known, triton: TritonServer
) -> None:
    with Proxy(triton.ports.grpc) as proxy, Recommender(f"grpc://127.0.0.1:{proxy.port}") as recommender:
        asker = Asker(recommender, known, timeout_s=1.0)
        assert asker.wait_for(ServedBy.TRITON, within_s=10) is not None
        before = asker.count.calls
        proxy.cut_after = 20
        proxy.drop()
        assert asker.ask() is None
        proxy.cut_after, proxy.refuses = None, True
        proxy.drop()
        ends_s, failed = time.monotonic() + 15, 1
        while not proxy.refusals:  # gRPC itself waits before it connects again
            assert asker.ask() is None
            failed += 1
            assert time.monotonic() < ends_s, "nobody connected"
        assert proxy.cuts
        assert sum(asker.count.refused.values()) == failed
        assert set(asker.count.refused) <= {"Transient", "DeadlineExceeded", "Unavailable"}
        proxy.refuses = False
        assert asker.wait_for(ServedBy.TRITON, within_s=10) is not None
        assert (asker.count.wrong, asker.count.untyped) == (0, 0)
        assert asker.count.calls > before + failed


def test_twice_the_capacity_gets_answers_or_typed_errors(tiny_bundle: Path) -> None:
    settings = FaultSettings(only=["overload"], overload_s=1.5, many_clients=16)
    (outcome,) = measure_faults(tiny_bundle, settings)
    assert (outcome.wrong, outcome.untyped, outcome.next_by, outcome.broken) == (0, 0, "triton", ())
    assert outcome.calls > 16
    assert outcome.lost == 0
    said = re.match(
        r"capacity (\d+) calls/s \(4 clients .*; then (\d+) calls/s for 1.5 s.*\(due were (\d+), 2 times", outcome.what
    )
    assert said is not None
    capacity, reached, due = map(int, said.groups())
    assert abs(due - 2 * capacity) <= 1
    assert reached > 0


def test_calls_arrive_at_a_rate_though_none_has_ended(known: Known) -> None:
    slow, release = FakeBackend(), threading.Event()
    slow.meanwhile = lambda: None if release.wait(30) else None
    with Recommender(server=slow) as recommender:
        asker, began = Asker(recommender, known, timeout_s=30.0), time.monotonic()
        with asker.arriving(40.0, most=16):
            wait_until(lambda: len(slow.asked) == 16, 20)
            assert time.monotonic() - began >= 15 / 40
            assert asker.count.calls == 0
            release.set()


@pytest.mark.parametrize("name", ["disk", "shared-memory", "clock", "restarted", "connections"])
def test_each_fault_is_met_and_nothing_is_wrong_or_lost(tiny_bundle: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for module, setting in ((network, "PHASE_S"), (servers, "LOAD_S"), (starved, "LOAD_S")):
        monkeypatch.setattr(module, setting, 0.5)
    (outcome,) = measure_faults(tiny_bundle, FaultSettings(only=[name], clients=2))
    if outcome.skipped:
        pytest.skip(outcome.skipped)
    assert (outcome.wrong, outcome.untyped, outcome.lost, outcome.broken) == (0, 0, 0, ())
    assert outcome.calls > 2
    assert outcome.next_by in ("triton", "edge")
    assert (outcome.by_edge > 0) is (name in ("clock", "restarted", "connections"))


class Undisturbed(Stage):
    """Its servers cannot be killed, stopped or starved."""

    @contextmanager
    def asking(self, *urls: str, **_: Any) -> Iterator[Asker]:
        with Recommender(server=FakeBackend(), fallback=FakeBackend("edge")) as recommender:
            yield Asker(recommender, self.known, timeout_s=1.0)

    def server(self, repository: Path | None = None) -> Any:
        server = MagicMock()
        server.__enter__.return_value = server.start.return_value = server
        return server

    def again(self, server: Any) -> Any:
        return self.server()


@pytest.fixture
def undisturbed(known: Known, tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stage:
    for name in ("os", "stub_of", "Watch", "ModelControl"):
        monkeypatch.setattr(servers, name, MagicMock())
    for name in ("LOAD_S", "WATCH_S", "HANG_S"):
        monkeypatch.setattr(servers, name, 0.01)
    sizes = {"calls": 1, "clients": 2, "many_clients": 4}
    return Undisturbed(tiny_bundle, tmp_path, known, tmp_path, steady_s=1, overload_s=1, timeout_s=1, **sizes)


@pytest.mark.parametrize(
    ("scenario", "said"),
    [
        (servers.killed, "every call had ended when the server was killed"),
        (servers.stopped, "the edge answered no call meanwhile"),
        (servers.frozen, "the edge answered no call meanwhile"),
        (servers.restarted, "no call met the fault"),
        (servers.stub, "no call met the fault"),
    ],
)
def test_a_fault_that_was_not_met_is_said(undisturbed: Stage, scenario: Callable[[Stage], Outcome], said: str) -> None:
    assert scenario(undisturbed).broken == (f"{said}, so this shows nothing",)


@pytest.mark.parametrize(
    ("error", "said"),
    [(None, "4096 bytes were free, so this shows nothing"), (OSError("no"), "nothing was filled, so this shows nothing: no")],
)
def test_what_was_not_filled_is_said(
    undisturbed: Stage, monkeypatch: pytest.MonkeyPatch, error: OSError | None, said: str
) -> None:
    server = MagicMock(url="grpc://", free_bytes=lambda folder: 4096, fill=MagicMock(side_effect=error))
    monkeypatch.setattr(starved, "confined", lambda *_, **__: nullcontext(server))
    monkeypatch.setattr(starved, "why_no_mounts", lambda: None)
    monkeypatch.setattr(starved, "LOAD_S", 0.01)
    assert starved.disk(undisturbed).broken == (said,)


def test_only_a_full_disk_counts_as_filled(tmp_path: Path) -> None:
    program = Confined(MagicMock(pid=os.getpid()), tmp_path, tmp_path, "", "")
    with pytest.raises(FileNotFoundError):
        program.fill(tmp_path / "absent")


def test_the_command_writes_the_result_and_the_page(tiny_bundle: Path, tmp_path: Path) -> None:
    output, page = tmp_path / "results/faults.json", tmp_path / "docs/faults.md"
    given = ["--bundle", str(tiny_bundle), "--only", "flipped", "--output", str(output), "--page", str(page)]
    assert main(["faults", *given]) == 0
    (scenario,) = json.loads(output.read_text())["scenarios"]
    assert scenario["refused"] == {"InvalidBundle": scenario["calls"]}
    assert scenario["calls"] == 2 * sum(path.is_file() for path in tiny_bundle.rglob("*"))
    assert scenario["complaints"] == []
    assert f"| flipped | {scenario['calls']} | 0 | 0 | no fallback |" in page.read_text()
    content = json.loads(output.read_text())
    content["scenarios"].insert(0, {**scenario, "name": "killed", "command": "an earlier one"})
    output.write_text(json.dumps(content))
    assert main(["faults", *given]) == 0
    assert [row["name"] for row in json.loads(output.read_text())["scenarios"]] == ["killed", "flipped"]
    assert "Written by `an earlier one`" in page.read_text()
    output.write_text(json.dumps({**content, "bundle": "another"}))
    assert main(["faults", *given]) == 0
    assert [row["name"] for row in json.loads(output.read_text())["scenarios"]] == ["flipped"]


def test_an_interrupted_command_keeps_its_scenarios_and_those_of_before(
    tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output, page = tmp_path / "faults.json", tmp_path / "faults.md"
    given = ["faults", "--bundle", str(tiny_bundle), "--output", str(output), "--page", str(page)]
    content, printed = interrupted([*given, "--only", "flipped,steady", "--minutes", "60"], output, "scenarios")
    (flipped,) = content["scenarios"]
    assert (flipped["name"], flipped["refused"]) == ("flipped", {"InvalidBundle": flipped["calls"]})
    assert "flipped" in printed
    assert not page.exists()
    output.write_text(json.dumps({**content, "scenarios": [{**flipped, "name": "killed", "command": "an earlier one"}]}))
    content, _ = interrupted([*given, "--only", "flipped,steady", "--minutes", "60"], output, "scenarios", least=2)
    assert [row["name"] for row in content["scenarios"]] == ["killed", "flipped"]
    assert [row["command"] == "an earlier one" for row in content["scenarios"]] == [True, False]
    before = output.read_bytes()
    monkeypatch.setitem(scenarios.SCENARIOS, "stub", MagicMock(side_effect=KeyboardInterrupt))
    assert main([*given, "--only", "stub"]) == 130
    assert output.read_bytes() == before


def test_what_is_not_as_it_should_be_is_said() -> None:
    assert [lateness(one) for one in (None, -4381.1, 0.0, 32.6)] == ["–", "within", "within", "+33 ms"]
    bad = Outcome("killed", "kill -9", calls=9, wrong=1, untyped=2, refused={"Transient": 3}, late_ms=60.0, broken=("it leaks",))
    said = "1 wrong answers; 2 untyped errors; 3 lost calls; the next call was not answered; "
    said += "p99.9 is 60 ms beyond the deadline, accepted are 50; it leaks"
    assert "; ".join(bad.complaints) == said
    skipped = Outcome("disk", "the disk is full", skipped="mounting is not allowed")
    assert skipped.complaints == []
    assert replace(bad, with_fallback=False).lost == 0
    rows = [row_of(one, command="python -m …", commit="f" * 40) for one in (bad, skipped)]
    assert [outcome_of(row) for row in rows] == [bad, skipped]
    page = faults_page({"provenance": asdict(provenance()), "bundle": "0123456789abcdef", "scenarios": rows})
    assert f"**Not as it should be: {said}.**" in page
    assert "- **disk**: the disk is full. Skipped: mounting is not allowed." in page


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--only", "killed,fire"], "there is no scenario fire; accepted are killed, stopped"),
        (["--minutes", "0"], "minutes is 0.0; accepted is a number above 0"),
    ],
)
def test_what_cannot_be_run_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], given: list[str], message: str
) -> None:
    assert main(["faults", "--bundle", str(tmp_path), "--output", str(tmp_path / "faults.json"), *given]) == 2
    assert message in capsys.readouterr().err
