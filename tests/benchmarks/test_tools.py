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
    assert f"cores; fitted at {record['source_commit'][:10]}:\n" in page
    assert f"{typos['asked']['fused']['as-written']['first']:.4f} (" in page
    assert base["cpu_minutes"] > 0
    assert typos["asked"]["text alone"].keys() == set(QUERIES)
    assert lora["asked"]["text alone"].keys() == {"as-written"}
    again = measure_tools(settings, tmp_path / "again.json")["rows"]
    assert [{**row, "measured": ""} for row in again] == [{**row, "measured": ""} for row in content["rows"]]


def test_rows_that_are_not_measured_again_stay_beside_the_row_that_they_were_held_against(
    tmp_path: Path, tiny_backbone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = tiny.write_data(tmp_path / "checkerboard", per_item=12)
    monkeypatch.setattr("benchmarks.tools.FIT", ("--backbone", str(tiny_backbone)))
    output = tmp_path / "tools.json"
    lost = {**row_of(BASE, 0.4, {"as-written": 0.32}), "base": "older"}  # of which no other row is left
    swap, fgm = (row_of(tool, 0.39, {"as-written": 0.31}) for tool in ("swap", "fgm"))
    earlier = [lost, row_of(BASE, 0.4, {"as-written": 0.32}), swap, fgm]
    output.write_text(json.dumps({"settings": {"data": str(data), "seed": 0}, "rows": earlier}))
    content = measure_tools(ToolSettings(str(data), tools=("swap",), runs=tmp_path / "runs"), output)
    assert [(row["tool"], row["base"] == "earlier") for row in content["rows"]] == [
        (BASE, True),
        ("fgm", True),
        (BASE, False),
        ("swap", False),
    ]
    assert content["rows"][1] == fgm
    page = tools_page(content)
    assert page.index("| fgm |") < page.index("| swap |")
    assert page.count("| none |  |") == 2
    other = measure_tools(ToolSettings(str(data), seed=1, tools=("none",), runs=tmp_path / "runs"), output)
    assert [row["tool"] for row in other["rows"]] == [BASE]  # another seed is another table


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
        "base": "earlier",
        "machine": {"cpu": "a CPU", "cpu_flags": ["avx2"], "cores": 2},
        "measured": "2026-01-02T03:04:05",
        "cpu_minutes": 5.0,
        "cost": {"trained_parameters": 1_000, "peak_memory_mb": 2_000.0},
        "asked": {
            "fused": {"as-written": asked(fused, 0.4)},
            "text alone": {kind: asked(value, 0.32) for kind, value in alone.items()},
        },
    } | ({"source_commit": commit} if commit else {})


def page_of(*rows: dict[str, Any]) -> str:
    return tools_page({"settings": {"data": "clothing", "seed": 3}, "rows": list(rows)})


def test_the_page_says_what_an_attack_takes_what_lora_keeps_and_how_a_row_is_made_again() -> None:
    base = row_of(BASE, 0.4, {"as-written": 0.32, "typos": 0.24}, commit=40 * "a")
    page = page_of(base, row_of("lora", 0.391, {"as-written": 0.28}, commit=40 * "b"))
    assert "| none |  | 0.4000 | 0.3200 | 0.2400; -25.0% | – | – | 5.0 | 1,000 | 2,000 |" in page
    assert "LoRA keeps 97.8% of full fine-tuning's NDCG@10 fused (wanted 98%: missed) and 87.5% by the text alone." in page
    assert "fused (wanted 98%: reached)" in page_of(base, row_of("lora", 0.393, {"as-written": 0.28}))
    assert "LoRA keeps" not in page_of(base)
    assert "python -m train fit --data clothing --seed 3 --preset quick --max-minutes 1440 --precision auto SWITCHES" in page
    assert f"Measured 2026-01-02 on a CPU (avx2), 2 cores; fitted at {10 * 'a'}, {10 * 'b'}:" in page
    assert "cores; its rows were fitted at commits that the results do not name yet:" in page_of(
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
