"""Fitting the graph signal: what becomes an entity, what names it, which items have it, and where the vectors lie."""

from __future__ import annotations

import numpy as np
import pytest

from bertrec.graph import DECLARED, MENTIONED, GraphSignal
from train.data import Dataset, Interaction, Item, split_interactions
from train.examples import make_examples
from train.graph import FittedGraph, fit_graph
from train.lexicon import forms, phrase_of, read_lexicon


def fitted(
    items: list[Item], texts: list[tuple[int, str]], triples: tuple[tuple[str, str, str], ...] = (), dimensions: int = 8
) -> FittedGraph:
    interactions = tuple(Interaction(item, text, split="train") for item, text in texts)
    dataset = Dataset("drawn", tuple(items), interactions, triples)
    return fit_graph(dataset, make_examples(dataset, split_interactions(dataset, 0)), dimensions=dimensions, seed=0)


def named(signal: GraphSignal, text: str) -> list[str]:
    return [str(signal.entities[mention.entity]) for mention in signal.mentions(text)]


CLOTHES = [
    Item("d1", attributes={"department": "Dresses", "class": "Dresses"}),
    Item("d2", attributes={"department": "Dresses", "class": "Dresses"}),
    Item("p", attributes={"department": "Bottoms", "class": "Pants"}),
    Item("j", attributes={"department": "Bottoms", "class": "Jeans|Sale & Clearance"}),
]
SAID = [(0, "a crimson colour"), (0, "lovely in scarlet"), (0, "fits well")] + [(row, "nice") for row in (1, 2, 3)] * 4


def test_values_and_their_other_words_are_found() -> None:
    signal = fitted(CLOTHES, SAID).signal
    assert named(signal, "a gown, trousers or a dress in the clearance") == [
        "Dresses (class)",
        "Pants (class)",
        "Dresses (class)",
        "Sale & Clearance (class)",
    ]


def test_the_lexicons_own_entities_are_joined_to_items_whose_texts_name_them() -> None:
    signal = fitted(CLOTHES, SAID).signal
    (path,) = signal.paths("something ruby", 0)
    assert (str(path.entity), path.relation) == ("red (colour)", MENTIONED)
    assert signal.paths("something ruby", 1) == ()
    assert named(signal, "a blue one") == []  # no text names it, so nothing is known of it


def test_a_phrase_that_does_not_point_to_its_items_is_no_name() -> None:
    items = [Item("a", attributes={"line": "General"}), Item("b", attributes={"line": "Rare"})]
    anywhere = [(number % 2, "nice in general") for number in range(40)]
    pointing = [(0, "a plain one"), (1, "a rare one")] * 30
    signal = fitted(items, anywhere + pointing).signal
    assert named(signal, "general and rare") == ["Rare (line)"]
    assert signal.paths("rare", 1)[0].relation == DECLARED


def test_apps_are_found_in_english_and_chinese() -> None:
    apps = [
        Item("ed", "Pad", "write code", {"categories": "Development;TextEditor"}),
        Item("go", "Stones", "a board", {"categories": "Game;BoardGame"}),
    ]
    signal = fitted(apps, []).signal
    assert named(signal, "我想要一个编程用的文本编辑器") == ["Development (categories)", "TextEditor (categories)"]
    assert named(signal, "a text editor for programming, no game") == [
        "TextEditor (categories)",
        "Development (categories)",
        "Game (categories)",
    ]
    assert named(signal, "下象棋") == ["BoardGame (categories)"]


def test_films_have_decades_and_titles_that_are_names() -> None:
    films = [
        Item("1", "Toy Story (1995)", "", {"genres": "Animation|Comedy", "decade": "1990s"}),
        Item("2", "Heat (1995)", "much heat in it", {"genres": "Crime", "decade": "1990s"}),
        Item("3", "Casablanca (1942)", "", {"genres": "Drama", "decade": "1940s"}),
    ]
    signal = fitted(films, []).signal
    assert named(signal, "a funny cartoon of the nineties like Toy Story") == [
        "Comedy (genres)",
        "Animation (genres)",
        "1990s (decade)",
        "Toy Story (title)",
    ]
    assert named(signal, "heat as in Casablanca") == ["Casablanca (title)"]


def test_an_identifier_is_no_attribute_that_items_share() -> None:
    items = [Item(str(row), attributes={"sku": f"sku{row}", "kind": "lamp" if row % 2 else "chair"}) for row in range(30)]
    assert [str(entity) for entity in fitted(items, [(row, "x y") for row in range(30)]).signal.entities] == [
        "chair (kind)",
        "lamp (kind)",
    ]


