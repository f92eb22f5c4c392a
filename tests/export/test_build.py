"""From a run to a sealed bundle: what is measured, chosen, shipped, reused, refused, and what an interruption leaves."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import onnx
import pytest

from bertrec.bundle import Bundle
from bertrec.errors import InvalidBundle, InvalidInput
from client import Recommender
from export import build
from export.__main__ import main
from export.build import BuildSettings, build_bundle
from export.choose import Target
from export.recipes import parse_recipes
from export.verdict import Budgets
from tests import tiny
from tests.full_disk import run_on_full_disk
from train.fit import fit
from train.run import Run
from train.settings import PRESETS, Preset
from train.students import StudentSettings, distil

HYBRID = "layers-1-with-static"
LENIENT = Budgets(ndcg_loss=1.0, overlap=0.0, shape_cosine=0.0)
"""For the tiny network, whose vectors int8 moves further than those of a real one."""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, tiny_backbone: Path) -> Run:
    folder = tmp_path_factory.mktemp("export")
    settings = dataclasses.replace(PRESETS[Preset.QUICK], backbone=str(tiny_backbone))
    made = fit(str(tiny.write_data(folder / "data")), settings, folder / "run")
    for student in ("layers-1", "static"):
        distil(made, StudentSettings(student, epochs=4, batch_size=16, learning_rate=1e-2))
    distil(made, StudentSettings(HYBRID))
    return made


@pytest.fixture(scope="module")
def bundle(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return build_bundle(run, tmp_path_factory.mktemp("bundles") / "tiny", BuildSettings(budgets=LENIENT))


def only(engines: str, **changed: object) -> BuildSettings:
    return dataclasses.replace(BuildSettings(engines=engines, budgets=LENIENT), **changed)  # type: ignore[arg-type]


def test_every_engine_was_measured_and_the_manifest_says_so(bundle: Bundle) -> None:
    fp32, int8 = bundle.engine("encoder", "fp32"), bundle.engine("encoder", "int8")
    assert (fp32.verdict, int8.verdict) == ("reference", "passed")
    assert fp32.batch_invariant
    assert fp32.parity["cosine_to_torch_min"] > 1 - 1e-6
    assert fp32.quality["ndcg_at_10"] == 1.0  # the checkerboard's right answers
    assert int8.parity["vector_difference_to_torch_max"] > fp32.parity["vector_difference_to_torch_max"]
    assert fp32.operators["Attention"] == 2
    assert fp32.size_bytes == (bundle.folder / fp32.file).stat().st_size
    assert fp32.latency["throughput_ratio"] == 1.0
    assert int8.latency["single_ms_median"] > 0
    assert bundle.manifest.opset == 17
    assert bundle.default_engine == "fp32"


def test_every_recipe_gives_an_engine_that_is_held_against_its_own_network(run: Run, tmp_path: Path) -> None:
    names = "fp32,int8-static,plain,fp16,int8-tensorrt,layers-1-fp32,layers-1-int8,static-fp32,static-int8,static-64-fp32"
    names += f",trimmed-int8,trimmed-static-int8,{HYBRID}-fp32,trimmed-{HYBRID}-int8-static"
    bundle = build_bundle(run, tmp_path / "all", only(names))
    records = {record.name: record for record in bundle.manifest.engines if record.model == "encoder"}
    assert list(records) == names.split(",")
    for name in ("plain", "layers-1-fp32", "static-fp32", f"{HYBRID}-fp32"):
        assert records[name].parity["cosine_to_torch_min"] > 1 - 1e-5, name
        assert records[name].batch_invariant, name
    assert records["int8-static"].batch_invariant
    domains = {name: {node.domain for node in onnx.load(str(bundle.engine_path("encoder", name))).graph.node} for name in records}
    assert "com.microsoft" in domains["fp32"]
    assert domains["plain"] == domains["fp16"] == domains["int8-tensorrt"] == {""}
    assert records["static-int8"].size_bytes < records["static-fp32"].size_bytes
    assert (records["trimmed-int8"].tokenizer, records["int8-static"].tokenizer) == ("tokenizer.trimmed.json", "tokenizer.json")
    assert records["trimmed-static-int8"].quality["ndcg_at_10"] > 0.9
    hybrid = records[f"trimmed-{HYBRID}-int8-static"]
    assert hybrid.quality["ndcg_at_10"] > 0.9
    assert hybrid.batch_invariant
    assert "com.microsoft" in domains[hybrid.name]  # its layers are fused and in int8, its tables too
    assert hybrid.size_bytes < 0.6 * records[f"{HYBRID}-fp32"].size_bytes  # the hash table is whole in both


def test_two_exports_of_one_run_give_the_same_files(run: Run, bundle: Bundle, tmp_path: Path) -> None:
    again = build_bundle(run, tmp_path / "again", BuildSettings(budgets=LENIENT))
    assert again.manifest.files == bundle.manifest.files


def test_for_a_cpu_the_reference_and_the_choice_are_shipped_and_the_others_recorded(run: Run, tmp_path: Path) -> None:
    bundle = build_bundle(run, tmp_path / "cpu", BuildSettings(target=Target.CPU, budgets=LENIENT))
    chosen = bundle.manifest.choice["engine"]
    records = [record for record in bundle.manifest.engines if record.model == "encoder"]
    assert {record.name for record in records if record.file} == {"fp32", chosen}
    assert {"int8", "int8-static", "layers-1-fp32", "layers-1-int8", "static-fp32"} <= {record.name for record in records}
    assert all(record.quality for record in records)
    assert bundle.engine("encoder", chosen).batch_invariant
    assert chosen in bundle.manifest.choice["why"] or "fastest" in bundle.manifest.choice["why"]
    with Recommender(bundle=bundle.folder) as recommender:
        answer = recommender.recommend(tiny.item_text(3))
    assert (answer.engine, answer.items[0].item_id) == (chosen, "3")


def test_for_the_edge_everything_is_small_and_one_engine_is_shipped(run: Run, tmp_path: Path) -> None:
    bundle = build_bundle(run, tmp_path / "edge", BuildSettings(target=Target.EDGE, budgets=LENIENT))
    assert [path.name for path in sorted((bundle.folder / "encoder").iterdir())] == [f"{bundle.default_engine}.onnx"]
    assert bundle.default_engine.startswith("trimmed-")
    assert (bundle.folder / "tokenizer.trimmed.json").is_file()
    assert not (bundle.folder / "tokenizer.json").exists()
    assert bundle.ranker_engine == "int8"
    reference = next(record for record in bundle.manifest.engines if record.name == "fp32")
    assert (reference.verdict, reference.file) == ("reference", "")
    with Recommender(bundle=bundle.folder) as recommender:
        assert [recommender.recommend(tiny.item_text(item)).items[0].item_id for item in range(5)] == list("01234")
    with pytest.raises(InvalidInput, match="has no encoder engine 'fp32'; it has trimmed-"):
        bundle.engine("encoder", "fp32")


def test_for_a_gpu_what_can_be_compiled_there_is_shipped(run: Run, tmp_path: Path) -> None:
    bundle = build_bundle(run, tmp_path / "gpu", only("plain,fp16", target=Target.GPU))
    assert {path.name for path in (bundle.folder / "encoder").iterdir()} == {"fp32.onnx", "plain.onnx", "fp16.onnx"}
    assert "by rule" in bundle.manifest.choice["why"]


def test_an_engine_over_budget_stays_in_the_table_with_the_reason(run: Run, tmp_path: Path) -> None:
    strict = Budgets(shape_cosine=1.0)  # its scales are taken over the batch; how the rounding ranks depends on the CPU
    bundle = build_bundle(run, tmp_path / "strict", BuildSettings(target=Target.CPU, engines="int8", budgets=strict))
    int8 = next(record for record in bundle.manifest.engines if record.name == "int8")
    assert (int8.verdict, int8.file) == ("rejected", "")
    assert "of a text to itself in batches of other shapes (accepted 1)" in int8.why
    assert bundle.default_engine == "fp32"


def test_a_second_build_reuses_the_bundle_and_says_so(run: Run, bundle: Bundle, capsys: pytest.CaptureFixture[str]) -> None:
    again = build_bundle(run, bundle.folder, BuildSettings(budgets=LENIENT))
    assert again.manifest == bundle.manifest
    assert "reused" in capsys.readouterr().err


def test_a_folder_that_holds_something_else_is_left_alone(run: Run, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(InvalidInput, match="exists and is no bundle"):
        build_bundle(run, tmp_path)
    assert (tmp_path / "notes.txt").read_text() == "mine"
    only_fp32 = build_bundle(run, tmp_path / "fp32", only("fp32"))
    with pytest.raises(InvalidInput, match=r"engines \(fp32\) or settings.*never changed: delete it"):
        build_bundle(run, only_fp32.folder, only("int8"))
    rules = tmp_path / "rules.json"
    rules.write_text('{"blocklist": ["3"]}')
    with pytest.raises(InvalidInput, match="other rules"):
        build_bundle(run, only_fp32.folder, only("fp32", rules=rules))
    blocking = build_bundle(run, tmp_path / "blocking", only("fp32", rules=rules))
    assert blocking.rules().blocklist == ("3",)
    rules.write_text('{"blocked": []}')
    with pytest.raises(InvalidBundle, match="cannot be read as rules"):
        build_bundle(run, tmp_path / "wrong", only("fp32", rules=rules))
    assert not (tmp_path / "wrong").exists()
    (only_fp32.folder / "tokenizer.json").unlink()
    with pytest.raises(InvalidInput, match=r"does not open \(.*tokenizer\.json is missing"):
        build_bundle(run, only_fp32.folder)


def test_an_interrupted_export_leaves_nothing_that_opens(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> object:
        raise KeyboardInterrupt

    monkeypatch.setattr(build, "gate_engines", interrupted)
    with pytest.raises(KeyboardInterrupt):
        build_bundle(run, tmp_path / "bundle")
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_is_full_is_one_clear_error(run: Run, tmp_path: Path) -> None:
    done = run_on_full_disk("export", "build", "--run", str(run.folder), "--output", str(tmp_path / "bundle"))
    assert done.returncode == 2
    assert "cannot be written" in done.stderr
    assert "Free some space" in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--engines", "fp64"], "engine 'fp64' is unknown; accepted are fp32, int8, int8-static, plain, fp16, int8-tensorrt"),
        (["--engines", "layers-9-int8"], "with one of the run's students (layers-1, layers-1-with-static, static, "),
        (["--engines", "static-fp16"], "engine 'static-fp16' is unknown"),
        (["--run", "/nowhere"], "/nowhere holds no run; one is made by: python -m train fit"),
        (["--max-loss", "-1"], "the budget ndcg_loss is -0.01; accepted is"),
        (["--target", "edge", "--max-mb", "0"], "max_bytes is 0; accepted is a positive number of bytes (--max-mb in megabytes)"),
    ],
)
def test_bad_arguments_are_one_line(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert main(["build", "--run", str(run.folder), "--output", str(tmp_path / "bundle"), *arguments]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "bundle").exists()


def test_the_names_of_engines_say_what_they_are_made_of() -> None:
    (recipe,) = parse_recipes("trimmed-layers-2-int8-static", ["layers-2"])
    assert (recipe.trimmed, recipe.structure, recipe.precision.value) == (True, "layers-2", "int8-static")
    assert recipe.file == "encoder/trimmed-layers-2-int8-static.onnx"


def test_the_command_line_prints_what_was_measured(run: Run, bundle: Bundle, capsys: pytest.CaptureFixture[str]) -> None:
    folder = bundle.folder.with_name("printed")
    assert main(["build", "--run", str(run.folder), "--output", str(folder), "--engines", "fp32"]) == 0
    printed = capsys.readouterr().out
    assert "NDCG@10" in printed
    assert "reference" in printed
