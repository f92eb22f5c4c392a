"""What each way of changing a text keeps and what it changes, at the share that is asked for."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from train.augmentation.words import cropped, sentences_of, shuffled, with_swaps, with_synonyms, without_words

TEXT = "A lovely dress. It is warm, soft and blue! Would I buy it again? Yes"
LONG = " ".join(f"w{number}" for number in range(1000))


def random(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_synonyms_replace_whole_words_in_their_case_and_nothing_else() -> None:
    synonyms = {"lovely": ("nice",), "dress": ("gown",), "would": ("should",), "warm": ("hot",)}
    assert with_synonyms(TEXT, random(), 1.0, synonyms) == "A nice gown. It is hot, soft and blue! Should I buy it again? Yes"
    assert with_synonyms("dress-like dresses dress's #dress", random(), 1.0, synonyms) == "dress-like dresses dress's #gown"
    many = with_synonyms("dress " * 1000, random(), 0.2, {"dress": ("gown", "frock")})
    found = Counter(many.split())
    assert found["dress"] == pytest.approx(800, abs=40)
    assert found["gown"] == pytest.approx(found["frock"], abs=40)


def test_dropout_drops_its_share_and_leaves_a_word() -> None:
    kept = without_words(LONG, random(), 0.3).split()
    assert len(kept) == pytest.approx(700, abs=45)
    assert kept == [word for word in LONG.split() if word in set(kept)]  # in their order
    assert without_words("dress", random(), 1.0) == "dress"


def test_swaps_move_about_their_share_of_words_and_lose_none() -> None:
    swapped = with_swaps(LONG, random(), 0.1).split()
    moved = sum(one != other for one, other in zip(swapped, LONG.split(), strict=True))
    assert Counter(swapped) == Counter(LONG.split())
    assert moved == pytest.approx(100, abs=10)
    assert with_swaps("blue dress", random(), 0.1) == "dress blue"
    assert with_swaps("dress", random(), 1.0) == "dress"


def test_a_crop_is_a_run_of_sentences() -> None:
    sentences = sentences_of(TEXT)
    assert sentences == ["A lovely dress.", "It is warm, soft and blue!", "Would I buy it again?", "Yes"]
    found = {cropped(TEXT, random(seed), 0.5) for seed in range(30)}
    assert found == {" ".join(sentences[first : first + 2]) for first in range(3)}
    assert cropped("one sentence only", random(), 1.0) == "one sentence only"
    assert sentences_of("很暖和。我喜欢") == ["很暖和。", "我喜欢"]


def test_word_order_is_lost_within_sentences_only() -> None:
    mixed = shuffled(TEXT, random())
    words = TEXT.split()
    assert mixed != TEXT
    for first, last in ((0, 3), (3, 9), (9, 14), (14, 15)):
        assert Counter(mixed.split()[first:last]) == Counter(words[first:last])