def test_a_text_made_from_a_history_says_nothing_of_the_item() -> None:
    items = [Item("0", "Red Shoes 7"), Item("1", "Old Hat"), *(Item(str(row), f"Film {row}") for row in range(10, 20))]
    chosen = tuple(
        Interaction(item, user_id=str(user), timestamp=float(item), split="train") for user in range(9) for item in (0, 1)
    )
    dataset = Dataset("drawn", tuple(items), chosen)
    signal = fit_graph(dataset, make_examples(dataset, split_interactions(dataset, 0)), dimensions=4, seed=0).signal
    assert [path.relation for path in signal.paths("red", 0)] == [MENTIONED]
    assert signal.paths("red", 1) == ()  # although everybody who chose it liked Red Shoes


def test_triples_join_items_and_entities() -> None:
    items = [Item("cup", "A cup of ours"), Item("pot", "A pot of ours"), Item("mat", "A mat of ours")]
    triples = (
        ("cup", "made_of", "bone china"),
        ("espresso", "served_in", "bone china"),
        ("potter Ann", "made", "pot"),
        ("cup", "goes_with", "mat"),
    )
    signal = fitted(items, [], triples).signal
    (direct,) = signal.paths("bone china", 0)
    assert direct.sentence == "you wrote “bone china”, and “made_of” joins this item to it"
    (around,) = signal.paths("for espresso", 0)
    assert around.via is not None and around.via.name == "bone china"
    assert [path.relation for path in signal.paths("by potter Ann", 1)] == ["made"]
    assert [path.relation for path in signal.paths("something like a mat of ours", 0)] == ["goes_with"]


def test_triples_without_items_lead_nowhere() -> None:
    graph = fitted([Item("a"), Item("b")], [(0, "x y"), (1, "y x")], (("espresso", "served_in", "bone china"),))
    assert [entity.name for entity in graph.signal.entities] == ["espresso", "bone china"]
    assert not graph.signal.vectors_of(["espresso"]).any()
    assert graph.signal.paths("espresso", 0) == ()


def test_a_text_lies_at_the_items_that_have_what_it_names() -> None:
    kinds = ["lamp", "chair", "table", "shelf"]
    items = [Item(f"{kind}{number}", attributes={"kind": kind}) for kind in kinds for number in range(3)]
    graph = fitted(items, [(0, "anything")] + [(row, "x y") for row in range(12)], dimensions=4)
    cosines = graph.signal.vectors_of(kinds) @ graph.items.T  # (kinds, items)
    np.testing.assert_allclose(cosines, np.kron(np.eye(4), np.ones(3)), atol=0.02)
    assert graph.signal.vectors.dtype == np.float16
    np.testing.assert_allclose(np.linalg.norm(graph.items, axis=1), 1, atol=1e-6)


def test_fitting_twice_gives_the_same() -> None:
    first, second = fitted(CLOTHES, SAID, dimensions=3), fitted(CLOTHES, SAID, dimensions=3)
    assert first.signal.phrases == second.signal.phrases
    np.testing.assert_array_equal(first.signal.vectors, second.signal.vectors)


def test_without_attributes_or_known_words_nothing_is_named() -> None:
    graph = fitted([Item("a"), Item("b")], [(0, "xyzzy"), (1, "plugh")])
    assert graph.signal.entities == ()
    assert graph.signal.vectors_of(["dress"]).shape == graph.items[:1].shape
    assert not graph.items.any()


@pytest.mark.parametrize(
    ("name", "phrases"),
    [
        ("Dresses", ["dresses", "dress"]),
        ("Shirts & Tops", ["shirts tops", "shirts", "tops", "shirts top", "shirt", "top"]),
        ("TextEditor", ["texteditor", "text editor", "texteditors", "text editors"]),
        ("文本编辑器", ["文 本 编 辑 器"]),
        ("Children's", ["children", "childrens"]),
        ("49.90", []),
        ("V-neck", []),
        ("A Few Good Men", ["few good men", "few good mens"]),
        ("yes", []),
    ],
)
def test_forms_of_a_name(name: str, phrases: list[str]) -> None:
    assert forms(name) == phrases


def test_every_word_of_the_lexicon_can_be_found() -> None:
    lexicon = read_lexicon()
    listed = [word for words in lexicon.values.values() for word in words]
    listed += [word for entities in lexicon.words.values() for name, words in entities.items() for word in (name, *words)]
    assert [word for word in listed if not phrase_of(word)] == []
