"""Two evaluated runs are compared query by query, if they were asked the same."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bertrec.errors import InvalidInput, InvalidRun
from train.__main__ import main
from train.bootstrap import Estimate
from train.compare import compare
from train.records import write_json
from train.report import Evaluation, Group, write_evaluation
from train.run import SCHEMA_VERSION, Run

BETTER, WORSE = np.asarray([1, 1, 2, 1, 0, 3] * 30), np.asarray([1, 2, 3, 1, 0, 12] * 30)
Write = Callable[..., Run]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Makes a finished run whose evaluation knows the ranks of one ranker."""

    def write(name: str, ranks: np.ndarray[Any, Any], *, data: str = "d1", seed: int = 0, first_row: int = 0) -> Run:
        about = {"schema_version": SCHEMA_VERSION, "created": name, "finished": True}
        record = {**about, "data": {"fingerprint": data}, "settings": {"seed": seed}}
        run = Run(tmp_path / name, record)
        run.folder.mkdir()
        write_json(run.folder / "run.json", record)
        evaluation = Evaluation("test", seed, 20, None, {}, {"as-written": Group(len(ranks), {})}, {}, {})
        rows = np.arange(len(ranks)) + first_row
        write_evaluation(run, evaluation, {"as-written/rows": rows, "as-written/fused/ranks": ranks.astype(np.uint8)})
        return run

    return write


def test_the_mean_difference_and_its_sign(write: Write) -> None:
    (found,) = compare(write("a", BETTER), write("b", WORSE), metric="recall_at_10")
    assert (found.kind, found.queries) == ("as-written", 180)
    assert found.first == pytest.approx(5 / 6)
    assert found.second == pytest.approx(4 / 6)
    assert found.difference.value == pytest.approx(1 / 6)
    assert found.difference.excludes_zero and found.difference.low is not None and found.difference.low > 0
    (other,) = compare(write("c", WORSE), write("d", BETTER), metric="recall_at_10")
    assert other.difference.value == pytest.approx(-1 / 6)


def test_a_run_differs_from_itself_by_nothing(write: Write) -> None:
    run = write("a", BETTER)
    (found,) = compare(run, run)
    assert found.difference == Estimate(0.0, 0.0, 0.0)


def test_what_is_not_the_same_is_not_compared(write: Write) -> None:
    run = write("a", BETTER)
    with pytest.raises(InvalidRun, match=r"differ in the data \(d1 and d2\)"):
        compare(run, write("b", BETTER, data="d2"))
    with pytest.raises(InvalidRun, match="differ in the seed of the split"):
        compare(run, write("c", BETTER, seed=1))
    with pytest.raises(InvalidRun, match="asked different as-written queries"):
        compare(run, write("d", BETTER, first_row=1))
    with pytest.raises(InvalidInput, match="metric is 'clicks'; accepted are recall_at_1"):
        compare(run, run, metric="clicks")
    with pytest.raises(InvalidInput, match="no ranker 'magic'; there are fused"):
        compare(run, run, ranker="magic")
    with pytest.raises(InvalidInput, match="no class_at_1 of 'fused'"):
        compare(run, run, metric="class_at_1")
    with pytest.raises(InvalidRun, match="is not evaluated; do it by: python -m train evaluate --run"):
        compare(dataclasses.replace(run, record={**run.record, "created": "later"}), run)


def test_the_command_line(write: Write, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = str(write("a", BETTER).folder), str(write("b", WORSE).folder)
    assert main(["compare", "--run", first, "--with", second, "--metric", "recall_at_10"]) == 0
    printed = capsys.readouterr().out
    assert "0.833" in printed and "0.667" in printed
    assert "0.167 (0." in printed and ") *" in printed
    assert main(["compare", "--run", first, "--with", str(write("c", WORSE, seed=1).folder)]) == 2
    assert "compare runs of the same data and seed" in capsys.readouterr().err
