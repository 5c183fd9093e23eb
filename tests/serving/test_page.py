"""The page in a real browser: search, add, why, neighbours, sliders, by mouse and by keyboard."""

from urllib.parse import quote

import pyarrow as pa
import pytest

from tests.serving.conftest import N_ITEMS, made_items, opened

expects = pytest.importorskip("playwright.sync_api").expect
pytestmark = pytest.mark.slow


def titles(page):
    return page.locator("#cards .card .tile strong").all_inner_texts()


def test_a_history_is_built_explained_and_weighed(browser, address):
    page, problems = opened(browser, address)
    assert "used most" in page.locator("#note").inner_text()
    page.keyboard.press("/")
    page.keyboard.type("blue shoe")
    page.wait_for_selector("#found [role=option]")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    page.wait_for_selector("#history li")
    page.wait_for_selector("#cards .bar")
    first = titles(page)
    assert page.locator("#history li").inner_text().split("\n")[-1].startswith("Élan blue shoe")

    page.locator("#cards .card").nth(1).get_by_role("button", name="Why").click()
    page.wait_for_selector("#why .term")
    assert page.locator("#why .because").count() >= 1
    page.keyboard.press("Escape")
    page.wait_for_selector("#why", state="hidden")

    page.locator("#weight-image").fill("0")
    expects(page.locator("#cards strong")).not_to_have_text(first)
    assert page.locator("#even").is_visible()

    page.locator("#cards .card").first.get_by_role("button", name="Items like").click()
    page.wait_for_selector("#near .card")
    page.get_by_role("tab", name="Text").click()
    page.wait_for_selector('#near-tabs [aria-selected="true"] >> text=Text')
    page.locator("#near .card").first.get_by_role("button", name="to the history").click()
    expects(page.locator("#history li")).to_have_count(2)
    page.locator("#history li button").first.click()
    expects(page.locator("#history li")).to_have_count(1)
    assert not problems


def test_a_user_is_chosen_and_the_address_keeps_it(browser, address):
    page, problems = opened(browser, address)
    page.locator("#search").fill("böb")
    page.locator("#found [role=option]", has_text="böb").click()
    expects(page.locator("#history li")).to_have_count(3)
    assert page.locator("#whose").inner_text() == "History of böb"
    page.reload()
    expects(page.locator("#history li")).to_have_count(3)
    page.locator("#history li button").first.click()
    expects(page).to_have_url(f"{address}/#items=i9,i8")
    page.reload()
    expects(page.locator("#history li")).to_have_count(2)
    page.goto(f"{address}/#user=ann")  # pasted into the open tab
    expects(page.locator("#whose")).to_have_text("History of ann")
    assert not problems


def test_the_focus_stays_where_something_was_done(browser, address):
    page, problems = opened(browser, address, at="/#items=i1,i2,i3")
    page.wait_for_selector("#cards .bar")

    def press(button, key="Enter"):
        button.focus()
        page.keyboard.press(key)

    for n in (2, 1):
        press(page.locator("#history button").last)
        expects(page.locator("#history li")).to_have_count(n)
        expects(page.locator("#history button").last).to_be_focused()
    card = page.locator("#cards .card").nth(1)
    with page.expect_response("**/recommend"):
        press(card.get_by_role("button", name="Add"))
    expects(page.locator("#history li")).to_have_count(2)
    expects(card.get_by_role("button", name="Add")).to_be_focused()
    press(card.get_by_role("button", name="Why"))
    expects(page.locator("#why")).to_be_focused()
    page.keyboard.press("Escape")
    expects(card.get_by_role("button", name="Why")).to_be_focused()
    press(card.get_by_role("button", name="Items like"))
    page.wait_for_selector("#near .card")
    press(page.locator("#near .card").first.get_by_role("button", name="Items like"))
    expects(page.get_by_role("tab", name="All")).to_be_focused()
    page.keyboard.press("Escape")
    press(page.locator("#clear"))
    expects(page.locator("#results")).to_be_focused()
    assert not problems


def test_only_a_click_adds_and_why_stays_after_one(browser, address):
    page, problems = opened(browser, address, at="/#items=i1")
    page.wait_for_selector("#cards .bar")
    page.locator("#cards .card").first.get_by_role("button", name="Why").click()
    page.wait_for_timeout(400)  # when hovering alone would open it
    page.mouse.move(1, 1)
    expects(page.locator("#why")).to_be_visible()
    page.locator("#search").focus()
    found = page.locator("#found [role=option]")
    found.first.dispatch_event("pointerdown")  # as a finger that scrolls
    found.nth(1).evaluate("row => row.click()")  # as a screen reader
    expects(page.locator("#history li")).to_have_count(2)
    page.locator("#search").fill("zebra")
    expects(found).to_have_text(["Nothing has “zebra” in it"])
    assert not problems


