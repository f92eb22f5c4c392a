"""Spelling correction: what is repaired, and above all what is left alone."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from bertrec.errors import InvalidBundle, MissingDependency
from bertrec.spelling import FILE, Correction, SpellingCorrector
from train.spelling import fit_spelling

TEXTS = [
    "a beautiful sweater from pilcro",
    "beautiful dress, i don't mind",
    "the sweater and the dress",
    "pilcro jeans",
    "pilcro again",
] * 3


@pytest.fixture(scope="module")
def corrector() -> SpellingCorrector:
    return fit_spelling(TEXTS, ["Zyxel", "Fine gauge"], vocabulary=["jewelry", "##wxyz"])


@pytest.mark.parametrize(
    ("given", "meant"),
    [("beutiful", "beautiful"), ("swaeter", "sweater"), ("dresss", "dress"), ("sweeater", "sweater"), ("pilcor", "pilcro")],
)
def test_a_typo_is_repaired(corrector: SpellingCorrector, given: str, meant: str) -> None:
    assert corrector.correct(f"one {given}.") == (f"one {meant}.", (Correction(given, meant),))


def test_case_and_punctuation_stay(corrector: SpellingCorrector) -> None:
    text, corrections = corrector.correct("“Beutiful” SWAETER, (dresss)!")
    assert text == "“Beautiful” SWEATER, (dress)!"
    assert corrections == (Correction("Beutiful", "Beautiful"), Correction("SWAETER", "SWEATER"), Correction("dresss", "dress"))


@pytest.mark.parametrize(
    "text",
    [
        "a pilcro zyxel jewelry defenestration",  # training texts, catalogue, tokenizer, English
        "dreess@sweeter.com https://swaeter.com/dresss #swaeter dresss.com swaeter_1 swaeter2",
        "swa dre 裙子swaeter编程 свитер",
        "dont don didn't swaeter's beutiful-ish",
        "qqqqqqqq",
        "",
    ],
)
def test_what_is_known_and_what_is_no_english_word_stays(corrector: SpellingCorrector, text: str) -> None:
    assert corrector.correct(text) == (text, ())


def test_short_words_differ_by_one_edit_at_most(corrector: SpellingCorrector) -> None:
    assert corrector.correct("jenas jaens jeeaans xxans")[0] == "jeans jeans jeans xxans"


def test_the_most_frequent_word_at_the_smallest_distance_wins() -> None:
    corrector = SpellingCorrector({"coat": 3, "boat": 9, "coats": 100, "goat": 0})
    assert corrector.correct("xoat")[0] == "boat"
    assert corrector.correct("goat")[0] == "goat"


def test_a_slip_that_many_make_is_not_learned_as_a_word() -> None:
    texts = ["just right"] * 300 + ["jsut right"] * 3 + ["pilcro"] * 3
    corrector = fit_spelling(texts, [])
    assert corrector.correct("jsut pilcro")[0] == "just pilcro"


def test_saved_and_loaded_it_corrects_alike(corrector: SpellingCorrector, tmp_path: Path) -> None:
    assert corrector.save(tmp_path / "signals") == [tmp_path / "signals" / FILE]
    loaded = SpellingCorrector.load(tmp_path / "signals")
    assert loaded.counts == corrector.counts
    assert loaded.correct("beutiful swaeter") == corrector.correct("beutiful swaeter")


def test_a_broken_file_is_named(tmp_path: Path) -> None:
    (tmp_path / FILE).write_text("dress 3\nswea")
    with pytest.raises(InvalidBundle, match=FILE):
        SpellingCorrector.load(tmp_path)


def test_without_symspellpy_loading_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    SpellingCorrector({"dress": 3}).save(tmp_path)
    monkeypatch.setitem(sys.modules, "symspellpy", None)
    with pytest.raises(MissingDependency, match="pip install bertrec$"):
        SpellingCorrector.load(tmp_path)
