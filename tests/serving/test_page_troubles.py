"""The page where the service fails, wants a key or takes another bundle, and in an odd browser."""

import json
import signal
from urllib.request import urlopen

import pyarrow as pa
import pytest

from tests.serving.conftest import made_items, opened

expects = pytest.importorskip("playwright.sync_api").expect
pytestmark = pytest.mark.slow


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
