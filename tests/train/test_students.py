"""Students: what they keep of the teacher, how exactly the static one adds up, what is resumed, reused and refused."""

from __future__ import annotations

import dataclasses
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from bertrec.errors import InvalidInput, InvalidRun
from tests import tiny
from train.__main__ import main
from train.descent import Descent
from train.encoder import Encoder
from train.fit import fit
from train.run import Run, open_run
from train.settings import PRESETS, Preset
from train.students import StudentSettings, distil, open_students
from train.students.bert import keep_layers, prune
from train.students.contract import STATIC_FILE, STUDENT_FILE
from train.students.static import StaticEncoder, frequent_pairs, hash_table
from train.students.teacher import CROP_WORDS, part_of

IDS = torch.tensor([[2, 5, 6, 7, 3], [2, 5, 6, 3, 0]])
MASK = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 1, 0]])


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, tiny_backbone: Path) -> Run:
    data = tiny.write_data(tmp_path_factory.mktemp("data") / "checkerboard", per_item=6)
    settings = dataclasses.replace(PRESETS[Preset.QUICK], backbone=str(tiny_backbone), epochs=2, batch_size=8, max_minutes=None)
    return fit(str(data), settings, tmp_path_factory.mktemp("runs") / "tiny")


@pytest.fixture(scope="module")
def teacher(run: Run) -> Encoder:
    return Encoder.load(run.encoder_folder)


def lessons(name: str, **changed: object) -> StudentSettings:
    settings = StudentSettings(name, epochs=3, batch_size=16, learning_rate=1e-2)
    return dataclasses.replace(settings, **changed)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["layers-1", "pruned-50", "static"])
def test_a_student_ranks_the_checkerboard_as_its_teacher_does(run: Run, name: str) -> None:
    student = distil(run, lessons(name))
    found = student.record["validation"]
    assert found["teacher_ndcg_at_10"] == 1.0
    assert found["ndcg_at_10"] > 0.95
    assert found["cosine"] > 0.8
    assert student.load()(IDS, MASK).shape == (2, 32)
    assert name in [one.name for one in open_students(run)]


def test_a_static_student_adds_tokens_and_kept_pairs() -> None:
    vectors = np.random.default_rng(0).normal(size=(10, 4)).astype(np.float32)
    encoder = StaticEncoder.begin(vectors, [(5, 6), (6, 7)])
    with torch.no_grad():
        encoder.pairs[1:] = torch.tensor([[1.0, 2, 3, 4], [5, 6, 7, 8]])
        encoder.pairs[0] = 100.0  # of pairs that are not kept: must not count
    sums = np.stack([vectors[[2, 5, 6, 7, 3]].sum(0) + [6, 8, 10, 12], vectors[[2, 5, 6, 3]].sum(0) + [1, 2, 3, 4]])
    np.testing.assert_allclose(encoder(IDS, MASK).detach(), sums / np.linalg.norm(sums, axis=1, keepdims=True), rtol=1e-5)


def test_two_pairs_in_one_slot_leave_the_more_frequent() -> None:
    drawn = np.random.default_rng(4).integers(0, 30_000, size=(1_600, 2)).tolist()
    kept = list(dict.fromkeys((first, second) for first, second in drawn))
    slots, keys, rows = hash_table(kept, 30_000)
    assert rows < len(kept)
    assert sorted(slots[slots > 0].tolist()) == list(range(1, rows + 1))
    for slot, key in zip(slots.tolist(), keys.tolist(), strict=True):
        assert (slot > 0) == (key >= 0)
    assert frequent_pairs([[1, 2, 1, 2], [1, 2, 3]], 5) == [(1, 2)]  # once is not often


def test_narrowing_loses_nothing_at_full_width_and_little_at_the_rank_of_the_tables() -> None:
    random = np.random.default_rng(2)
    vectors = (random.normal(size=(10, 2)) @ random.normal(size=(2, 6))).astype(np.float32)
    encoder = StaticEncoder.begin(vectors, [(5, 6)])
    for width in (2, 6):
        torch.testing.assert_close(encoder.narrowed(width)(IDS, MASK), encoder(IDS, MASK), atol=1e-5, rtol=1e-4)


def test_pruning_takes_the_heads_and_units_that_nothing_depends_on(teacher: Encoder) -> None:
    with torch.no_grad():
        for layer in teacher.bert.encoder.layer:
            layer.attention.output.dense.weight[:, :8] = 0  # the first of four heads
            layer.output.dense.weight[:, 10:20] = 0
    before = teacher(IDS, MASK).detach()
    student = prune(teacher, 15, (teacher(IDS, MASK).square().sum() * 0 + teacher(IDS, MASK)[:, 0].sum() for _ in range(2)))
    assert student.heads == 4
    assert [layer.attention.self.num_attention_heads for layer in student.bert.encoder.layer] == [3, 3]
    assert student.bert.config.intermediate_size == 54
    torch.testing.assert_close(student(IDS, MASK), before)


