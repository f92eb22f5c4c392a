"""The page as a person meets it, in a real headless Chromium: type a wish, see items, choose filters, see why.

The picture in docs/ is made anew by ``pytest tests/client/server/test_page.py --picture docs/page.png --picture-bundle BUNDLE``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from client import Recommender
from client.server.model import EdgeModel
from tests.client.server.browser import chromium
from tests.client.server.running import Running, running
from tests.tiny import WORDS

WISH = "green gown"
PICTURE_WISH = "a warm coat that is not bulky"
PICTURE_SIZE = {"width": 900, "height": 1000}
MAX_PICTURE_BYTES = 200_000
LATENCY = re.compile(r"^10 items in \d+ ms \(server [\d.]+, of it waiting [\d.]+ and computing [\d.]+\), engine \w+\.")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as opened:
        yield opened


@pytest.fixture
def page(browser: Browser, served: Running) -> Iterator[Page]:
    """The page, opened; at the end nothing may have gone wrong in it, and nothing may have been asked of any other server."""
    context = browser.new_context()
    opened = context.new_page()
    opened.set_default_timeout(10_000)
    wrong: list[str] = []
    asked: list[str] = []
    opened.on("pageerror", lambda error: wrong.append(str(error)))
    opened.on("console", lambda message: wrong.append(message.text) if message.type in ("error", "warning") else None)
    opened.on("request", lambda request: asked.append(request.url))
    opened.goto(served.url)
    yield opened
    context.close()
    assert wrong == []
    assert {url for url in asked if not url.startswith((f"{served.url}/", "data:"))} == set()


def ask(page: Page, wish: str) -> None:
    box = page.get_by_label("your wish")
    box.fill(wish)
    box.press("Enter")


def shown(page: Page) -> list[str]:
    """The ids of the items, in the order that they are shown in."""
    return [str(row.get_attribute("data-item")) for row in page.locator("#items > li").all()]


def test_a_wish_shows_ten_items_as_the_engine_ranks_them(page: Page, in_process: Recommender) -> None:
    expect(page.get_by_label("your wish")).to_be_focused()
    page.keyboard.type(WISH)
    page.get_by_role("button", name="Recommend").click()
    expect(page.locator("#items > li")).to_have_count(10)
    answer = in_process.recommend(WISH, k=10)
    assert shown(page) == [item.item_id for item in answer.items]
    first = page.locator("#items > li").first
    expect(first.locator(".title")).to_have_text(answer.items[0].title)
    expect(first.locator(".score")).to_have_text(f"{answer.items[0].score:.2f}")
    expect(first.locator(".attributes")).to_contain_text("colour: green")
    expect(page.get_by_role("status")).to_have_text(LATENCY)


def test_reasons_are_bars_as_long_as_they_weigh(page: Page, in_process: Recommender) -> None:
    ask(page, WISH)
    expect(page.locator("#items > li")).to_have_count(10)
    reasons = [reason for item in in_process.recommend(WISH, k=10).items for reason in item.reasons]
    rows = page.locator(".reason").all()
    assert len(rows) == len(reasons) > 10
    most = max(abs(reason.score) for reason in reasons)
    for row, reason in zip(rows, reasons, strict=True):
        assert row.inner_text().startswith(reason.sentence)
        assert row.inner_text().endswith(f"{reason.score:+.2f}")
        bar = row.locator(".bar")
        assert ("against" in str(bar.get_attribute("class")).split()) == (reason.score < 0)
        room, length = row.evaluate(
            "row => [parseFloat(getComputedStyle(row).gridTemplateColumns), row.firstChild.getBoundingClientRect().width]"
        )
        assert length == pytest.approx(room * abs(reason.score) / most, abs=1)


def test_a_filter_changes_the_items_at_once_and_gives_them_back(page: Page, in_process: Recommender) -> None:
    ask(page, WISH)
    expect(page.locator("#items > li")).to_have_count(10)
    before = shown(page)
    page.get_by_text("Filters", exact=True).click()
    with page.expect_response("**/recommend"):
        page.get_by_label("silk (14)").check()
    expected = [item.item_id for item in in_process.recommend(WISH, k=10, filters={"fabric": ["silk"]}).items]
    expect(page.locator("#items > li").last).to_have_attribute("data-item", expected[-1])
    assert shown(page) == expected != before
    assert all("silk" in text for text in page.locator(".attributes").all_inner_texts())
    page.get_by_label("silk (14)").uncheck()
    expect(page.locator("#items > li").last).to_have_attribute("data-item", before[-1])
    assert shown(page) == before


def test_filters_that_leave_nothing_say_so(page: Page) -> None:
    page.get_by_text("Filters", exact=True).click()
    page.get_by_label("green (1)").check()
    page.get_by_label("apron (1)").check()
    ask(page, WISH)
    expect(page.get_by_role("status")).to_contain_text("No item passes the filters")
    assert shown(page) == []


def test_every_value_that_can_be_filtered_by_has_a_box(page: Page) -> None:
    page.get_by_text("Filters", exact=True).click()
    expect(page.get_by_label("silk", exact=False)).to_be_visible()
    assert set(page.locator("legend").all_inner_texts()) >= {"colour", "kind", "fabric"}
    offered = {box.get_attribute("value") for box in page.locator("#filters input").all()}
    assert set(WORDS) <= offered


def test_what_was_read_otherwise_than_typed_is_said(page: Page) -> None:
    ask(page, "fuchsia gowm")
    expect(page.get_by_role("status")).to_contain_text("Read “gowm” as “gown”.")


def test_an_empty_wish_asks_nothing(page: Page) -> None:
    ask(page, "   ")
    expect(page.get_by_role("status")).to_have_text("")
    assert shown(page) == []


def test_on_a_telephone_nothing_is_wider_than_the_screen(page: Page) -> None:
    page.set_viewport_size({"width": 360, "height": 640})
    ask(page, WISH)
    expect(page.locator("#items > li")).to_have_count(10)
    page.get_by_text("Filters", exact=True).click()
    assert page.evaluate("document.documentElement.scrollWidth") <= 360


def test_a_server_that_is_gone_is_said_and_the_items_stay(browser: Browser, model: EdgeModel) -> None:
    context = browser.new_context()
    try:
        page = context.new_page()
        with running(model) as server:
            page.goto(server.url)
            ask(page, WISH)
            expect(page.locator("#items > li")).to_have_count(10)
        ask(page, "denim dress")
        expect(page.locator("#status.error")).to_contain_text("No answer: ")
        assert len(shown(page)) == 10
    finally:
        context.close()


def test_the_description_is_readable(page: Page, served: Running) -> None:
    page.get_by_role("link", name="API").click()
    expect(page).to_have_url(f"{served.url}/docs")
    expect(page.locator("body")).to_contain_text("/recommend")


def test_the_picture_is_made_where_it_is_asked_for(browser: Browser, pytestconfig: pytest.Config) -> None:
    picture, bundle = (pytestconfig.getoption(name) for name in ("--picture", "--picture-bundle"))
    if not (picture and bundle):
        pytest.skip("no picture is asked for: --picture FILE --picture-bundle BUNDLE")
    context = browser.new_context(viewport=PICTURE_SIZE, color_scheme="light")  # type: ignore[arg-type]
    try:
        page = context.new_page()
        with running(EdgeModel(bundle)) as server:
            page.goto(server.url)
            for _ in range(20):  # the first answers are slower than those that a person goes on to see
                with page.expect_response("**/recommend"):
                    ask(page, PICTURE_WISH)
            expect(page.locator("#items > li")).to_have_count(10)
            page.get_by_role("status").wait_for()
            page.screenshot(path=picture)
    finally:
        context.close()
    assert Path(picture).stat().st_size < MAX_PICTURE_BYTES
