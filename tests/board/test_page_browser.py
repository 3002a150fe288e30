"""The page in a real browser (Debian's chromium), opened from disk with the network off."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python import sync_playwright as axe
from playwright import sync_api

from tests.board.conftest import HOSTILE

CHROMIUM = os.environ.get("ZOO_CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"]
FLAGS += ["--disable-background-networking", "--disable-component-update"]

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="NOT RUN: the page in a browser; apt-get install chromium")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def open_page(browser: Any, page_file: Path) -> Iterator[Any]:
    """Opens the page, and fails the test where anything was said on the console, asked for, or popped up."""
    faults: list[str] = []
    contexts = []

    def open_one(fragment: str = "", *, scheme: str = "light", width: int = 1280, script: bool = True) -> Any:
        size = {"width": width, "height": 800}
        context = browser.new_context(
            offline=True, color_scheme=scheme, viewport=size, java_script_enabled=script, reduced_motion="reduce"
        )
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(20_000)
        page.on("console", lambda message: faults.append(f"console: {message.text}"))
        page.on("pageerror", lambda error: faults.append(f"error: {error}"))
        page.on("dialog", lambda dialog: faults.append(f"dialog: {dialog.message}"))
        page.on("request", lambda request: request.url.startswith("http") and faults.append(request.url))
        page.goto(page_file.as_uri() + fragment)
        return page

    yield open_one
    for context in contexts:
        context.close()
    assert faults == []


def shown(page: Any, task: str = "listops") -> list[str]:
    """The architectures in the rows of a task, as they are seen."""
    rows = page.locator(f"table.rows:visible tbody:has(a[href='#quick-{task}']) tr[data-row]:visible th")
    return rows.all_text_contents()


def control(page: Any, name: str) -> Any:
    """The text filter (q), or a facet."""
    return page.locator(f".panel:visible [data-state={name}]")


def seen_tabs(page: Any) -> list[str]:
    return page.locator(".panel:visible").evaluate_all("panels => panels.map(panel => panel.id)")


def test_tabs_show_one_protocol_and_go_by_arrow_keys(open_page: Any) -> None:
    page = open_page()
    assert seen_tabs(page) == ["paper"]
    page.get_by_role("tab", name="quick").click()
    assert seen_tabs(page) == ["quick"]
    page.keyboard.press("ArrowRight")
    assert seen_tabs(page) == ["reported"]
    assert page.get_by_role("tab", name="reported").get_attribute("aria-selected") == "true"
    assert page.evaluate("document.activeElement.textContent") == "reported"


def test_sorting_starts_with_the_best_turns_around_and_goes_back(open_page: Any) -> None:
    page = open_page("#quick")
    before = shown(page)
    button = page.locator("table.rows:visible thead").get_by_role("button", name="score", exact=True)
    button.focus()
    page.keyboard.press("Enter")
    assert button.locator("..").get_attribute("aria-sort") == "descending"
    assert shown(page)[:3] == ["alpha", "epsilon", "beta"]  # modified, other data, ranked
    assert shown(page)[-1] == "delta"  # without a score
    button.click()
    assert shown(page)[0].endswith("evil")
    assert shown(page)[-1] == "delta"
    button.click()
    assert shown(page) == before
    page.locator("table.rows:visible thead").get_by_role("button", name="architecture").click()
    assert shown(page)[:2] == ["alpha", "alpha"]


def test_filters_and_facets_narrow_the_rows_and_say_how_many(open_page: Any) -> None:
    page = open_page("#quick")
    control(page, "q").fill("MAMBA")
    assert shown(page) == ["mamba"]
    assert page.locator("output:visible").text_content().startswith("1 of ")
    page.get_by_role("button", name="Reset").locator("visible=true").click()
    control(page, "capability").select_option("step by step")
    assert shown(page) == ["mamba"]
    control(page, "capability").select_option("")
    control(page, "family").select_option(HOSTILE)
    assert {name[-4:] for name in shown(page)} == {"evil"}
    control(page, "family").select_option("")
    control(page, "task").select_option("mqar")
    assert shown(page) == []
    assert "gamma" in shown(page, "mqar")
    control(page, "objective").select_option("fill-in")
    assert shown(page, "mqar") == ["gamma"]
    control(page, "hardware").select_option("none: no run ended well")
    assert shown(page, "mqar") == []


def test_columns_are_chosen(open_page: Any) -> None:
    page = open_page("#quick")
    head = page.locator("table.rows:visible thead")
    assert not head.get_by_text("each seed").is_visible()
    page.locator("summary:visible", has_text="Columns").click()
    page.get_by_label("each seed").locator("visible=true").check()
    assert head.get_by_text("each seed").is_visible()
    page.locator(".columns:visible").get_by_label("family", exact=True).uncheck()
    assert not head.get_by_role("button", name="family").is_visible()


def test_usual_columns_that_are_empty_in_the_rows_in_sight_are_not_shown(open_page: Any) -> None:
    page = open_page("#quick")
    head = page.locator("table.rows:visible thead")
    assert head.get_by_role("button", name="objective").is_visible()
    control(page, "task").select_option("listops")
    assert not head.get_by_role("button", name="objective").is_visible()
    assert head.get_by_role("button", name="architecture").is_visible()


def test_reported_scores_are_sorted_too(open_page: Any) -> None:
    page = open_page("#reported")
    button = page.locator("table.sortable thead").get_by_role("button", name="listops")
    cells = page.locator("table.sortable tbody tr td:nth-child(2)")
    before = cells.all_text_contents()

    def numbers() -> list[float]:
        return [float(text.split()[0]) for text in cells.all_text_contents() if text.strip(" –-")]

    button.click()
    assert numbers() == sorted(numbers(), reverse=True)
    assert len(numbers()) > 5
    button.click()
    assert button.locator("..").get_attribute("aria-sort") == "ascending"
    assert numbers() == sorted(numbers())
    button.click()
    assert cells.all_text_contents() == before


def test_the_hash_holds_what_is_seen(open_page: Any) -> None:
    first = open_page("#quick")
    control(first, "q").fill("alpha")
    first.locator("table.rows:visible thead").get_by_role("button", name="parameters").click()
    first.locator("tr[data-row]:visible th a").first.click()
    again = open_page(first.evaluate("location.hash"))
    assert again.locator("dialog").is_visible()
    assert shown(again) == shown(first)
    again.keyboard.press("Escape")
    assert control(again, "q").input_value() == "alpha"
    assert "row=" not in again.evaluate("location.hash")
    linked = open_page("#quick-mqar")
    assert seen_tabs(linked) == ["quick"]
    assert linked.locator("#quick-mqar h3").is_visible()


def test_a_row_opens_into_a_drawer_by_keyboard_and_gives_the_focus_back(open_page: Any) -> None:
    page = open_page("#tab=quick&q=mamba")
    link = page.locator("tr[data-row]:visible th a")
    link.focus()
    page.keyboard.press("Enter")
    drawer = page.get_by_role("dialog", name="mamba on listops")
    for text in ("zoo bench --arch mamba", "arch.d_state", "https://arxiv.org/abs/2312.00752", "torch 2.12.0"):
        assert drawer.get_by_text(text).first.is_visible()
    assert drawer.get_by_role("img", name="accuracy from 20.0 % to 50.0 %").is_visible()
    drawer.get_by_label("Learning curve by").select_option("by seconds")
    assert drawer.get_by_text("2 seconds").is_visible()
    assert drawer.get_by_role("img", name="loss from 2.00 after one token to 1.00 after all").is_visible()
    assert drawer.get_by_text("64 tokens", exact=True).is_visible()
    records = drawer.get_by_role("link", name="record").evaluate_all("links => links.map((link) => link.href)")
    assert [record.split("/leaderboard/")[1].split("/")[0] for record in records] == ["results", "analyses"]
    assert all(Path(record.removeprefix("file://")).is_file() for record in records)
    page.keyboard.press("Escape")
    assert not drawer.is_visible()
    assert page.evaluate("document.activeElement.textContent") == "mamba"


def test_the_shown_rows_are_copied_as_markdown_and_csv(open_page: Any) -> None:
    page = open_page("#tab=quick&q=onerror&columns=architecture,score,notes")
    page.evaluate("navigator.clipboard.writeText = async (text) => { window.copied = text; }")
    page.get_by_role("button", name="Copy as CSV").locator("visible=true").click()
    lines = page.evaluate("copied").splitlines()
    assert lines[0] == '"task","architecture","score","notes"'
    assert lines[1] == '"listops","x""><b>bold</b>:evil","15.0 %",""'
    assert len(lines) == 3
    page.get_by_role("button", name="Copy as Markdown").locator("visible=true").click()
    lines = page.evaluate("copied").splitlines()
    assert lines[1] == "| --- | --- | --- | --- |"
    assert "&lt;b>bold" in lines[2]
    assert {line.replace("\\|", "").count("|") for line in lines} == {5}


def test_names_of_others_stay_text_in_the_drawer(open_page: Any) -> None:
    page = open_page("#tab=quick&q=onerror")
    page.locator("tr[data-row]:visible th a").last.click()
    drawer = page.locator("dialog")
    assert drawer.get_by_text(HOSTILE).first.is_visible()
    assert page.locator("img, dialog b").count() == 0


def test_all_of_it_is_there_without_javascript(open_page: Any) -> None:
    page = open_page(script=False)
    assert page.locator("table.rows").count() == 2
    assert page.locator("tr[data-row]").first.is_visible()
    assert page.locator("figure svg").first.is_visible()
    assert not page.locator(".tools").first.is_visible()


@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 1280), ("light", 390)])
def test_axe_finds_nothing_serious_in_light_dark_and_on_a_phone(open_page: Any, scheme: str, width: int) -> None:
    page = open_page("#quick", scheme=scheme, width=width)
    found = axe.Axe().run(page).response["violations"]
    page.locator("tr[data-row]:visible th a").first.click()
    found += axe.Axe().run(page).response["violations"]
    serious = [
        (fault["id"], [node["target"] for node in fault["nodes"]][:3])
        for fault in found
        if fault["impact"] in ("serious", "critical")
    ]
    assert serious == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    if folder := os.environ.get("ZOO_SCREENSHOTS"):
        page.keyboard.press("Escape")
        page.screenshot(path=Path(folder) / f"page-{scheme}-{width}.png", full_page=True)
