"""perf_analyzer beside our own generator: what each is asked, how its report is read, and what is said where it is missing.

The program itself is no part of the environment. Where it is on the PATH it drives a real server here; everywhere, a script that
takes the same options and writes the same report stands in for it.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks.__main__ import main
from benchmarks.perf_analyzer import PROGRAM, ComparisonSettings, agreement
from bertrec.errors import InvalidInput

STAND_IN = """#!{python}
import json, pathlib, sys
if sys.argv[1:] == ["--version"]:
    sys.exit("Perf Analyzer Version 0.0 (a stand-in)")
given = dict(zip(sys.argv[1::2], sys.argv[2::2]))
data = json.loads(pathlib.Path(given["--input-data"]).read_text())["data"]
assert data and all(set(one) == {{"TEXT", "OPTIONS"}} for one in data), data
pathlib.Path({seen!r}).write_text(json.dumps([given, data]))
clients = given["--concurrency-range"]
pathlib.Path(given["-f"]).write_text(
    "Concurrency,Inferences/Second,Client Send,p50 latency,p90 latency\\n" + clients + ",123.5,5,4567,9999\\n"
)
"""


def compare(folder: Path, bundle: Path, *more: str) -> int:
    texts = folder / "texts.txt"
    texts.write_text("a green gown\nred\n")
    short = ["--rounds", "2", "--seconds", "0.6", "--warm-up-s", "0.1", "--texts", str(texts)]
    return main(["perf-analyzer", "--bundle", str(bundle), "--output", str(folder / "found.json"), *short, *more])


def test_both_generators_drive_one_server_in_turns(tiny_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    program, seen = tmp_path / PROGRAM, tmp_path / "seen.json"
    program.write_text(STAND_IN.format(python=sys.executable, seen=str(seen)))
    program.chmod(0o755)
    assert compare(tmp_path, tiny_bundle, "--binary", str(program), "--clients", "1,3") == 0
    written: dict[str, Any] = json.loads((tmp_path / "found.json").read_text())
    assert written["complete"]
    assert {row["engine"] for row in written["rows"]} == {"fp32"}
    order = [(row["clients"], row["round"], row["generator"]) for row in written["rows"]]
    one = [(0, "bertrec"), (0, PROGRAM), (1, PROGRAM), (1, "bertrec")]
    assert order == [(clients, *turn) for clients in (1, 3) for turn in one]
    theirs = [row for row in written["rows"] if row["generator"] == PROGRAM]
    assert {(row["answers_per_s"], row["p50_ms"]) for row in theirs} == {(123.5, 4.567)}
    given, data = json.loads(seen.read_text())
    assert (given["-m"], given["-i"], given["--concurrency-range"], given["-p"]) == ("recommend", "grpc", "3", "200")
    assert sorted(one["TEXT"][0] for one in data) == ["a green gown", "red"]
    assert [(one["clients"], one["measure"]) for one in written["agreement"]] == [
        (clients, measure) for clients in (1, 3) for measure in ("p50_ms", "answers_per_s")
    ]
    assert "within 10%" in capsys.readouterr().out


@pytest.mark.skipif(shutil.which(PROGRAM) is None, reason="perf_analyzer is not installed (docs/benchmarks.md)")
def test_the_real_program_is_asked_for_what_ours_is(tiny_bundle: Path, tmp_path: Path) -> None:
    assert compare(tmp_path, tiny_bundle, "--clients", "2", "--seconds", "3") == 0
    rows = json.loads((tmp_path / "found.json").read_text())["rows"]
    assert all(row["answers_per_s"] > 1 and 0.1 < row["p50_ms"] < 5_000 for row in rows)


def test_where_it_is_not_installed_it_says_how_to_get_it(
    tiny_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert compare(tmp_path, tiny_bundle, "--binary", str(tmp_path / "none")) == 2
    said = capsys.readouterr().err
    assert f"{PROGRAM} is not installed: no program at {tmp_path / 'none'}; get it from" in said
    assert "pip install --no-deps --target tools tritonclient==2.46.0" in said


def test_a_program_that_does_not_start_says_why(tiny_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    broken = tmp_path / "broken"
    broken.write_text("#!/bin/sh\necho 'version GLIBC_2.38 not found' >&2\nexit 1\n")
    broken.chmod(0o755)
    assert compare(tmp_path, tiny_bundle, "--binary", str(broken)) == 2
    assert "broken does not start: version GLIBC_2.38 not found; get it from" in capsys.readouterr().err


def test_they_agree_where_the_median_ratio_is_within_a_tenth() -> None:
    rows = [
        {"engine": "fp32", "generator": generator, "clients": 4, "round": turn, "p50_ms": p50_ms, "answers_per_s": rate}
        for generator, figures in (("bertrec", [(10, 95), (11, 80), (30, 70)]), (PROGRAM, [(10, 100), (10, 100), (10, 100)]))
        for turn, (p50_ms, rate) in enumerate(figures)
    ]
    p50, rate = agreement(rows)
    assert not rate["agree"]
    assert p50["ratio"] == pytest.approx(1.1)
    assert p50["range"] == pytest.approx([1.0, 3.0])
    assert (rate["ratio"], rate["agree"]) == (pytest.approx(0.8), False)
    assert (rate["ours"], rate["theirs"]) == (80, 100)
    assert agreement(rows[:-1])[0]["ratio"] == pytest.approx(1.05)  # of the rounds that both have


@pytest.mark.parametrize("given", [{"clients": ()}, {"clients": (0,)}, {"rounds": 0}, {"seconds": 0.0}, {"texts": 0}])
def test_settings_that_measure_nothing_are_refused(given: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput, match=f"{next(iter(given))} is .*accepted"):
        ComparisonSettings(**given)
