"""The graph signal on a graph drawn by hand: three items, four entities, one triple."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bertrec.graph import DECLARED, MENTIONED, Entity, GraphSignal, Mention

DRESSES, RED, EDITOR, SUMMER = range(4)


def drawn() -> GraphSignal:
    """Item 0: Dresses, red (said of it). Item 1: TextEditor. Item 2: nothing. Summer goes with dresses."""
    return GraphSignal(
        entities=(Entity("Dresses", "class"), Entity("red", "colour"), Entity("TextEditor", "categories"), Entity("summer", "")),
        phrases={
            "dresses": DRESSES,
            "gown": DRESSES,
            "red": RED,
            "text editor": EDITOR,
            "text": RED,
            "编 辑 器": EDITOR,
            "summer": SUMMER,
        },
        relations=(DECLARED, MENTIONED, "goes_with"),
        vectors=np.asarray([[3, 0], [0, 4], [-1, 0], [0, 0]], np.float16),
        offsets=np.asarray([0, 2, 3, 3], np.int32),
        edges=np.asarray([[DRESSES, 0], [RED, 1], [EDITOR, 0]], np.int32),
        weights=np.asarray([1.0, 0.5, 1.0], np.float16),
        links=np.asarray([[SUMMER, 2, DRESSES]], np.int32),
    )


def test_the_longest_phrase_counts_and_chinese_is_read_by_characters() -> None:
    assert drawn().mentions("A TEXT editor, red text; 好的编辑器!") == [
        Mention("text editor", EDITOR),
        Mention("red", RED),
        Mention("text", RED),
        Mention("编辑器", EDITOR),
    ]


def test_a_text_is_the_mean_of_its_distinct_entities_of_length_one() -> None:
    vectors = drawn().vectors_of(["red gown, a gown", "编辑器", "nothing known", "summer"])
    np.testing.assert_allclose(vectors, np.asarray([[0.6, 0.8], [-1, 0], [0, 0], [0, 0]]), atol=1e-6)
    assert vectors.dtype == np.float32
    assert drawn().vectors_of([]).shape == (0, 2)


def test_paths_are_edges_of_the_graph_strongest_first() -> None:
    gown, red = drawn().paths("a red gown", 0)
    assert (gown.phrase, str(gown.entity), gown.via, gown.relation) == ("gown", "Dresses (class)", None, DECLARED)
    assert gown.sentence == "you wrote “gown”, which is Dresses (class), and this item is one of them"
    assert red.sentence == "you wrote “red”, and this item is described so"
    assert (gown.strength, red.strength) == (1.0, 0.5)
    assert drawn().paths("a red gown", 1) == drawn().paths("a red gown", 2) == ()


def test_a_triple_leads_to_an_item_at_half_the_strength() -> None:
    (path,) = drawn().paths("for summer", 0)
    assert path.via == Entity("Dresses", "class")
    assert path.strength == 0.5
    assert path.sentence == "you wrote “summer”, which “goes_with” joins to Dresses (class), and this item is one of them"
    assert [path.via for path in drawn().paths("summer gown", 0)] == [None, Entity("Dresses", "class")]


def test_saved_and_loaded_it_is_the_same(tmp_path: Path) -> None:
    signal = drawn()
    written = signal.save(tmp_path / "signals")
    assert sorted(written) == sorted((tmp_path / "signals").iterdir())
    loaded = GraphSignal.load(tmp_path / "signals")
    assert (loaded.entities, loaded.phrases, loaded.relations) == (signal.entities, signal.phrases, signal.relations)
    assert loaded.paths("red summer gown", 0) == signal.paths("red summer gown", 0)
    np.testing.assert_array_equal(loaded.vectors_of(["red gown"]), signal.vectors_of(["red gown"]))


def test_an_empty_graph_names_nothing() -> None:
    empty = GraphSignal(
        entities=(),
        phrases={},
        relations=(DECLARED,),
        vectors=np.zeros((0, 2), np.float16),
        offsets=np.zeros(2, np.int32),
        edges=np.zeros((0, 2), np.int32),
        weights=np.zeros(0, np.float16),
        links=np.zeros((0, 3), np.int32),
    )
    assert empty.mentions("red gown") == []
    assert empty.paths("red gown", 0) == ()
    assert empty.vectors_of(["red gown"]).tolist() == [[0.0, 0.0]]


def test_what_fewer_items_have_is_stronger() -> None:
    shared = GraphSignal(
        entities=(Entity("red", "colour"), Entity("wool", "fabric")),
        phrases={"red": 0, "wool": 1},
        relations=(DECLARED,),
        vectors=np.eye(2, dtype=np.float16),
        offsets=np.asarray([0, 2, 3], np.int32),
        edges=np.asarray([[0, 0], [1, 0], [0, 0]], np.int32),
        weights=np.ones(3, np.float16),
        links=np.zeros((0, 3), np.int32),
    )
    assert [path.phrase for path in shared.paths("red wool", 0)] == ["wool", "red"]
    assert [path.strength for path in shared.paths("red wool", 0)] == [1.0, pytest.approx(1 - np.log(2) / np.log(3))]
