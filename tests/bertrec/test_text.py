"""Cleaning, tokenising, buckets."""

from __future__ import annotations

from pathlib import Path

import pytest

from bertrec.errors import InvalidInput
from bertrec.text import MAX_CHARACTERS, TextTokenizer, batches, clean


@pytest.mark.parametrize(
    ("given", "cleaned"),
    [
        ("  warm coat ", "warm coat"),
        ("warm\x00coat\x07", "warm coat"),
        ("two\nlines\tand a tab", "two lines and a tab"),
        ("معطف دافئ", "معطف دافئ"),
        ("👗", "👗"),
        ("\u200fabc", "\u200fabc"),
        ("x" * 100_000, "x" * MAX_CHARACTERS),
    ],
)
def test_what_can_be_read_is_kept(given: str, cleaned: str) -> None:
    assert clean(given) == cleaned


@pytest.mark.parametrize("given", ["", "   ", "\n\t\r", "\x00\x01\x1b", "\u200b\u200f\u00a0", "\x00" * 100_000])
def test_what_holds_nothing_to_read_is_refused(given: str) -> None:
    with pytest.raises(InvalidInput, match="text 3 is empty"):
        clean(given, 3)


@pytest.mark.parametrize("given", [None, 7, b"coat", ["coat"]])
def test_what_is_no_text_is_refused_by_its_type(given: object) -> None:
    with pytest.raises(InvalidInput, match=f"text 0 is of type {type(given).__name__}; accepted is str"):
        clean(given)


def test_a_lone_surrogate_is_refused_with_its_place() -> None:
    with pytest.raises(InvalidInput, match="lone surrogate at character 5"):
        clean("coat \ud83d")


@pytest.fixture
def tokenizer(tiny_backbone: Path) -> TextTokenizer:
    return TextTokenizer(tiny_backbone / "tokenizer.json", max_tokens=40)


def test_long_texts_are_cut_and_say_so(tokenizer: TextTokenizer) -> None:
    short, long = tokenizer.tokenise(["green gown", "green " * 100])
    assert (len(short.ids), short.truncated) == (4, False)
    assert (len(long.ids), long.truncated) == (40, True)


def test_texts_join_by_length_bucket_and_none_is_lost(tokenizer: TextTokenizer) -> None:
    tokens = tokenizer.tokenise(["green " * count for count in (1, 30, 3, 14, 15, 100)])
    found = list(batches(tokens, tokenizer))
    assert [batch.input_ids.shape for batch in found] == [(3, 16), (2, 32), (1, 40)]
    assert sorted(row for batch in found for row in batch.rows.tolist()) == [0, 1, 2, 3, 4, 5]
    for batch in found:
        for row, ids, mask in zip(batch.rows.tolist(), batch.input_ids, batch.attention_mask, strict=True):
            assert ids[mask == 1].tolist() == tokens[row].ids
            assert ids[mask == 0].sum() == 0


def test_a_bucket_holds_no_more_rows_than_a_batch_may(tokenizer: TextTokenizer) -> None:
    tokens = tokenizer.tokenise(["green"] * 10)
    assert [len(batch.rows) for batch in batches(tokens, tokenizer, max_rows=4)] == [4, 4, 2]


def test_special_tokens_in_somebodys_words_are_letters(tiny_backbone: Path) -> None:
    tokenizer = TextTokenizer(tiny_backbone / "tokenizer.json", 64)
    (said,) = tokenizer.tokenise(["coat [SEP] [PAD] [CLS] jacket"])
    assert sorted(said.ids).count(3) == 1  # the one at the end
    assert {0, 2}.intersection(said.ids[1:]) == set()
