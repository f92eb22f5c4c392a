"""From AppStream components to items and queries: names masked, languages told apart, nothing of the test in training."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import pytest

from train.appstream import app_tables
from train.data import TEST, TRAIN, VALIDATION


def component(number: int = 0, *, description: str = "", **fields: Any) -> dict[str, Any]:
    return {
        "Type": "desktop-application",
        "ID": f"org.example.Tool{number}.desktop",
        "Package": f"tool-{number}",
        "Name": {"C": f"Tool{number}"},
        "Summary": {"C": f"Does the work of number {number}"},
        "Description": {"C": description},
        **fields,
    }


def queries(*components: dict[str, Any]) -> list[tuple[str, str]]:
    return [(row["query"].split()[0], row["text"]) for row in app_tables(components).interactions]


def test_an_item_is_an_application_with_name_summary_and_purpose() -> None:
    app = component(Name={"C": "My  Tool", "de": "Werkzeug"}, Categories=["Qt", "AudioVideo;", "Player", "GTK"])
    others = [component(1, Type="addon"), component(2, Type="console-application"), component(3, Summary={"de": "Ohne"})]
    twice = component(Name={"C": "The second of one id"})
    assert app_tables([app, *others, twice, {"File": "DEP-11"}]).items == [
        {
            "item_id": "org.example.Tool0.desktop",
            "title": "My Tool",
            "text": "Does the work of number 0",
            "category": "AudioVideo|Player",
            "package": "tool-0",
        },
        {
            "item_id": "org.example.Tool2.desktop",
            "title": "Tool2",
            "text": "Does the work of number 2",
            "category": "",
            "package": "tool-2",
        },
    ]


def test_a_description_becomes_sentences() -> None:
    description = (
        "<p>\n  Cuts wood &amp; metal,\n  e.g. Beech and oak. It never <em>gets</em> tired!</p><p>Short.</p>"
        "<p>What this offers you:</p><ul><li>measures every angle</li></ul><p>" + "long " * 61 + "</p>"
    )
    assert queries(component(description=description)) == [
        ("english", "Cuts wood & metal, e.g. Beech and oak."),
        ("english", "It never gets tired!"),
        ("english", "Measures every angle"),
    ]


@pytest.mark.parametrize(
    ("name", "said", "asked"),
    [
        ("Tool0", "Tool0 cuts every kind of wood", "This app cuts every kind of wood"),
        ("Tool0", "Cut every kind of wood with the tool0!", "Cut every kind of wood with this app!"),
        ("Tool0", "Install tool-0 for every kind of wood", "Install this app for every kind of wood"),
        ("Wood Cutter", "The Wood Cutter cuts every kind of wood", "This app cuts every kind of wood"),
        ("GNOME Sawmill", "Sawmill is no mere sawmill for wood", "This app is no mere sawmill for wood"),
        ("LibreSaw Cutter", "LIBRESAW cuts every kind of wood", "This app cuts every kind of wood"),
        ("Tool0", "A Tool01 cuts every kind of wood", "A Tool01 cuts every kind of wood"),
    ],
)
def test_no_query_names_its_item(name: str, said: str, asked: str) -> None:
    assert queries(component(Name={"C": name}, description=f"<p>{said}</p>")) == [("english", asked)]


def test_an_ordinary_word_stays_where_it_is_no_name() -> None:
    others = [component(number, description=f"<p>Opens number {number} of our terminal windows.</p>") for number in range(1, 6)]
    app = component(Name={"C": "Terminal"}, description="<p>Terminal is a terminal for everybody.</p>")
    assert ("english", "This app is a terminal for everybody.") in queries(app, *others)


@pytest.mark.parametrize("locale", ["zh-CN", "zh_CN", "zh-HANS", "zh_Hans_CN", "zh"])
def test_chinese_is_simplified_and_told_apart(locale: str) -> None:
    app = component(
        Summary={"C": "Cuts wood", locale: "切割木材的工具", "zh_TW": "切割木材的傢伙"},
        Description={
            "C": "",
            locale: "<p>Tool0 是一个\n    切割工具。它可以切割各种木材；</p><p>太短。</p>",
            "de": "<p>Sägt alles, was da ist.</p>",
        },
    )
    assert queries(app) == [
        ("chinese", "切割木材的工具"),
        ("chinese", "此应用是一个切割工具。"),
        ("chinese", "它可以切割各种木材；"),
    ]


def test_an_untranslated_text_is_not_chinese() -> None:
    assert queries(component(Summary={"C": "Cuts wood", "zh_CN": "Cuts wood well"})) == []


def test_a_text_without_one_right_answer_is_left_out() -> None:
    shared = "<p>Part of the same old suite.</p>"
    first = component(1, description=f"{shared}<p>Tool1, does the work of number 1!</p><p>Only the first says this.</p>")
    second = component(
        2,
        description=f"{shared}<p>Only the second says this.</p><p>ONLY the second says this</p><p>Does the work of number 1.</p>",
    )
    assert queries(first, second) == [
        ("english", "Only the first says this."),
        ("english", "Only the second says this."),
    ]


def test_the_same_text_about_two_names_has_no_one_right_answer() -> None:
    assert queries(*(component(number, description=f"<p>Tool{number} cuts every kind of wood.</p>") for number in (1, 2))) == []


def test_the_split_holds_out_whole_applications_and_whole_translations() -> None:
    apps = [
        component(
            number,
            Summary={"C": f"Does the work of number {number}", "zh_CN": f"做第{number}号工作"},
            Description={
                "C": "".join(f"<p>Says sentence {part} about number {number}.</p>" for part in range(10)),
                "zh_CN": f"<p>这是关于第{number}号的句子。</p>",
            },
        )
        for number in range(300)
    ]
    rows = app_tables(apps).interactions
    assert sorted(map(repr, rows)) == sorted(map(repr, app_tables(apps[::-1]).interactions))
    english: defaultdict[str, list[str]] = defaultdict(list)
    chinese: defaultdict[str, set[str]] = defaultdict(set)
    for row in rows:
        if row["query"] == "english sentence":
            english[row["item_id"]].append(row["split"])
        else:
            chinese[row["item_id"]].add(row["split"])
    cold = {item for item, splits in english.items() if set(splits) == {TEST}}
    warm = [split for item, splits in english.items() if item not in cold for split in splits]
    assert 15 <= len(cold) <= 45
    assert [round(warm.count(split) / len(warm), 1) for split in (TRAIN, VALIDATION, TEST)] == [0.8, 0.1, 0.1]
    assert all(len(splits) == 1 for splits in chinese.values())
    assert all(chinese[item] == {TEST} for item in cold)
    trained = sum(splits == {TRAIN} for splits in chinese.values())
    assert 0.4 <= trained / (300 - len(cold)) <= 0.6
