"""From AppStream metadata to a data set: what applications say of themselves becomes what somebody asks for.

The metadata is Debian's DEP-11 (https://wiki.debian.org/DEP-11): one component of an archive a YAML document, with the fields of
AppStream (https://www.freedesktop.org/software/appstream/docs/).

An item is an application, with its English name and summary. A query is a sentence of its description, or its Chinese summary
or a sentence of its Chinese description. The application's own name gives way to "this app", so that no query just names
the item. A text that several applications share has no one right answer, and one that repeats an item's name or summary is
known from training: both are left out.
"""

from __future__ import annotations

import hashlib
import html
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from train.data import TEST, TRAIN, VALIDATION

APPLICATION_TYPES = ("desktop-application", "console-application")
TOOLKITS = {"GTK", "Qt", "Motif", "Java", "KDE", "GNOME", "XFCE", "LXQt", "MATE", "Core", "ConsoleOnly"}
"""Categories that say how an application is built, not what it is for."""
SIMPLIFIED = ("zh_cn", "zh_hans_cn", "zh_hans", "zh")
"""Locales of simplified Chinese, in lower case with underscores, best first; archives write them in many ways."""

ENGLISH_SENTENCE, CHINESE_SUMMARY, CHINESE_SENTENCE = "english sentence", "chinese summary", "chinese sentence"
CHARACTERS = {ENGLISH_SENTENCE: (20, 300), CHINESE_SUMMARY: (4, 100), CHINESE_SENTENCE: (8, 100)}
"""Fewest and most characters of a query, without what stands for the name."""
INSTEAD_OF_NAME = {ENGLISH_SENTENCE: "this app", CHINESE_SUMMARY: "此应用", CHINESE_SENTENCE: "此应用"}

COLD_SHARE = 0.1
"""Share of the applications all of whose queries are test: they are ranked by name and summary alone."""
TRAIN_SHARE, VALIDATION_SHARE = 0.8, 0.1
CHINESE_TRAIN_SHARE, CHINESE_VALIDATION_SHARE = 0.5, 0.1
"""Of the others that have Chinese texts; whole applications, so that training has nothing Chinese of one that is tested."""
COMMON_FROM = 5
"""A word that so many applications use is an ordinary word, also where one is called so: Terminal, Chess."""

_BLOCK = re.compile(r"</?(?:p|li|ul|ol)>")
_TAG = re.compile(r"<[^>]*>")
_ENGLISH_END = re.compile(r"(?<=[.!?])(?<!e\.g\.)(?<!i\.e\.)\s+(?=[A-Z0-9\"'(])")
_CHINESE_END = re.compile(r"(?<=[。！？；])")
_HAN = "\u4e00-\u9fff"
_SPACE_IN_CHINESE = re.compile(rf"(?<=[{_HAN}，、。])\s+(?=[{_HAN}])")
_WORD = re.compile(r"[a-z0-9][a-z0-9+_-]*")


@dataclass(frozen=True)
class AppTables:
    """The rows of items.jsonl and interactions.jsonl, as :mod:`train.apps` describes them."""

    items: list[dict[str, str]]
    interactions: list[dict[str, str]]


@dataclass(frozen=True)
class _Query:
    item_id: str
    kind: str
    original: str
    text: str  # without the name


def app_tables(components: Iterable[Mapping[str, Any]]) -> AppTables:
    """The data set that the components of one or more archives make; of two of one id the first counts.

    The split is drawn by hash: an application's share in it depends on nothing but its id and its texts.
    """
    apps: dict[str, Mapping[str, Any]] = {}
    for component in components:
        if component.get("Type") in APPLICATION_TYPES and _english(component, "Name") and _english(component, "Summary"):
            apps.setdefault(component["ID"], component)
    items = [_item(app) for app in apps.values()]
    common = _common_words(apps.values())
    queries = _unambiguous([query for app in apps.values() for query in _queries(app, common)], items)
    return AppTables(
        items,
        [{"item_id": query.item_id, "text": query.text, "split": _split(query), "query": query.kind} for query in queries],
    )


def _item(app: Mapping[str, Any]) -> dict[str, str]:
    categories = dict.fromkeys(category.strip(";") for category in app.get("Categories", ()))
    return {
        "item_id": app["ID"],
        "title": _english(app, "Name"),
        "text": _english(app, "Summary"),
        "category": "|".join(category for category in categories if category not in TOOLKITS),
        "package": app.get("Package", ""),
    }


def _english(app: Mapping[str, Any], field: str) -> str:
    return " ".join(app.get(field, {}).get("C", "").split())


def _chinese(app: Mapping[str, Any], field: str) -> str:
    """The field in simplified Chinese, empty where it has none or repeats another language."""
    by_locale = {locale.lower().replace("-", "_"): text for locale, text in app.get(field, {}).items()}
    return next((by_locale[locale] for locale in SIMPLIFIED if re.search(f"[{_HAN}]", by_locale.get(locale, ""))), "")


