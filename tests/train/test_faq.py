"""The FAQ: sections of pages become answers, paragraphs become what is asked, and the project's own questions are the test."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bertrec.errors import InvalidData
from train.data import TEST, TRAIN, VALIDATION, split_interactions
from train.examples import make_examples
from train.faq import INTERACTIONS_FILE, ITEMS_FILE, QUESTIONS, faq_tables, load_faq

PAGE = """<?xml version="1.0" encoding="UTF-8" standalone="no"?>
<!DOCTYPE html PUBLIC "-//W3C//DTD XHTML 1.0 Transitional//EN" "http://www.w3.org/TR/xhtml1/DTD/xhtml1-transitional.dtd">
<html xmlns="http://www.w3.org/1999/xhtml"><head><title>Chapter 7. Woodwork</title></head><body>
<div class="section">
  <div class="titlepage"><h2><a id="saws"></a>7.1. What is
    a saw?</h2></div>
  <p>A saw is a blade with teeth.</p>
  <div class="itemizedlist"><ul><li><p>Rip saws cut <em>along</em> the grain.</p></li><li><p>Short.</p></li></ul></div>
  <pre class="screen">saw --along plank.wood</pre>
  <div class="section">
    <div class="titlepage"><h3><a id="s7.1.1"></a>7.1.1. Hacksaws</h3></div>
    <p>They cut metal.</p>
  </div>
</div>
<div class="section">
  <div class="titlepage"><h2><a id="more"></a>7.2. More tools</h2></div>
  <div class="section"><div class="titlepage"><h3><a id="plane"></a>7.2.1. 3 planes?</h3></div><p>They smooth.</p></div>
</div>
</body></html>
"""
FEED = [("a/b", "first"), ("a/c", "second")]


def write_faq(folder: Path, questions: list[tuple[str, str]]) -> Path:
    """A fetched FAQ of two answers; returns the file of its questions."""
    folder.mkdir()
    items = [{"item_id": i, "title": f"Title {t}?", "text": f"The {t}.", "chapter": "All", "answer": "…"} for i, t in FEED]
    rows = [
        {"item_id": "a/b", "text": "a further paragraph", "split": TRAIN},
        {"item_id": "a/c", "text": "x", "split": VALIDATION},
    ]
    asked = [{"item_id": item_id, "text": text} for item_id, text in questions]
    for path, content in (
        (folder / ITEMS_FILE, items),
        (folder / INTERACTIONS_FILE, rows),
        (folder.parent / "questions.jsonl", asked),
    ):
        path.write_text("".join(json.dumps(row) + "\n" for row in content))
    return folder.parent / "questions.jsonl"


def test_sections_with_an_answer_of_their_own_become_items(tmp_path: Path) -> None:
    (tmp_path / "wood.en.html").write_text(PAGE)
    (tmp_path / "wood.de.html").write_text("kein XHTML")  # another language is not read
    tables = faq_tables(tmp_path)
    assert tables.items[0] == {
        "item_id": "wood/saws",
        "title": "What is a saw?",
        "text": "A saw is a blade with teeth.",
        "chapter": "Woodwork",
        "answer": "A saw is a blade with teeth.\nRip saws cut along the grain.\nShort.\nsaw --along plank.wood",
    }
    assert [(row["item_id"], row["title"], row["answer"]) for row in tables.items[1:]] == [
        ("wood/s7.1.1", "Hacksaws", "They cut metal."),
        ("wood/plane", "3 planes?", "They smooth."),
    ]
    assert [row["text"] for row in tables.interactions] == ["Rip saws cut along the grain.", "saw --along plank.wood"]


def test_a_paragraph_stays_on_its_side_of_the_split_and_about_a_fifth_validates(tmp_path: Path) -> None:
    entries = "".join(f"<p>This is the paragraph number {number}.</p>" for number in range(500))
    for name in ("one", "two"):
        (tmp_path / f"{name}.en.html").write_text(PAGE.replace("<p>They smooth.</p>", f"<p>They smooth.</p>{entries}"))
    sides: dict[str, set[str]] = {}
    for row in faq_tables(tmp_path).interactions:
        sides.setdefault(row["text"], set()).add(row["split"])
    assert all(len(side) == 1 for side in sides.values())
    assert 0.15 < sum(side == {VALIDATION} for side in sides.values()) / len(sides) < 0.25


def test_a_damaged_page_is_said(tmp_path: Path) -> None:
    (tmp_path / "wood.en.html").write_text(PAGE.replace("</body>", ""))
    with pytest.raises(InvalidData, match="wood.en.html is not well-formed XHTML: mismatched tag"):
        faq_tables(tmp_path)


def test_questions_are_the_test_split_and_nothing_asked_is_read_in_training(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dataset = load_faq(tmp_path / "faq", write_faq(tmp_path / "faq", [("a/c", "is it second?"), ("gone/x", "is it gone?")]))
    assert "1 of 2 questions of questions.jsonl ask for what this release of the FAQ lacks: left out" in capsys.readouterr().err
    assert [(row.item, row.text, row.split) for row in dataset.interactions] == [
        (0, "a further paragraph", TRAIN),
        (1, "x", VALIDATION),
        (1, "is it second?", TEST),
    ]
    examples = make_examples(dataset, split_interactions(dataset, 0))
    assert examples.train.texts == ["a further paragraph", "Title first?. The first.", "Title second?. The second."]
    assert dataset.items[0].attributes == {"chapter": "All"}


def test_what_was_not_fetched_is_said(tmp_path: Path) -> None:
    with pytest.raises(InvalidData, match="'faq' has not been fetched: .*items.jsonl is missing; fetch it with: make data-faq"):
        load_faq(tmp_path)


def test_the_projects_questions_are_each_asked_once() -> None:
    rows = [json.loads(line) for line in QUESTIONS.read_text().splitlines()]
    nothing = [json.loads(line)["text"] for line in QUESTIONS.with_name("faq_unanswerable.jsonl").read_text().splitlines()]
    texts = [row["text"].lower() for row in rows] + [text.lower() for text in nothing]
    assert (len(rows), len(nothing), len(set(texts))) == (62, 60, 122)
    assert all(set(row) == {"item_id", "text"} and row["item_id"].count("/") == 1 for row in rows)
