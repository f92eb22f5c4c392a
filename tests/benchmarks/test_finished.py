"""What was made of a finished run is put on the page of the tools, from the records of the making."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from benchmarks.__main__ import main
from benchmarks.finished import finished_tables, finished_tools
from tests import tiny
from train.fit import fit
from train.heads import train_heads
from train.matcher import MatcherSettings, fit_matcher
from train.run import Run
from train.settings import PRESETS, Preset
from train.students import distil
from train.students.contract import DEFAULTS, STATIC, STUDENT_FILE


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, tiny_backbone: Path) -> Run:
    data = tiny.write_data(tmp_path_factory.mktemp("data") / "checkerboard", per_item=12)
    path = data / "interactions.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    for row in rows:
        liked = "please" in row["text"] or "again" in row["text"]
        row |= {"label": float(liked), "rating": 5.0 if liked else 1.0}
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = dataclasses.replace(PRESETS[Preset.QUICK], backbone=str(tiny_backbone), batch_size=32, max_minutes=None)
    return fit(str(data), settings, tmp_path_factory.mktemp("runs") / "tiny")


def test_students_matcher_and_heads_have_their_lines(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert finished_tools(run)["rows"] == []
    assert finished_tables([finished_tools(run)]) == []
    student = distil(run, dataclasses.replace(DEFAULTS[STATIC], epochs=1, bigrams=10))
    matcher = fit_matcher(run, MatcherSettings(epochs=1, batch_size=32, item_tokens=8, top=5))
    heads = train_heads(run, seed=0)
    found = {row["tool"]: row for row in finished_tools(run)["rows"]}
    assert list(found) == ["static", "matcher", "heads, frozen"]
    assert all(row["parameters"] > 0 and row["peak_memory_mb"] > 50 for row in found.values())
    assert [found[tool]["minutes"] for tool in ("static", "matcher")] == [student.record["minutes"], matcher["minutes"]]
    assert found["heads, frozen"]["minutes"] > 0
    assert f"NDCG@10 {student.record['validation']['ndcg_at_10']:.4f} fused on validation" in found["static"]["gives"]
    assert f"AUC {matcher['test']['recommends']['auc']:.3f}; reranking the top 5 of" in found["matcher"]["gives"]
    assert f"sentiment: accuracy {heads.test['sentiment'].accuracy:.3f}" in found["heads, frozen"]["gives"]
    page = "\n".join(finished_tables([finished_tools(run)]))
    assert "| static | `distil --student static` | NDCG" in page
    assert "| matcher | `matcher --epochs 1` | the item fits: accuracy" in page

    output, target = tmp_path / "tools.json", tmp_path / "transfer.md"
    output.write_text(json.dumps({"settings": {"data": "clothing", "seed": 0}, "rows": []}))
    arguments = ["tools", "--page-only", "--run", str(run.folder), "--output", str(output), "--page", str(target)]
    assert main(arguments) == 0
    assert page in target.read_text()
    kept = json.loads(output.read_text())["finished"]
    assert [[row["tool"] for row in one["rows"]] for one in kept] == [list(found)]

    path = student.folder / STUDENT_FILE
    path.write_text(json.dumps({name: value for name, value in student.record.items() if name != "peak_memory_mb"}))
    older = finished_tables([finished_tools(run)])
    assert older[-3].endswith("| – |")  # an older record does not know
    path.write_text(json.dumps({**student.record, "teacher": "another"}))
    assert main(arguments) == 2
    assert "imitates another encoder" in capsys.readouterr().err
    assert json.loads(output.read_text())["finished"] == kept