def start_with_ids(write_made, start_server, ids):
    """Start the service of the made bundle whose items have other ids; return its address."""
    items = made_items().set_column(0, "item_id", pa.array(ids))
    return start_server(write_made(items=items, histories=None))[1]


def at_items(ids):
    return "/#items=" + ",".join(quote(one, safe="") for one in ids)


def test_any_id_is_restored_from_the_address_and_unknown_ones_are_left_out(
    browser, write_made, start_server
):
    known = ["a,b", "50%", "x&items=y+z", "🦉" * 256, "i" * 256, "plain", "with space"]
    rest = [f"i{n}" for n in range(len(known), N_ITEMS)]
    address = start_with_ids(write_made, start_server, known + rest)
    asked = [*known[:3], "a", "u" * 201, "u" * 257, *known[3:]]
    page, problems = opened(browser, address, at=at_items(asked))
    shown = page.locator("#history li").evaluate_all("rows => rows.map(row => row.dataset.item)")
    assert shown == known[::-1]
    page.goto(f"{address}/#items=plain,with space,50%,nope")  # as typed, without escapes
    expects(page.locator("#history li")).to_have_count(3)
    page.goto(f"{address}/#user={'u' * 257}")
    page.reload()
    expects(page.locator("#cards .card").first).to_be_visible()
    assert not problems


def test_the_address_keeps_as_many_items_as_the_service_takes(browser, write_made, start_server):
    ids = [f"item {n}" for n in range(N_ITEMS)]
    address = start_with_ids(write_made, start_server, ids)
    history = [ids[n % N_ITEMS] for n in range(1010)]
    page, problems = opened(browser, address, at=at_items(history), ready="#history li")
    expects(page).to_have_url(address + at_items(history[-1000:]))
    with page.expect_request("**/recommend") as asked:
        page.reload()
    assert asked.value.post_data_json["history"] == history[-1000:]
    assert not problems


def test_the_note_counts_what_is_shown(browser, address):
    ids = [f"i{n}" for n in range(1, N_ITEMS + 1)]
    page, problems = opened(browser, address, at=at_items(ids[:58]))
    note = page.locator("#note")
    expects(note).to_contain_text("Two of 60 items for a history of 58. Hover or tap one to")
    for left, said in (
        (1, "One of 60 items for a history of 59. Hover or tap it to"),
        (0, "Nothing is left"),
    ):
        page.locator("#cards .card").first.get_by_role("button", name="to the history").click()
        expects(note).to_contain_text(said)
        expects(page.locator("#cards .card")).to_have_count(left)
    page.locator("#clear").click()
    expects(note).to_contain_text("used most")
    page.locator("#cards .card").first.get_by_role("button", name="to the history").click()
    expects(note).to_contain_text("Twelve of 60 items")
    assert not problems


@pytest.mark.parametrize("width", [390, 768, 1000, 1600])
def test_nothing_is_wider_than_the_window(browser, write_made, start_server, width):
    address = start_server(write_made(items=titled("Élan " + "very " * 30, "Ú" * 90)))[1]
    page, problems = opened(browser, address, width, scheme="dark", has_touch=width < 500)
    for n in (1, 2):
        page.locator("#cards .card").first.get_by_role("button", name="Add").click()
        expects(page.locator("#history li")).to_have_count(n)
    page.wait_for_selector("#cards .bar")
    page.locator("#cards .card").nth(1).get_by_role("button", name="Why").click()
    page.wait_for_selector("#why .because")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    overflowing = page.evaluate(
        "[...document.querySelectorAll('.card, .panel, .card .bar, .actions, .why *')]"
        ".map(one => [one, one.parentElement].map(each => each.getBoundingClientRect().right))"
        ".filter(([own, parents]) => own > parents + 1).length"
    )
    assert overflowing == 0
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"
    page.locator("#theme").click()
    assert page.evaluate("document.documentElement.dataset.theme") == "light"
    assert not problems


def titled(*titles):
    """Return the made items with other titles, again and again."""
    items = made_items()
    place = items.column_names.index("title")
    named = [titles[n % len(titles)] for n in range(N_ITEMS)]
    return items.set_column(place, "title", [named])


def test_titles_are_text_and_never_markup(browser, write_made, start_server):
    evil = "<img src=x onerror=alert(1)>"
    page, problems = opened(
        browser, start_server(write_made(items=titled("שלום", " ", evil)))[1], at="/#items=i1,i2"
    )
    page.wait_for_selector("#cards .bar")
    assert {"i59", "שלום", evil} <= set(titles(page))  # the first one's title is blank
    for place in ("#cards strong >> text=שלום", "#history b >> text=שלום"):
        direction = "one => getComputedStyle(one).direction"
        assert page.locator(place).first.evaluate(direction) == "rtl"
    assert not problems
