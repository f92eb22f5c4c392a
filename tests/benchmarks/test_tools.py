"""The rows of the toolbox: fitted by the switches they name, held against the row without a tool, reused, and put on a page."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.tools import BASE, QUERIES, TOOLS, ToolSettings, measure_tools, tools_page
from bertrec.errors import InvalidInput
from tests import tiny


def test_a_row_is_a_fit_with_the_switches_that_it_names(
    tmp_path: Path, tiny_backbone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = tiny.write_data(tmp_path / "checkerboard", per_item=12)
    monkeypatch.setattr("benchmarks.tools.FIT", ("--backbone", str(tiny_backbone)))
    settings = ToolSettings(str(data), tools=("typos", "lora"), runs=tmp_path / "runs")
    content = measure_tools(settings, tmp_path / "tools.json")
    assert json.loads((tmp_path / "tools.json").read_text())["rows"] == json.loads(json.dumps(content["rows"]))
    assert [row["tool"] for row in content["rows"]] == [BASE, "typos", "lora"]
    base, typos, lora = content["rows"]
    assert base["asked"]["fused"]["as-written"]["difference"]["value"] == 0.0
    record = json.loads((settings.folder("typos") / "run.json").read_text())
    assert record["settings"]["augmentation"]["methods"] == ["typos"]
    assert lora["cost"]["method"] == "lora"
    assert 0 < lora["cost"]["trained_parameters"] < base["cost"]["trained_parameters"]
    page = tools_page(content)
    assert "| lora | `--tuning lora` |" in page
    assert f"{typos['asked']['fused']['as-written']['first']:.4f} (" in page
    assert base["cpu_minutes"] > 0
    assert typos["asked"]["text alone"].keys() == set(QUERIES)
    assert lora["asked"]["text alone"].keys() == {"as-written"}
    assert measure_tools(settings, tmp_path / "again.json")["rows"] == content["rows"]


def test_an_unknown_tool_is_refused() -> None:
    with pytest.raises(InvalidInput, match="tools names 'magic'; accepted are none, fp32"):
        ToolSettings(tools=("magic",))
    assert BASE in TOOLS
