"""The rows of the toolbox: fitted by the switches they name, held against the row without a tool, reused, and put on a page."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from benchmarks.__main__ import main
from benchmarks.tools import BASE, QUERIES, TOOLS, ToolSettings, measure_tools, tools_page
from bertrec.errors import InvalidInput
from tests import tiny

ROOT = Path(__file__).parents[2]


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
    assert [row["source_commit"] for row in content["rows"]] == 3 * [record["source_commit"]]
    assert f"cores; fitted at {record['source_commit'][:10]}.\n" in page
    assert f"{typos['asked']['fused']['as-written']['first']:.4f} (" in page
    assert base["cpu_minutes"] > 0
    assert typos["asked"]["text alone"].keys() == set(QUERIES)
    assert lora["asked"]["text alone"].keys() == {"as-written"}
    assert measure_tools(settings, tmp_path / "again.json")["rows"] == content["rows"]


def test_an_unknown_tool_is_refused() -> None:
    with pytest.raises(InvalidInput, match="tools names 'magic'; accepted are none, fp32"):
        ToolSettings(tools=("magic",))
    assert BASE in TOOLS


def row_of(tool: str, fused: float, alone: dict[str, float], commit: str | None = None) -> dict[str, Any]:
    """A row against a base of 0.4 fused and 0.32 by the text alone."""

    def asked(first: float, second: float) -> dict[str, Any]:
        return {"first": first, "second": second, "difference": {"value": first - second, "low": -1.0, "high": 1.0}}

    return {
        "tool": tool,
        "switches": list(TOOLS[tool]),
        "cpu_minutes": 5.0,
        "cost": {"trained_parameters": 1_000, "peak_memory_mb": 2_000.0},
        "asked": {
            "fused": {"as-written": asked(fused, 0.4)},
            "text alone": {kind: asked(value, 0.32) for kind, value in alone.items()},
        },
    } | ({"source_commit": commit} if commit else {})


def page_of(*rows: dict[str, Any]) -> str:
    provenance = {"measured": "2026-01-02T03:04:05", "commit": 40 * "f", "cpu": "a CPU", "cores": 2}
    return tools_page({"provenance": provenance, "settings": {"data": "clothing", "seed": 3}, "rows": list(rows)})


def test_the_page_says_what_an_attack_takes_what_lora_keeps_and_how_a_row_is_made_again() -> None:
    base = row_of(BASE, 0.4, {"as-written": 0.32, "typos": 0.24}, commit=40 * "a")
    page = page_of(base, row_of("lora", 0.391, {"as-written": 0.28}, commit=40 * "b"))
    assert "| none |  | 0.4000 | 0.3200 | 0.2400; -25.0% | – | – | 5.0 | 1,000 | 2,000 |" in page
    assert "LoRA keeps 97.8% of full fine-tuning's NDCG@10 fused (wanted 98%: missed) and 87.5% by the text alone." in page
    assert "fused (wanted 98%: reached)" in page_of(base, row_of("lora", 0.393, {"as-written": 0.28}))
    assert "LoRA keeps" not in page_of(base)
    assert "python -m train fit --data clothing --seed 3 --preset quick --max-minutes 1440 --precision auto SWITCHES" in page
    assert f"2 cores; fitted at {10 * 'a'}, {10 * 'b'}." in page
    assert "cores; its rows were fitted at commits that the results do not name yet." in page_of(
        row_of(BASE, 0.4, {"as-written": 0.3})
    )


def test_a_page_is_written_anew_without_measuring(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results, page = tmp_path / "tools.json", tmp_path / "transfer.md"
    arguments = ["tools", "--page-only", "--output", str(results), "--page", str(page)]
    assert main(arguments) == 2
    assert "holds no rows of tools" in capsys.readouterr().err
    shutil.copy(ROOT / "benchmarks/results/tools.json", results)
    assert main(arguments) == 0
    assert page.read_text() == (ROOT / "docs/transfer.md").read_text()
