"""The page in a real browser: search, add, why, neighbours, sliders, by mouse and by keyboard."""

import json
import shutil
import signal
from urllib.parse import quote
from urllib.request import urlopen

import pyarrow as pa
import pytest

from tests.serving.conftest import N_ITEMS, made_items

sync_api = pytest.importorskip("playwright.sync_api")
expects = sync_api.expect
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine"),
]


@pytest.fixture
def address(write_made, start_server):
    return start_server(write_made())[1]


@pytest.fixture
def browser():
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


def opened(
    browser, address, width=1400, scheme="light", at="", ready="#cards .card", script="", **more
):
    """Open the page; any error of a script, and any request to another host, fails the test."""
    context = browser.new_context(
        viewport={"width": width, "height": 900}, color_scheme=scheme, **more
    )
    page = context.new_page()
    page.add_init_script(script)
    page.route(  # as a proxy does
        "**/shop/**", lambda route: route.continue_(url=route.request.url.replace("/shop/", "/"))
    )
    page.set_default_timeout(60_000)
    problems = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("console", lambda line: problems.append(line.text) if line.type == "error" else None)
    page.on(
        "request",
        lambda request: None if request.url.startswith(address) else problems.append(request.url),
    )
    page.goto(address + at)
    page.wait_for_selector(ready)
    return page, problems


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


def test_what_fails_is_said_in_a_sentence(browser, address):
    page, _ = opened(browser, address, at="/#items=i1,i2")
    note, like = page.locator("#note"), page.get_by_role("button", name="Items like").first
    errors = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    ill = {"status": 503, "content_type": "application/problem+json", "body": '{"detail":"Ill."}'}
    page.route("**/similar", lambda route: route.fulfill(**ill))
    like.click()
    expects(note).to_have_text("Ill.")
    page.route("**/users?*", lambda route: route.abort())
    page.locator("#anyone").click()
    expects(note).to_have_text("The service cannot be reached. Try again.")
    page.route("**/recommend", lambda route: route.fulfill(status=502, body="<html>Bad gateway"))
    page.locator("#history button").first.click()
    expects(note).to_contain_text("does not answer as it should (status 502)")
    page.route("**/about", lambda route: route.fulfill(**ill))
    page.unroute("**/recommend")
    page.reload()
    expects(note).to_have_text("Ill.")
    page.unroute("**/about")
    page.locator("#search").focus()
    expects(page.locator("#found")).to_be_visible()
    expects(page.locator("#history li")).to_have_count(1)
    assert not errors


def test_a_wrong_key_is_told_and_any_can_be_typed(browser, write_made, start_server, monkeypatch):
    monkeypatch.setenv("M3REC_API_KEY", "sésam е")
    page, _ = opened(browser, start_server(write_made())[1], ready="#key[open]")
    for key in ("пароль", "sésam е"):
        page.locator("#key-value").fill(key)
        page.keyboard.press("Enter")
        if key == "пароль":
            expects(page.locator("#key-title")).to_have_text("The service refuses this key")
    page.wait_for_selector("#cards .card")
    page.reload()
    page.wait_for_selector("#cards .card")


def test_another_bundle_is_told(browser, write_made, start_server):
    process, address = start_server(write_made())
    page, problems = opened(browser, address, at="/#items=i1")
    expects(page.locator("#about")).to_contain_text("60 items")
    ids = pa.array([f"j{n}" for n in range(40)])
    write_made(n_items=40, items=made_items(40).set_column(0, "item_id", ids), histories=None)
    process.send_signal(signal.SIGHUP)
    while json.load(urlopen(f"{address}/about"))["items"] != 40:
        page.wait_for_timeout(50)
    page.locator("#weight-text").fill("2")
    expects(page.locator("#about")).to_contain_text("40 items")
    expects(page.locator("#note")).to_contain_text("knows nothing in this history")
    expects(page.locator("#weight-text")).to_have_value("2")
    assert not problems


def test_the_page_is_behind_a_path_and_where_nothing_may_be_kept(browser, address):
    denied = "".join(
        f"Object.defineProperty(window, '{name}Storage', {{ get() {{ throw Error('no') }} }});"
        for name in ("local", "session")
    )
    page, problems = opened(browser, address, at="/shop/", script=denied)
    page.locator("#theme").click()
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"
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
