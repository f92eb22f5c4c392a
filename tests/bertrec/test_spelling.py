"""Spelling correction: what is repaired, and above all what is left alone."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from symspellpy import SymSpell, Verbosity

from bertrec.errors import InvalidBundle, MissingDependency
from bertrec.spelling import FILE, SHORTEST, Correction, SpellingCorrector
from train.augmentation.misspelling import misspelt
from train.clothing import load_clothing
from train.spelling import fit_spelling, within_reach

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


@pytest.fixture(scope="module")
def reviews() -> list[str]:
    """Real texts: the first half is learned from, the second misspelt."""
    return [interaction.text for interaction in load_clothing().interactions if interaction.text][:3_000]


@pytest.fixture(scope="module")
def learned(reviews: list[str]) -> SpellingCorrector:
    return fit_spelling(reviews[:2_000], [])


@pytest.fixture(scope="module")
def typos(reviews: list[str]) -> list[str]:
    random = np.random.default_rng(0)
    return [misspelt(text, random, 0.1) for text in reviews[2_000:2_200]]


def test_symspell_finds_the_same_words(learned: SpellingCorrector, typos: list[str]) -> None:
    """All but ties: of two words that are as near and as frequent, either may be taken."""
    index = SymSpell(max_dictionary_edit_distance=2)
    for word, count in learned.counts.items():
        if count and len(word) >= SHORTEST - 1:
            index.create_dictionary_entry(word, count)
    found = [correction for text in typos for correction in learned.correct(text)[1]]
    assert len(found) > 300
    other = 0
    for correction in found:
        given, meant = correction.given.lower(), correction.meant.lower()
        best = index.lookup(given, Verbosity.TOP, max_edit_distance=1 if len(given) <= 5 else 2)[0]
        assert (learned.counts[meant], index.distance_comparer.compare(given, meant, 2)) == (best.count, best.distance)
        other += meant != best.term
    assert other < 0.02 * len(found)


def test_the_words_within_reach_are_fewer_and_correct_alike(learned: SpellingCorrector, typos: list[str]) -> None:
    compact = within_reach(learned)
    assert len(compact.counts) < 0.6 * len(learned.counts)
    assert {word for word, count in learned.counts.items() if count} <= compact.counts.keys()
    for text in [*typos, "defenestration of a qqqqqqqq and jeens"]:
        assert compact.correct(text) == learned.correct(text)
