"""Questions and answers of Debian's FAQ: find the best answer; fetched by ``make data-faq``, see data/README.md.

    data/faq/items.jsonl           item_id (page/section), title (the heading, most often a question), text (the answer's first
                                   paragraph), chapter, answer (the whole of it)
    data/faq/interactions.jsonl    item_id, text (a further paragraph of the answer), split (train, validation)
    data/faq/copyright             under which terms the above may be passed on
    data/faq_questions.jsonl       item_id, text: questions in other words, written for bertrec; the test split

An item's text holds no paragraph that is asked with, so that validation asks for nothing that was read in training.
"""

from __future__ import annotations

import hashlib
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bertrec.errors import InvalidData
from train.data import TEST, TRAIN, VALIDATION, Dataset, Interaction, Item
from train.formats import read_table
from train.progress import say

FOLDER = Path(__file__).parent.parent / "data" / "faq"
QUESTIONS = Path(__file__).parent.parent / "data" / "faq_questions.jsonl"
ITEMS_FILE, INTERACTIONS_FILE, COPYRIGHT_FILE = "items.jsonl", "interactions.jsonl", "copyright"
PAGES = "*.en.html"
MIN_CHARACTERS = 20
"""A shorter paragraph, such as a command, asks for nothing."""
VALIDATION_SHARE = 0.2

_XHTML = "{http://www.w3.org/1999/xhtml}"
_NUMBER = re.compile(r"^(Chapter\s+)?[\d.]+\s*")
_LISTS = {f"{_XHTML}{name}" for name in ("ul", "ol", "dl")}


@dataclass(frozen=True)
class FaqTables:
    """The rows of items.jsonl and interactions.jsonl."""

    items: list[dict[str, str]]
    interactions: list[dict[str, str]]


def faq_tables(folder: Path) -> FaqTables:
    """The sections of the FAQ's English pages that have an answer of their own.

    Raises InvalidData for a page that is no well-formed XHTML.
    """
    tables = FaqTables([], [])
    for path in sorted(folder.glob(PAGES)):
        try:
            page = ElementTree.parse(path).getroot()
        except ElementTree.ParseError as error:
            raise InvalidData(f"{path.name} is not well-formed XHTML: {error}; accepted are the pages of debian-faq") from error
        name, chapter = path.name.partition(".")[0], _heading(next(page.iter(f"{_XHTML}title"), None))
        for section in page.iter(f"{_XHTML}div"):
            anchor = section.find(f".//{_XHTML}a[@id]")
            if section.get("class") == "section" and anchor is not None:
                _add(tables, section, f"{name}/{anchor.get('id')}", chapter)
    return tables


def _add(tables: FaqTables, section: ElementTree.Element, item_id: str, chapter: str) -> None:
    paragraphs = [text for child in section for text in _paragraphs(child) if text]
    if not paragraphs:  # what there is to say is said in the sections below it
        return
    tables.items.append(
        {
            "item_id": item_id,
            "title": _heading(section.find(f"{_XHTML}div")),
            "text": paragraphs[0],
            "chapter": chapter,
            "answer": "\n".join(paragraphs),
        }
    )
    tables.interactions.extend(
        {"item_id": item_id, "text": text, "split": VALIDATION if _share(text) < VALIDATION_SHARE else TRAIN}
        for text in paragraphs[1:]
        if len(text) >= MIN_CHARACTERS and text not in paragraphs[0]
    )


def _paragraphs(element: ElementTree.Element) -> Iterator[str]:
    """Texts of what lies directly in a section: paragraphs, what is typed or printed, and the entries of lists."""
    if element.get("class") in ("section", "titlepage", "footnotes"):
        return
    if element.tag == f"{_XHTML}div":
        for child in element:
            yield from _paragraphs(child)
    elif element.tag in _LISTS:
        yield from (_text(entry) for entry in element)
    else:
        yield _text(element)


def _heading(element: ElementTree.Element | None) -> str:
    """Without its number."""
    return "" if element is None else _NUMBER.sub("", _text(element))


def _text(element: ElementTree.Element) -> str:
    return " ".join("".join(element.itertext()).split())


def _share(text: str) -> float:
    """In [0, 1), by the text alone: the same in every release that has it."""
    return int(hashlib.sha256(text.encode()).hexdigest()[:8], 16) / 2**32


def load_faq(folder: Path = FOLDER, questions: Path = QUESTIONS) -> Dataset:
    """Some 140 answers, the paragraphs that train and validate, and the questions that test.

    A question for an answer that this release of the FAQ lacks is left out, and said. Raises InvalidData where the files have not
    been fetched or cannot be read.
    """
    missing = [name for name in (ITEMS_FILE, INTERACTIONS_FILE) if not (folder / name).exists()]
    if missing:
        raise InvalidData(f"data set 'faq' has not been fetched: {folder / missing[0]} is missing; fetch it with: make data-faq")
    table = read_table(folder / ITEMS_FILE, required=("item_id", "title", "text", "chapter"))
    ids, titles, texts, chapters = (list(map(str, table.column(name))) for name in ("item_id", "title", "text", "chapter"))
    index_of = {item_id: index for index, item_id in enumerate(ids)}
    paragraphs = _rows(folder / INTERACTIONS_FILE, ("item_id", "text", "split"))
    asked = [(item_id, text, TEST) for item_id, text in _rows(questions, ("item_id", "text"))]
    if unknown := sum(item_id not in index_of for item_id, _, _ in asked):
        say(f"{unknown} of {len(asked)} questions of {questions.name} ask for what this release of the FAQ lacks: left out")
    interactions = tuple(
        Interaction(item=index_of[item_id], text=text, split=split)
        for item_id, text, split in (*paragraphs, *asked)
        if item_id in index_of
    )
    items = zip(ids, titles, texts, chapters, strict=True)
    return Dataset("faq", tuple(Item(i, title, text, {"chapter": chapter}) for i, title, text, chapter in items), interactions)


def _rows(path: Path, columns: tuple[str, ...]) -> list[tuple[str, ...]]:
    table = read_table(path, required=columns)
    return list(zip(*(map(str, table.column(name)) for name in columns), strict=True))
