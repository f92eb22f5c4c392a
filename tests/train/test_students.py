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
from bertrec.text import TextTokenizer
from tests import tiny
from train.__main__ import main
from train.descent import Descent
from train.encoder import Encoder
from train.evaluate import run_dataset, run_examples
from train.examples import UNSEEN
from train.fit import fit
from train.run import Run, open_run
from train.settings import PRESETS, Preset
from train.states import encode_tokens
from train.students import Student, StudentSettings, distil, open_students
from train.students.bert import keep_layers, prune
from train.students.contract import STATIC_FILE, STUDENT_FILE
from train.students.join import WEIGHTS
from train.students.static import StaticEncoder, frequent_pairs, hash_table
from train.students.teacher import CROP_WORDS, Lessons, part_of, prepare_lessons
from train.students.unlabelled import unlabelled_texts

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
        InvalidRun, match=r"no finished student layers-1, which layers-1-pruned-50 is made of. First: .* --student layers-1$"
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


def test_a_hybrid_adds_the_vectors_of_two_students(run: Run, tmp_path: Path) -> None:
    copy = open_run(shutil.copytree(run.folder, tmp_path / "run", ignore=shutil.ignore_patterns("students")))
    wanted = StudentSettings("layers-1-with-static")
    small = distil(copy, lessons("layers-1"))
    with pytest.raises(
        InvalidRun, match=r"no finished student static, which layers-1-with-static is made of. First: .* --student static$"
    ):
        distil(copy, wanted)
    static = distil(copy, lessons("static"))
    student = distil(copy, wanted)
    weight, found = student.record["static_weight"], student.record["ndcg_at_10_by_weight"]
    assert weight == min(one for one in WEIGHTS if found[one] == max(found[other] for other in WEIGHTS))
    read, looked_up = (one.load().eval()(IDS, MASK).detach() for one in (small, static))
    both = read + weight * looked_up
    torch.testing.assert_close(student.load().eval()(IDS, MASK).detach(), both / both.norm(dim=1, keepdim=True))
    assert distil(copy, wanted).folder == student.folder  # reused
    with pytest.raises(InvalidInput, match="learns nothing, so no margins either; give them to layers-1"):
        StudentSettings("layers-1-with-static", margin_weight=0.1)
    texts = tmp_path / "texts.txt"
    texts.write_text("a text\n")
    with pytest.raises(InvalidInput, match="learns from no texts; give them to layers-1"):
        distil(copy, wanted, texts=texts)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "static-with-static",
        "layers-0",
        "pruned-100",
        "layers-2-",
        "layers-2-pruned-0",
        "tiny",
        "../x",
        "static-2",
    ],
)
def test_a_student_of_no_known_kind_is_refused(run: Run, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["distil", "--run", str(run.folder), "--student", name]) == 2
    assert (
        "accepted are static, layers-N (N layers kept), pruned-P (P percent removed), layers-N-pruned-P, "
        in capsys.readouterr().err
    )


def test_a_part_of_a_text_is_a_few_of_its_words_in_order() -> None:
    text = " ".join(str(number) for number in range(100))
    part = [int(word) for word in part_of(text, np.random.default_rng(3)).split()]
    assert CROP_WORDS[0] <= len(part) <= CROP_WORDS[1]
    assert part == list(range(part[0], part[0] + len(part)))
    assert part_of("two words", np.random.default_rng(3)) == "two words"


OTHER_TEXTS = [
    wish.format(tiny.WORDS[item], tiny.WORDS[tiny.ITEMS + (item + 4) % tiny.ITEMS])
    for item in range(tiny.ITEMS)
    for wish in ("{} with {}", "the {} and {}", "{0} {0} {1}")
]
"""Of a colour and a garment that no item of the checkerboard has together."""