def _queries(app: Mapping[str, Any], common: set[str]) -> Iterator[_Query]:
    name = _name_pattern(app, common)
    found = [(ENGLISH_SENTENCE, text) for text in _sentences(app.get("Description", {}).get("C", ""), _ENGLISH_END)]
    found += [(CHINESE_SUMMARY, text) for text in _paragraphs(_chinese(app, "Summary"))]
    found += [(CHINESE_SENTENCE, text) for text in _sentences(_chinese(app, "Description"), _CHINESE_END)]
    for kind, original in found:
        instead = INSTEAD_OF_NAME[kind]
        text = _SPACE_IN_CHINESE.sub("", name.sub(instead, original))
        said = text.replace(instead, "")
        fewest, most = CHARACTERS[kind]
        another_language = kind != ENGLISH_SENTENCE and not re.search(f"[{_HAN}]", said)
        if fewest <= len(said) <= most and not another_language and not text.endswith((":", "：")):  # those begin a list
            yield _Query(app["ID"], kind, original, text[0].upper() + text[1:])


def _sentences(markup: str, end: re.Pattern[str]) -> list[str]:
    return [sentence.strip() for paragraph in _paragraphs(markup) for sentence in end.split(paragraph)]


def _paragraphs(markup: str) -> list[str]:
    """The paragraphs and list items of a description, without markup, on one line each."""
    plain = (" ".join(html.unescape(_TAG.sub("", block)).split()) for block in _BLOCK.split(markup))
    return [_SPACE_IN_CHINESE.sub("", text) for text in plain if text]


def _common_words(apps: Iterable[Mapping[str, Any]]) -> set[str]:
    counts: Counter[str] = Counter()
    for app in apps:
        counts.update(set(_WORD.findall(_english(app, "Description").lower())))
    return {word for word, count in counts.items() if count >= COMMON_FROM}


def _name_pattern(app: Mapping[str, Any], common: set[str]) -> re.Pattern[str]:
    """Finds the application's names, an article included: title, package, last part of the id, and the words of the title.

    Title, package and id count in any case if they are no ordinary words, otherwise only capitalised or as the title writes
    them. A word of the title counts as it is written there, in any case if it is one like LibreOffice, unless it is ordinary.
    """
    title = _english(app, "Name")
    handles = {app.get("Package", ""), app["ID"].removesuffix(".desktop").split(".")[-1]} - {""}
    words = {word.strip("()") for word in title.split() if word[:1].isupper()}
    mixed_case = {word for word in words if re.search(r"\w[A-Z]", word)}
    as_written = {title} | {written for handle in handles for written in (handle.capitalize(), handle.upper())}
    as_written |= {word for word in words if len(word) > 2 and word.lower() not in common}
    anyhow = {name for name in {title} | handles | mixed_case if len(name) > 2 and not set(name.lower().split()) <= common}
    either = "|".join(map(re.escape, sorted(as_written, key=len, reverse=True)))
    if anyhow:
        either = f"(?i:{'|'.join(map(re.escape, sorted(anyhow, key=len, reverse=True)))})|{either}"
    return re.compile(rf"(?<![A-Za-z0-9])(?:[Tt]he )?(?:{either})(?![A-Za-z0-9])")


def _unambiguous(queries: Sequence[_Query], items: Sequence[Mapping[str, str]]) -> list[_Query]:
    """Without texts that several applications share, that one says twice, or that are an item's own text."""
    own = {_key(text) for item in items for text in (item["title"], item["text"], f"{item['title']} {item['text']}")}
    askers: defaultdict[str, set[str]] = defaultdict(set)
    for query in queries:
        for text in (query.original, query.text):
            askers[_key(text)].add(query.item_id)
    kept: dict[str, _Query] = {}
    for query in queries:
        keys = {_key(query.original), _key(query.text)}
        if not keys & own and all(len(askers[key]) == 1 for key in keys):
            kept.setdefault(_key(query.text), query)
    return list(kept.values())


def _key(text: str) -> str:
    """What two texts have in common that differ in nothing but case, spaces and punctuation."""
    return re.sub(r"[\W_]+", "", text.casefold())


def _split(query: _Query) -> str:
    if _draw("cold", query.item_id) < COLD_SHARE:
        return TEST
    if query.kind == ENGLISH_SENTENCE:
        draw, train, validation = _draw("sentence", query.item_id, query.original), TRAIN_SHARE, VALIDATION_SHARE
    else:
        draw, train, validation = _draw("chinese", query.item_id), CHINESE_TRAIN_SHARE, CHINESE_VALIDATION_SHARE
    return TRAIN if draw < train else VALIDATION if draw < train + validation else TEST


def _draw(*parts: str) -> float:
    """A number in [0, 1) that looks drawn at random and is the same everywhere."""
    return int.from_bytes(hashlib.sha256("\n".join(parts).encode()).digest()[:8], "big") / 2**64
