"""Old and new results: what is noise, what is better, and what ends with exit status 1."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from benchmarks.__main__ import main
from benchmarks.compare import compare_results
from benchmarks.measures import READERS
from bertrec.errors import InvalidInput

ORIGIN = {"command": "python -m benchmarks throughput --bundle b", "cpu": "y", "cores": 2}


def result(path: Path, *, cpu: str = "y", command: str = "throughput", **engines: Sequence[int]) -> Path:
    rows = [{"engine": name, "texts": texts, "seconds": 1.0} for name, rates in engines.items() for texts in rates]
    return written(path, command, {"rows": rows}, cpu=cpu)


def written(path: Path, command: str, content: Mapping[str, Any], **origin: Any) -> Path:
    about = {**ORIGIN, "command": f"python -m benchmarks {command}", **origin}
    path.write_text(json.dumps({"provenance": about, **content}))
    return path


def verdicts(folder: Path, command: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, str]:
    files = (written(folder / "old.json", command, old), written(folder / "new.json", command, new))
    return {change.name: change.verdict for change in compare_results(*files).changes}


def test_only_what_is_beyond_noise_is_a_change(tmp_path: Path) -> None:
    old = result(tmp_path / "old.json", fp32=[100, 101, 99, 100], int8=[200, 150, 240], static=[1000, 1001, 1002], gone=[1])
    new = result(tmp_path / "new.json", fp32=[80, 81, 79, 82], int8=[180, 230, 160], static=[1300, 1301, 1302], fresh=[1])
    changes = {change.name: change for change in compare_results(old, new).changes}
    assert {name: change.verdict for name, change in changes.items()} == {
        "fp32, texts/s": "worse",
        "int8, texts/s": "same",
        "static, texts/s": "better",
    }
    assert changes["fp32, texts/s"].ratio == pytest.approx(0.805)
    assert changes["fp32, texts/s"].high < 0.85


def test_a_change_that_is_sure_but_small_is_none(tmp_path: Path) -> None:
    old, new = result(tmp_path / "old.json", fp32=[1000] * 5), result(tmp_path / "new.json", fp32=[960] * 5)
    assert [change.verdict for change in compare_results(old, new).changes] == ["same"]


def test_the_command_ends_with_1_where_something_became_worse(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old, new = result(tmp_path / "old.json", fp32=[100] * 3), result(tmp_path / "new.json", fp32=[70] * 3)
    assert main(["compare", str(old), str(new)]) == 1
    assert main(["compare", str(new), str(old)]) == 0
    printed = capsys.readouterr()
    assert "0.700 (0.700…0.700)" in printed.out + printed.err


def test_what_cannot_be_compared_is_said(tmp_path: Path) -> None:
    old = result(tmp_path / "old.json", fp32=[1])
    with pytest.raises(InvalidInput, match="measure both on one machine"):
        compare_results(old, result(tmp_path / "other.json", cpu="z", fp32=[1]))
    with pytest.raises(InvalidInput, match="no engine or measure in common"):
        compare_results(old, result(tmp_path / "other.json", int8=[1]))
    with pytest.raises(InvalidInput, match="accepted are results of throughput, edge, latency"):
        compare_results(old, result(tmp_path / "other.json", command="quality", fp32=[1]))
    rows = {"rows": [{"engine": "fp32", "texts": 1, "seconds": 1.0}]}
    avx2, vnni = (written(tmp_path / f"{flag}.json", "throughput", rows, cpu_flags=["fma", flag]) for flag in ("avx2", "vnni"))
    with pytest.raises(InvalidInput, match=r"fma avx2.*fma vnni.*measure both on one machine"):
        compare_results(avx2, vnni)
    one, two = (
        written(tmp_path / f"{threads}.json", "throughput", {**rows, "settings": {"seed": 0, "threads": threads}})
        for threads in (1, 2)
    )
    with pytest.raises(InvalidInput, match="different settings: threads 1 and 2; measure both with the same"):
        compare_results(one, two)
    (tmp_path / "broken.json").write_text("{")
    with pytest.raises(InvalidInput, match="is no result of a benchmark"):
        compare_results(old, tmp_path / "broken.json")


def test_what_is_missing_in_the_new_one_is_no_improvement(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    both = [{"engine": name, "texts": 100, "seconds": 1.0} for name in ("fp32", "int8") for _ in range(3)]
    old = written(tmp_path / "old.json", "throughput", {"complete": True, "rows": both, "bundle": "a", "settings": {"seed": 0}})
    new = written(tmp_path / "new.json", "throughput", {"complete": False, "rows": both[:3], "bundle": "b"})
    found = compare_results(old, new)
    assert [change.verdict for change in found.changes] == ["same"]
    assert found.gone == ("int8, texts/s",)
    notes = (f"{new} is not complete", "different bundles: a and b", "only one of the two has the setting seed")
    assert found.notes == notes
    assert main(["compare", str(old), str(new)]) == 1
    printed = capsys.readouterr()
    assert "missing in the new one" in printed.out
    assert all(note in printed.err for note in notes)
    assert main(["compare", str(new), str(old)]) == 0


def load_rows(answers_per_s: float, p99_ms: float | None, *rates: tuple[float, bool]) -> dict[str, Any]:
    server = {"server": "edge", "protocol": "http"}
    opened = [{**server, "loop": "open", "rate": rate, "objective_met": met} for rate, met in rates]
    closed = {**server, "loop": "closed", "clients": 8, "answers_per_s": answers_per_s, "latency_ms": {"p99": p99_ms}}
    return {"rows": [closed, *opened]}


RATE, TAIL = "edge, http, 8 clients, answers/s", "edge, http, 8 clients, p99 ms"
KEPT = "edge, http, rate that keeps the objective, requests/s"


def test_single_windows_must_differ_by_more_than_the_margin(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old = load_rows(100.0, 10.0, (40.0, True), (60.0, False))
    near = verdicts(tmp_path, "load", old, load_rows(100.0 / 1.29, 14.9, (40.0, True), (60.0, False)))
    assert near == {RATE: "same", TAIL: "same", KEPT: "same"}
    far = verdicts(tmp_path, "load", old, load_rows(100.0 / 1.31, 15.1, (40.0, True), (60.0, False)))
    assert far == {RATE: "worse", TAIL: "worse", KEPT: "same"}
    assert main(["compare", str(tmp_path / "old.json"), str(tmp_path / "new.json")]) == 1
    assert "a single window, to 30%" in " ".join(capsys.readouterr().out.split())


def test_the_kept_rate_must_fall_by_more_than_a_step(tmp_path: Path) -> None:
    old = load_rows(1.0, None, (20.0, True), (40.0, True), (60.0, False))
    assert verdicts(tmp_path, "load", old, load_rows(1.0, None, (20.0, True), (40.0, False)))[KEPT] == "same"
    assert verdicts(tmp_path, "load", old, load_rows(1.0, None, (10.0, True), (20.0, False)))[KEPT] == "worse"
    assert verdicts(tmp_path, "load", old, load_rows(1.0, None, (5.0, False)))[KEPT] == "worse"
    assert verdicts(tmp_path, "load", load_rows(1.0, None, (5.0, False)), old)[KEPT] == "better"
    assert verdicts(tmp_path, "load", load_rows(1.0, None, (5.0, False)), load_rows(1.0, None, (5.0, False)))[KEPT] == "same"


def test_the_repeats_of_every_command_are_read() -> None:
    scale = {"items": 1000, "way": "numpy", "queries": 3, "samples_ms": [1, 2, 9, 4, 5, 6]}
    assert READERS["scale"]({"rows": [scale]})["1,000 items, numpy, p50 ms"].values == (2.0, 5.0)
    starts = [{"way": "edge", "engine": "fp32", "seconds": 1.0 + turn, "memory_bytes": 2e6} for turn in range(2)]
    found = READERS["startup"]({"rows": starts})
    assert {name: one.values for name, one in found.items()} == {
        "edge, fp32, first answer, s": (1.0, 2.0),
        "edge, fp32, memory, MB": (2.0, 2.0),
    }
    roofline = READERS["roofline"]({"rows": [{"engine": "fp32", "gflops": 7.0}]})["fp32, GFLOP/s"]
    assert (roofline.values, roofline.higher_is_better) == ((7.0,), True)
    peers = [{"peer": "a", "workload": name, "texts": 8, "total_s": [1.0, 2.0, 4.0]} for name in ("wish", "offline")]
    read = READERS["peers"]({"rows": peers})
    assert {name: (one.values, one.higher_is_better) for name, one in read.items()} == {
        "a, wish, p50 ms": ((2000.0,), False),
        "a, offline, texts/s": ((4.0,), True),
    }


@pytest.mark.parametrize("command", READERS)
def test_a_committed_result_is_the_same_as_itself(command: str) -> None:
    file = Path(__file__).parents[2] / f"benchmarks/results/{command}.json"
    found = compare_results(file, file)
    assert len(found.changes) > 1
    assert {change.verdict for change in found.changes} == {"same"}
    assert (found.gone, found.notes) == ((), ())
