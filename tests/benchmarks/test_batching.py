"""Settings of Triton's batcher beside the repository as it is: real servers, edited configurations, what follows of the rows."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from benchmarks.__main__ import main
from benchmarks.batching import SHIPPED, VARIANTS, Change, apply, batching_page, summary
from bertrec.errors import InvalidInput


def row(variant: str, turn: int, requests_per_s: float) -> dict[str, object]:
    return {
        "variant": variant,
        "clients": 16,
        "round": turn,
        "requests_per_s": requests_per_s,
        "p50_ms": 10.0,
        "p99_ms": 20.0,
        "slowest_ms": 30.0,
        "errors": {"Overloaded": 1} if turn else {},
    }


def test_every_variant_is_asked_in_every_round(tmp_path: Path, tiny_bundle: Path) -> None:
    texts, output, page = tmp_path / "texts.txt", tmp_path / "batching.json", tmp_path / "batching.md"
    texts.write_text("green gown\nred robe\n")
    command = ["batching", "--bundle", str(tiny_bundle), "--output", str(output), "--page", str(page), "--texts", str(texts)]
    loads = ["--variants", "delay 2 ms", "--clients", "1,4", "--seconds", "0.3", "--warm-up-s", "0", "--rounds", "2"]
    assert main([*command, *loads]) == 0
    content = json.loads(output.read_text())
    assert content["complete"]
    assert {(one["variant"], one["clients"], one["round"]) for one in content["rows"]} == {
        (variant, clients, turn) for variant in (SHIPPED, "delay 2 ms") for clients in (1, 4) for turn in (0, 1)
    }
    assert all(one["requests_per_s"] > 0 and not one["errors"] for one in content["rows"])
    alone = {one["variant"]: one["p50_ms"] for one in summary(content["rows"]) if one["clients"] == 1}
    assert alone["delay 2 ms"] > 2  # who is alone waits for nobody, as long as the delay
    assert page.read_text() == batching_page(content)


@pytest.mark.parametrize("name", VARIANTS)
def test_every_change_finds_what_it_replaces(name: str, triton_repository: Path, tmp_path: Path) -> None:
    repository = shutil.copytree(triton_repository, tmp_path / "changed")
    apply(VARIANTS[name], repository)
    changed = {
        path.relative_to(repository).parts[1]
        for path in repository.glob("models/*/configs/cpu.pbtxt")
        if path.read_text() != (triton_repository / path.relative_to(repository)).read_text()
    }
    assert changed == {change.model for change in VARIANTS[name]}


def test_what_is_no_longer_there_is_said(triton_repository: Path, tmp_path: Path) -> None:
    repository = shutil.copytree(triton_repository, tmp_path / "changed")
    with pytest.raises(InvalidInput, match="holds 'no such line' 0 times"):
        apply([Change("encoder", "no such line", "")], repository)


def test_ratios_are_of_the_same_round() -> None:
    rows = [row(SHIPPED, 0, 100), row("delay 2 ms", 0, 110), row(SHIPPED, 1, 50), row("delay 2 ms", 1, 60)]
    _, found = summary(rows)
    assert found["ratio"] == pytest.approx(1.15)
    assert (found["low"], found["high"]) == (pytest.approx(1.1), pytest.approx(1.2))
    assert found["errors"] == 1
    origin = {"measured": "2026-01-01", "commit": "a" * 40, "cpu": "a processor", "cores": 2}
    page = batching_page({"provenance": origin, "settings": {"rounds": 2, "seconds": 1.0}, "rows": rows})
    assert "delay 2 ms at 16 clients (×1.15)." in page
    slower = batching_page(
        {
            "provenance": origin,
            "settings": {"rounds": 2, "seconds": 1.0},
            "rows": [*rows, row(SHIPPED, 2, 50), row("delay 2 ms", 2, 49)],
        }
    )
    assert "beyond the spread of the rounds: none." in slower


def test_an_unknown_variant_is_refused(tmp_path: Path, tiny_bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["batching", "--bundle", str(tiny_bundle), "--variants", "magic", "--output", str(tmp_path / "b.json")]) != 0
    assert "variants names 'magic'; accepted are as shipped" in capsys.readouterr().err
    assert not (tmp_path / "b.json").exists()