def test_a_layer_student_keeps_the_first_layer_and_refuses_to_keep_them_all(teacher: Encoder) -> None:
    student = keep_layers(teacher, 1)
    assert student.layers == student.bert.config.num_hidden_layers == 1
    kept = student.bert.encoder.layer[0].output.dense.weight
    torch.testing.assert_close(kept, teacher.bert.encoder.layer[0].output.dense.weight)
    with pytest.raises(InvalidInput, match=r"asks for 2 layers and the run's encoder has 2; ask for fewer"):
        keep_layers(teacher, 2)


def test_an_interrupted_distillation_continues_to_the_same_student(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = sys.modules["train.passes"]
    copy = open_run(shutil.copytree(run.folder, tmp_path / "run", ignore=shutil.ignore_patterns("students")))
    whole = distil(copy, lessons("static")).folder / STATIC_FILE
    weights = whole.read_bytes()
    shutil.rmtree(whole.parent)
    monkeypatch.setattr(module, "CHECKPOINT_EVERY_S", 0.0)
    step, steps = module.step_down, 0

    def interrupted(optimiser: torch.optim.Optimizer, loss: torch.Tensor, *descent: Descent) -> float:
        nonlocal steps
        steps += 1
        if steps == 20:
            raise KeyboardInterrupt
        return float(step(optimiser, loss, *descent))

    monkeypatch.setattr(module, "step_down", interrupted)
    with pytest.raises(KeyboardInterrupt):
        distil(copy, lessons("static"))
    assert open_students(copy) == []
    monkeypatch.setattr(module, "step_down", step)
    assert (distil(copy, lessons("static")).folder / STATIC_FILE).read_bytes() == weights


def test_what_is_there_is_reused_and_what_differs_is_refused(run: Run, tmp_path: Path) -> None:
    copy = open_run(shutil.copytree(run.folder, tmp_path / "run", ignore=shutil.ignore_patterns("students")))
    first = distil(copy, lessons("layers-1"))
    written = (first.folder / STUDENT_FILE).stat().st_mtime_ns
    assert distil(copy, lessons("layers-1")).folder == first.folder
    assert (first.folder / STUDENT_FILE).stat().st_mtime_ns == written
    with pytest.raises(InvalidRun, match=r"another settings. Delete it"):
        distil(copy, lessons("layers-1", epochs=4))
    record = json.loads((first.folder / STUDENT_FILE).read_text())
    (first.folder / STUDENT_FILE).write_text(json.dumps({**record, "teacher": "0" * 64}))
    with pytest.raises(InvalidRun, match="imitates another encoder"):
        open_students(copy)
    (first.folder / STUDENT_FILE).write_text("[]")
    with pytest.raises(InvalidRun, match="is not a student's record"):
        open_students(copy)


def test_a_student_is_pruned_from_the_run_s_own_smaller_one(run: Run, tmp_path: Path) -> None:
    copy = open_run(shutil.copytree(run.folder, tmp_path / "run", ignore=shutil.ignore_patterns("students")))
    with pytest.raises(
        InvalidRun, match=r"no finished student layers-1 to prune. First: python -m train distil .* --student layers-1$"
    ):
        distil(copy, lessons("layers-1-pruned-50"))
    larger = distil(copy, lessons("layers-1"))
    pruned = distil(copy, lessons("layers-1-pruned-50"))
    student, whole = (one.load() for one in (pruned, larger))
    assert isinstance(student, Encoder) and isinstance(whole, Encoder)
    assert student.layers == whole.layers == 1
    assert 2 * student.bert.config.intermediate_size == whole.bert.config.intermediate_size
    assert 2 * student.bert.encoder.layer[0].attention.self.num_attention_heads == whole.heads
    tables = [network.bert.embeddings.word_embeddings.weight for network in (student, whole)]
    torch.testing.assert_close(*tables)  # embeddings are those of the larger one
    assert pruned.record["validation"]["cosine"] > 0.5
    assert distil(copy, lessons("layers-1-pruned-50")).folder == pruned.folder  # reused
    shutil.rmtree(larger.folder)
    distil(copy, lessons("layers-1", seed=3))
    with pytest.raises(InvalidRun, match=r"trained with another begins_with. Delete it"):
        distil(copy, lessons("layers-1-pruned-50"))


@pytest.mark.parametrize("name", ["", "layers-0", "pruned-100", "layers-2-", "layers-2-pruned-0", "tiny", "../x", "static-2"])
def test_a_student_of_no_known_kind_is_refused(run: Run, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["distil", "--run", str(run.folder), "--student", name]) == 2
    assert (
        "accepted are static, layers-N (N layers kept), pruned-P (P percent removed), layers-N-pruned-P, matched ("
        in capsys.readouterr().err
    )


def test_a_part_of_a_text_is_a_few_of_its_words_in_order() -> None:
    text = " ".join(str(number) for number in range(100))
    part = [int(word) for word in part_of(text, np.random.default_rng(3)).split()]
    assert CROP_WORDS[0] <= len(part) <= CROP_WORDS[1]
    assert part == list(range(part[0], part[0] + len(part)))
    assert part_of("two words", np.random.default_rng(3)) == "two words"
