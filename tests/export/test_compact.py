"""Compact parts: what is cut is what the scores miss least, and the bundle that they are sealed into answers as before."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from bertrec.bundle import Bundle, Manifest, seal
from bertrec.errors import InvalidBundle, InvalidInput
from bertrec.signals import LexicalSignal
from bertrec.tensors import ENCODER
from bertrec.text import TextTokenizer
from client import Recommender
from export.compact import SMALL, TINY, CompactParts, CompactSettings, compact_bundle_parts, cut_lexical, principal_rows
from export.ranker import RankerPrecision, read_items
from tests import tiny

WISHES = [f"i want {tiny.item_text(item)}" for item in range(tiny.ITEMS)]
CUT = CompactSettings(lexical_terms=2 * tiny.ITEMS, lexical_dimensions=tiny.ITEMS, text_rank=12)


def test_rounded_parts_answer_as_the_whole_bundle_does(tiny_bundle: Path, tmp_path: Path) -> None:
    parts, small = _sealed(tiny_bundle, tmp_path / "small", SMALL)
    assert parts.ranker.file == "ranker/int8.onnx"
    assert parts.signals == Bundle.open(tiny_bundle).manifest.signals
    with Recommender(bundle=tiny_bundle) as whole, Recommender(bundle=small.folder) as compact:
        for before, after in zip(whole.recommend(WISHES, k=3), compact.recommend(WISHES, k=3), strict=True):
            first, same = before.items[0], after.items[0]
            assert (same.item_id, same.title) == (first.item_id, first.title)
            assert same.score == pytest.approx(first.score, rel=0.01)
            assert [reason.words for reason in same.reasons] == [reason.words for reason in first.reasons]
            assert {item.item_id for item in after.items} == {item.item_id for item in before.items}


def test_half_the_terms_and_dimensions_still_find_every_item(tiny_bundle: Path, tmp_path: Path) -> None:
    parts, cut = _sealed(tiny_bundle, tmp_path / "cut", CUT)
    whole = Bundle.open(tiny_bundle)
    assert len(cut.signals().lexical.terms) == 2 * tiny.ITEMS < len(whole.signals().lexical.terms)
    assert parts.signals == {**whole.manifest.signals, "lexical": tiny.ITEMS}
    sides = read_items(cut.engine_path("ranker", "int8"))
    assert sides["text"].shape == (tiny.ITEMS, whole.manifest.signals["text"])  # of rank 12, behind its basis
    assert np.linalg.matrix_rank(sides["text"], tol=1e-3) == 12
    assert cut.item_text().shape == (tiny.ITEMS, 12)
    with Recommender(bundle=cut.folder) as compact:
        answers = compact.recommend(WISHES, k=2)
        unlike = compact.recommend(WISHES[6], k=6, diversity=0.9)
    assert [answer.items[0].item_id for answer in answers] == [str(item) for item in range(tiny.ITEMS)]
    words = {word for reason in answers[3].items[0].reasons for word in reason.words}
    assert words & set(tiny.item_text(3).split())
    assert "7" not in [item.item_id for item in unlike.items]  # the one that is like item 6


def test_files_are_smaller_open_without_pickle_and_are_the_same_again(tiny_bundle: Path, tmp_path: Path) -> None:
    first, second = _unsealed(tiny_bundle, tmp_path / "first"), _unsealed(tiny_bundle, tmp_path / "second")
    before = {path.relative_to(first) for path in first.rglob("*") if path.is_file()}
    parts = compact_bundle_parts(first, CUT)
    assert compact_bundle_parts(second, CUT) == parts
    files = sorted(path.relative_to(first) for path in first.rglob("*") if path.is_file())
    assert [path for path in files if (first / path).read_bytes() != (second / path).read_bytes()] == []
    assert {str(path) for path in before - set(files)} == {"ranker/fp32.onnx", "maps/text.npy"}
    assert parts.after_bytes == sum((first / path).stat().st_size for path in files) < parts.before_bytes
    for name in ("lexical_projection", "item_lexical", "item_text"):
        assert np.load(first / f"signals/{name}.npy", allow_pickle=False).dtype == np.int8
        assert np.load(first / f"signals/{name}_scales.npy", allow_pickle=False).dtype == np.float32


def test_json_loses_its_spaces_and_nothing_else(tiny_bundle: Path, tmp_path: Path) -> None:
    folder = _unsealed(tiny_bundle, tmp_path / "bundle")
    compact_bundle_parts(folder, SMALL)
    for name in ("tokenizer.json", "signals/gates.json", "signals/graph_gazetteer.json"):
        assert (folder / name).stat().st_size < (tiny_bundle / name).stat().st_size
        assert json.loads((folder / name).read_text()) == json.loads((tiny_bundle / name).read_text())
    assert (folder / "rules.json").read_bytes() == (tiny_bundle / "rules.json").read_bytes()  # the user's own
    before, after = (TextTokenizer(at / "tokenizer.json", 64).tokenise(WISHES) for at in (tiny_bundle, folder))
    assert [text.ids for text in after] == [text.ids for text in before]


def test_what_the_scores_do_not_miss_is_dropped_first() -> None:
    terms = ("always", "blue", "coat", "dress", "unseen")
    idf = np.asarray([1.0, 3.0, 3.0, 3.0, 3.0], np.float32)
    lexical = LexicalSignal(terms, idf, np.eye(5, dtype=np.float16))
    items = np.asarray([[0.1, 2.0, 5.0, 0.0, 0.0], [0.1, 2.0, 0.0, 5.0, 0.0]])  # nothing knows the last term
    assert cut_lexical(lexical, items, terms=4)[0].terms == ("always", "blue", "coat", "dress")
    assert cut_lexical(lexical, items, terms=3)[0].terms == ("blue", "coat", "dress")
    cut, turn = cut_lexical(lexical, items, terms=2)
    assert cut.terms == ("coat", "dress")
    share = np.exp(-2.0)  # of the texts that have a term of idf 3; half, of the one that is always there
    left = np.sqrt(2 * 9 * share / (4 * 9 * share + 0.5))
    np.testing.assert_allclose(items @ turn, left * np.asarray([[0, 0, 5, 0, 0], [0, 0, 0, 5, 0]]), atol=1e-6)


def test_as_many_dimensions_as_the_items_have_lose_no_score() -> None:
    random = np.random.default_rng(0)
    projection = random.normal(size=(40, 12)).astype(np.float16)
    lexical = LexicalSignal(tuple(f"word{row}" for row in range(40)), random.uniform(1, 8, 40).astype(np.float32), projection)
    items = random.normal(size=(30, 4)) @ random.normal(size=(4, 12))  # of rank 4
    cut, turn = cut_lexical(lexical, items, dimensions=4)
    assert cut.dimensions == 4
    texts = [" ".join(f"word{row}" for row in random.integers(40, size=6)) for _ in range(20)]
    before, after = lexical.vectors(texts) @ items.T, cut.vectors(texts) @ (items @ turn).T  # (texts, items)
    factor = (before * after).sum(axis=1, keepdims=True) / (before**2).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(after, factor * before, atol=0.01 * np.abs(before).max())  # but for each text's length
    assert 0.6 < factor.mean() < 1.6


def test_principal_rows_are_exact_at_their_rank() -> None:
    random = np.random.default_rng(0)
    matrix = (random.normal(size=(20, 3)) @ random.normal(size=(3, 8))).astype(np.float32)
    rows, basis = principal_rows(matrix, 3)
    np.testing.assert_allclose(rows @ basis, matrix, atol=1e-5)
    np.testing.assert_allclose(basis @ basis.T, np.eye(3), atol=1e-6)
    np.testing.assert_allclose(rows @ rows.T, matrix @ matrix.T, atol=1e-4)  # so cosines are those of the matrix
    less, _ = principal_rows(matrix, 2)
    np.testing.assert_allclose(less, rows[:, :2], atol=1e-5)


def test_a_cut_beyond_what_there_is_cuts_nothing(tiny_bundle: Path, tmp_path: Path) -> None:
    _, small = _sealed(tiny_bundle, tmp_path / "small", SMALL)
    _, tiniest = _sealed(tiny_bundle, tmp_path / "tiny", TINY)  # a catalogue of 20 items is tinier
    assert tiniest.manifest.files == small.manifest.files


def test_the_ranker_may_stay_exact(tiny_bundle: Path, tmp_path: Path) -> None:
    parts, bundle = _sealed(tiny_bundle, tmp_path / "fp32", CompactSettings(precision=RankerPrecision.FP32))
    assert (parts.ranker.name, parts.ranker.precision) == ("fp32", "fp32")
    before, after = (read_items(folder / "ranker/fp32.onnx") for folder in (tiny_bundle, bundle.folder))
    for signal, vectors in before.items():
        np.testing.assert_array_equal(after[signal], vectors)


@pytest.mark.parametrize("given", [0, -1, 2.5, True, "all"])
def test_settings_that_are_no_number_are_refused(given: object) -> None:
    with pytest.raises(InvalidInput, match=r"text_rank is .*; accepted are None, to keep all, and whole numbers of at least 1"):
        CompactSettings(text_rank=given)  # type: ignore[arg-type]


def test_a_sealed_bundle_and_one_without_ranker_are_refused(tiny_bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="holds a sealed bundle, which is never changed"):
        compact_bundle_parts(tiny_bundle, SMALL)
    folder = _unsealed(tiny_bundle, tmp_path / "bundle")
    (folder / "ranker/fp32.onnx").unlink()
    with pytest.raises(InvalidBundle, match=r"ranker/fp32\.onnx is missing"):
        compact_bundle_parts(folder, SMALL)


def _unsealed(bundle: Path, folder: Path) -> Path:
    """A copy without manifest, with a map for new items."""
    shutil.copytree(bundle, folder)
    (folder / "manifest.json").unlink()
    (folder / "maps").mkdir()
    np.save(folder / "maps/text.npy", np.eye(3, dtype=np.float32))
    return folder


def _sealed(bundle: Path, folder: Path, settings: CompactSettings) -> tuple[CompactParts, Bundle]:
    """A copy whose parts are compact, and what its manifest was told of them."""
    manifest: Manifest = Bundle.open(bundle).manifest
    parts = compact_bundle_parts(_unsealed(bundle, folder), settings)
    encoders = tuple(engine for engine in manifest.engines if engine.model == ENCODER.name)
    seal(folder, dataclasses.replace(manifest, signals=parts.signals, engines=(*encoders, parts.ranker)))
    return parts, Bundle.open(folder)