def test_texts_without_an_item_are_learned_from_and_held_out_ones_are_not(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = open_run(shutil.copytree(run.folder, tmp_path / "run", ignore=shutil.ignore_patterns("students")))
    examples = run_examples(copy)
    held_out = [*examples.validation.texts, *examples.test.texts]
    new = [text for text in held_out if text not in examples.train.texts]
    assert new  # else leaving them out would show in nothing
    file = tmp_path / "texts.txt"
    file.write_text(
        "\n".join([*OTHER_TEXTS[1:], "", *held_out, *examples.train.texts, new[0].upper(), *OTHER_TEXTS]), "utf-8-sig"
    )
    learned: list[Lessons] = []

    def prepared(*given: object) -> Lessons:
        learned.append(prepare_lessons(*given))  # type: ignore[arg-type]  # what it is given
        return learned[-1]

    monkeypatch.setattr(sys.modules["train.students.distil"], "prepare_lessons", prepared)
    tokens = TextTokenizer(copy.tokenizer_file, 64).tokenise(OTHER_TEXTS)
    taught = encode_tokens(Encoder.load(copy.encoder_folder), tokens, "")

    def cosine(student: Student) -> float:
        return float((encode_tokens(student.load(), tokens, "") * taught).sum(1).mean())

    without = distil(copy, lessons("static"))
    before = cosine(without)
    with pytest.raises(InvalidRun, match=r"another texts. Delete it"):
        distil(copy, lessons("static"), texts=file)
    shutil.rmtree(without.folder)
    student = distil(copy, lessons("static"), texts=file)
    assert student.record["unlabelled_texts"] == len(OTHER_TEXTS)
    assert cosine(student) > before + 0.02
    first, second = learned
    count = len(examples.train)
    assert len(second.tokens) - len(first.tokens) == 2 * len(OTHER_TEXTS)  # they, and a part of each
    assert second.items[:count].tolist() == first.items[:count].tolist()
    own = second.labelled
    assert [second.tokens[row].ids for row in own] == [text.ids for text in first.tokens]  # parts are drawn as without them
    assert second.items[own].tolist() == first.items.tolist()
    read = {tuple(text.ids) for row, text in enumerate(second.tokens) if second.items[row] == UNSEEN}
    assert not read & {tuple(text.ids) for text in TextTokenizer(copy.tokenizer_file, 64).tokenise(new)}
    assert len(list((copy.folder / "students").glob("teacher-*.npy"))) == 2  # what the teacher said of other texts is kept apart
    assert distil(copy, lessons("static"), texts=file).folder == student.folder
    with pytest.raises(InvalidRun, match=r"another texts. Delete it"):
        distil(copy, lessons("static"))


def test_a_text_without_an_item_adds_no_cross_entropy() -> None:
    vectors = np.eye(3, dtype=np.float32)
    told = Lessons([], np.asarray([0, UNSEEN]), vectors[:2], torch.from_numpy(vectors), torch.zeros(3))
    given = torch.tensor([[1.0, 0, 0], [0, 1, 0]])  # as the teacher's: neither divergence nor distance
    settings = lessons("static", label_weight=0.5)
    own = np.log(np.e + 2) - 1  # −log softmax of scores 1, 0, 0
    assert float(told.loss(given, np.asarray([0, 1]), settings)) == pytest.approx(0.5 * own / 2, abs=1e-6)
    assert float(told.loss(given[1:], np.asarray([1]), settings)) == pytest.approx(0.0, abs=1e-6)
    wrong = torch.tensor([[0.0, 0, 1]])
    assert float(told.loss(wrong, np.asarray([1]), settings)) > settings.embedding_weight  # of cosine 0


def test_the_texts_whose_item_was_withheld_are_learned_from(run: Run) -> None:
    few = Run(run.folder, {**run.record, "settings": {**run.settings, "labels": 0.5}})
    dataset = run_dataset(run)
    examples = run_examples(few, dataset)
    found = unlabelled_texts(few, dataset, examples, [])
    assert 0 < len(found) == len(set(found))
    every = run_examples(run, dataset)
    assert set(found) <= set(every.train.texts) - {*examples.train.texts, *every.validation.texts, *every.test.texts}
    assert unlabelled_texts(run, dataset, every, []) == []


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "cannot be read (No such file or directory); --texts takes a UTF-8 file with one text a line"),
        (b"good\n\xff bad\n", "line 2, is not UTF-8"),
        (b" \n\n", "has no texts"),
        (b"i want amber apron\n", "has no text that 'checkerboard' does not have itself"),
    ],
)
def test_texts_that_cannot_be_learned_from_are_refused(
    run: Run, tmp_path: Path, content: bytes | None, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "texts.txt"
    if content is not None:
        file.write_bytes(content)
    assert main(["distil", "--run", str(run.folder), "--student", "pruned-25", "--texts", str(file)]) == 2
    assert said in " ".join(capsys.readouterr().err.split())
    assert not (run.folder / "students/pruned-25").exists()
