"""The one-file recommender at the edge: what it answers, what it refuses, and what it says when something is missing."""

from __future__ import annotations

import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from bertrec import onefile
from bertrec.bundle import Bundle
from bertrec.errors import InvalidBundle, InvalidInput, MissingDependency
from bertrec.onefile import OneFileRecommender, ScoredItem
from export.onefile import build_onefile
from tests.tiny import ITEMS, item_text


@pytest.fixture(scope="module")
def file(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("onefile") / "one.onnx"
    build_onefile(Bundle.open(tiny_bundle), "fp32", path)
    return path


@pytest.fixture(scope="module")
def recommender(file: Path) -> OneFileRecommender:
    return OneFileRecommender(file, threads=1)


def test_the_file_alone_is_enough(file: Path, tmp_path: Path, tiny_bundle: Path) -> None:
    elsewhere = Path(shutil.copy(file, tmp_path / "alone.onnx"))
    loaded = OneFileRecommender(elsewhere, threads=1)
    assert (loaded.bundle, loaded.engine, loaded.max_k) == (Bundle.open(tiny_bundle).fingerprint, "fp32", ITEMS)
    assert loaded.recommend("a green gown", 3) == OneFileRecommender(file, threads=1).recommend("a green gown", 3)


def test_the_best_come_first_and_k_cuts_the_list(recommender: OneFileRecommender, tiny_bundle: Path) -> None:
    ids = [item.item_id for item in Bundle.open(tiny_bundle).catalogue().items]
    whole = recommender.recommend("a jade coat", ITEMS)
    assert sorted(item.index for item in whole) == list(range(ITEMS))
    assert [item.item_id for item in whole] == [ids[item.index] for item in whole]
    assert (np.diff([item.score for item in whole]) <= 0).all()
    assert recommender.recommend("a jade coat") == whole[:10]
    assert recommender.recommend("a jade coat", 1) == whole[:1]
    assert isinstance(whole[0], ScoredItem)


def test_control_characters_case_and_accents_change_nothing(recommender: OneFileRecommender) -> None:
    plain = recommender.recommend("a jade coat", 5)
    for written in ("A JADE COAT", "a\x00jade\x07coat", "á jade co\u0301at", "a jade\ufeff coat\u200b", "  a   jade coat\n"):
        assert recommender.recommend(written, 5) == plain


def test_many_threads_get_their_own_answers(recommender: OneFileRecommender) -> None:
    texts = [item_text(item) for item in range(ITEMS)]
    alone = [recommender.recommend(text, 5) for text in texts]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda text: recommender.recommend(text, 5), texts * 4)) == alone * 4


@pytest.mark.parametrize("k", [0, -1, ITEMS + 1, 2.0, True, "3", None])
def test_k_outside_of_what_the_file_gives_is_refused(recommender: OneFileRecommender, k: int) -> None:
    with pytest.raises(InvalidInput, match=f"k is {k!r}; accepted is 1 to {ITEMS}"):
        recommender.recommend("a jade coat", k)


@pytest.mark.parametrize(
    ("text", "message"),
    [("", "is empty"), (" \u200b\n", "is empty"), ("\ud83d coat", "lone surrogate"), (None, "of type NoneType; accepted is str")],
)
def test_a_text_with_nothing_to_read_is_refused(recommender: OneFileRecommender, text: str, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        recommender.recommend(text)


def test_a_file_that_is_no_recommender_is_refused_with_the_command_that_writes_one(tiny_bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidBundle, match=r"one\.onnx is missing; .* python -m export onefile"):
        OneFileRecommender(tmp_path / "one.onnx")
    (tmp_path / "broken.onnx").write_bytes((tiny_bundle / "encoder/fp32.onnx").read_bytes()[:1000])
    with pytest.raises(InvalidBundle, match="does not load in onnxruntime"):
        OneFileRecommender(tmp_path / "broken.onnx")
    with pytest.raises(InvalidBundle, match=r"has the inputs .*a one-file recommender has \['TEXT'\]"):
        OneFileRecommender(tiny_bundle / "encoder/fp32.onnx")


@pytest.mark.parametrize(
    ("module", "package"), [("onnxruntime", "onnxruntime"), ("onnxruntime_extensions", "onnxruntime-extensions")]
)
def test_a_missing_package_is_named_with_its_pip_command(
    file: Path, monkeypatch: pytest.MonkeyPatch, module: str, package: str
) -> None:
    monkeypatch.setattr(onefile, module, None)
    with pytest.raises(MissingDependency, match=rf"{package} is not installed; it comes with: pip install 'bertrec\[onefile\]'"):
        OneFileRecommender(file)
