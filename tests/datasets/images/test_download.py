"""Images of many items from a server that has some, stalls on some and lies about others."""

import io
import re
import threading
import time
from collections import Counter
from dataclasses import replace
from unittest.mock import Mock

import numpy as np
import pytest

from recbole_m3rec.datasets.images import download
from recbole_m3rec.datasets.images.download import fetch_images
from recbole_m3rec.datasets.images.hosts import Politeness
from recbole_m3rec.datasets.images.report import (
    REPORT_NAME,
    Entry,
    append_to_report,
    count_reasons,
    read_report,
    write_report,
)
from recbole_m3rec.datasets.io.download import Limits
from recbole_m3rec.support.safe_write import CannotWriteError, FileInUseError, open_alone
from tests.datasets.http_server import serve

pytest.importorskip("PIL")

QUICK = Limits(max_bytes=50_000, stall=0.5, tries=2, first_wait=0.01)


def picture(seed, image_format="JPEG"):
    from PIL import Image

    noise = np.random.RandomState(seed).randint(0, 255, (12, 12, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).save(buffer, image_format)
    return buffer.getvalue()


PLACEHOLDER = picture(999, "GIF")


class Shop:
    """A server whose path says what it answers: ``/ok/7``, ``/404/1``, ``/blank/3``, …"""

    def __init__(self):
        self.asked = Counter()
        self.busy = self.most_busy = 0
        self.broken = True  # whether /flaky paths fail
        self.lock = threading.Lock()

    def answer(self, handler):
        with self.lock:
            self.asked[handler.path] += 1
            self.busy += 1
            self.most_busy = max(self.most_busy, self.busy)
        try:
            self.send(handler)
        finally:
            with self.lock:
                self.busy -= 1

    def send(self, handler):
        _, kind, number = handler.path.split("/")
        body, status = picture(int(number)), 200
        if kind == "png":
            body = picture(int(number), "PNG")
        elif kind == "slow":
            time.sleep(0.05)
        elif kind == "page":
            body = b"<html>gone</html>"
        elif kind == "blank":
            body = PLACEHOLDER
        elif kind == "large":
            body = body + bytes(60_000)
        elif kind == "cut":
            body = body[:-20]
        elif kind == "flaky" and self.broken:
            status = 503
        elif kind == "ico":
            body = picture(int(number), "ICO")
        elif kind.isdecimal():
            status = int(kind)
        handler.send_response(status)
        handler.send_header("Content-Length", str(len(body)))
        if status == 429:
            handler.send_header("Retry-After", "3600")
        handler.end_headers()
        handler.wfile.write(body)


@pytest.fixture
def shop():
    made = Shop()
    with serve(made.answer) as made.url:
        yield made


def fetch(shop, folder, paths, **options):
    urls = {item: f"{shop.url}{path}" if path else "" for item, path in paths.items()}
    settings = {"limits": QUICK, "allow_private": True, "show_progress": False}
    entries = fetch_images(urls, folder, **settings | options)
    return {entry.item_id: entry for entry in entries}


MIXED = {
    "a/b": "/ok/1",
    "plain": "/png/2",
    "gone": "/404/3",
    "page": "/page/4",
    "large": "/large/5",
    "cut": "/cut/6",
    "flaky": "/flaky/7",
    "icon": "/ico/1",
    "none": "",
    "twin": "/ok/1",
    "x" * 300: "/ok/8",
}


def test_what_can_be_had_is_had_and_the_rest_has_its_reason(shop, tmp_path):
    found = fetch(shop, tmp_path, MIXED)
    assert {item: (entry.status, entry.reason.split(" (")[0]) for item, entry in found.items()} == {
        "a/b": ("stored", ""),
        "plain": ("stored", ""),
        "gone": ("refused", "HTTP 404"),
        "page": ("refused", "an HTML or XML page, not an image"),
        "large": ("refused", "too large"),
        "cut": ("refused", "damaged or cut off"),
        "flaky": ("failed", "HTTP 503"),
        "icon": ("refused", "not an image of a known format"),
        "none": ("refused", "no address"),
        "twin": ("stored", ""),
        "x" * 300: ("refused", f"item {'x' * 40!r}… cannot be the name of a file"),
    }
    assert (tmp_path / "a%2Fb.jpg").read_bytes() == picture(1)
    assert (tmp_path / "plain.png").read_bytes() == picture(2, "PNG")
    assert shop.asked["/ok/1"] == 1  # two items, one address
    assert (tmp_path / "twin.jpg").read_bytes() == picture(1)
    assert count_reasons(found.values())["HTTP 404"] == 1
    assert list(read_report(tmp_path).values()) == sorted(
        found.values(), key=lambda entry: entry.item_id
    )


def test_a_second_run_asks_only_for_what_may_come(shop, tmp_path):
    fetch(shop, tmp_path, MIXED)
    shop.asked.clear()
    shop.broken = False
    found = fetch(shop, tmp_path, MIXED)
    assert shop.asked == {"/flaky/7": 1}
    assert found["flaky"].status == "stored"
    shop.asked.clear()
    (tmp_path / "plain.png").unlink()
    fetch(shop, tmp_path, MIXED)
    assert shop.asked == {"/png/2": 1}


def test_what_was_refused_is_asked_again_on_demand(shop, tmp_path):
    fetch(shop, tmp_path, MIXED)
    shop.asked.clear()
    fetch(shop, tmp_path, MIXED, retry_refused=True)
    assert set(shop.asked) == {*("/404/3", "/page/4", "/large/5", "/cut/6", "/flaky/7", "/ico/1")}


def test_what_an_option_lifts_is_asked_again(shop, tmp_path):
    paths = {"blank1": "/blank/1", "blank2": "/blank/2", "large": "/large/5", "gone": "/404/3"}
    fetch(shop, tmp_path, paths, placeholder_from=2)
    shop.asked.clear()
    fetch(shop, tmp_path, paths, placeholder_from=2)
    assert not shop.asked
    found = fetch(
        shop, tmp_path, paths, placeholder_from=3, limits=replace(QUICK, max_bytes=100_000)
    )
    assert set(shop.asked) == {"/blank/1", "/blank/2", "/large/5"}
    assert [found[item].status for item in paths] == ["stored"] * 3 + ["refused"]


@pytest.mark.parametrize("number", [-1, 1])
def test_a_picture_of_one_address_is_no_placeholder(shop, tmp_path, number):
    fetch(shop, tmp_path, {"a": "/ok/1"})
    with pytest.raises(ValueError, match=f"must be 0.* from 2 on, found {number}"):
        fetch(shop, tmp_path, {"a": "/ok/1"}, placeholder_from=number)
    assert (tmp_path / "a.jpg").is_file()


def test_a_host_that_asks_for_an_hour_is_asked_no_more(shop, tmp_path):
    paths = {f"item{number}": f"/429/{number}" for number in range(9)}
    found = fetch(shop, tmp_path, paths, politeness=Politeness(per_host=2))
    assert shop.asked.total() <= 3
    assert count_reasons(found.values()) == {"the host asks for a long wait": 9}
    assert {entry.status for entry in found.values()} == {"failed"}
    assert found["item8"].url.endswith("/429/8")


def test_addresses_of_any_length_stay_out_of_the_report(tmp_path):
    urls = {"a": f"data:image/png;base64,{'A' * 200_000}", "b": "/x.jpg", "c": "ftp://h/x.jpg"}
    for _ in range(2):
        entries = fetch_images(urls, tmp_path, limits=QUICK, show_progress=False)
    assert count_reasons(entries) == {
        "an address that is too long": 1,
        "only http and https are fetched": 2,
    }
    assert (tmp_path / REPORT_NAME).stat().st_size < 1000


def test_a_report_of_before_with_a_long_address_is_read(shop, tmp_path):
    entry = Entry("a", "refused", "HTTP 404", f"{shop.url}/404/{'9' * 200_000}")
    write_report(tmp_path, [entry])
    assert read_report(tmp_path) == {"a": entry}


def test_a_report_names_no_file_of_another_folder(shop, tmp_path):
    (tmp_path / "own.txt").touch()
    folder = tmp_path / "images"
    write_report(folder, [Entry("a", "stored", "", f"{shop.url}/ok/2", "../own.txt", "7")])
    fetch(shop, folder, {"a": "/ok/1"})
    assert (tmp_path / "own.txt").is_file()


def test_one_run_at_a_time_fetches_to_a_folder(shop, tmp_path):
    with (
        open_alone(tmp_path / f".{REPORT_NAME}.lock.tmp"),
        pytest.raises(FileInUseError, match=f"{tmp_path.name}: another run is writing it"),
    ):
        fetch(shop, tmp_path, {"a": "/ok/1"})
    assert fetch(shop, tmp_path, {"a": "/ok/1"})["a"].status == "stored"


def test_an_item_with_a_new_address_loses_its_old_image(shop, tmp_path, monkeypatch):
    fetch(shop, tmp_path, {"a": "/ok/1", "b": "/ok/2", "c": "/ok/5"})
    (tmp_path / "own.jpg").touch()
    paths = {"a": "/png/3", "b": "/404/4", "c": "", "own": ""}
    with monkeypatch.context() as patch:
        patch.setattr(download, "results_of", Mock(side_effect=KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            fetch(shop, tmp_path, paths)
    fetch(shop, tmp_path, paths)
    images = {path.name for path in tmp_path.iterdir() if path.name != REPORT_NAME}
    assert images == {"a.png", "own.jpg"}
    assert (tmp_path / "a.png").read_bytes() == picture(3, "PNG")


def test_a_picture_that_many_addresses_give_is_a_placeholder_unless_it_is_to_be_kept(
    shop, tmp_path
):
    paths = {f"item{number}": f"/blank/{number}" for number in range(5)}
    kept = fetch(shop, tmp_path / "kept", paths, placeholder_from=0)
    assert {entry.status for entry in kept.values()} == {"stored"}
    paths |= {f"same{number}": "/ok/1" for number in range(9)}  # one address: no placeholder
    found = fetch(shop, tmp_path, paths, placeholder_from=5)
    reasons = {found[f"item{number}"].reason for number in range(5)}
    assert reasons == {"placeholder, the same picture at 5 addresses"}
    assert not list(tmp_path.glob("item*"))
    assert len(list(tmp_path.glob("same*.jpg"))) == 9
    assert count_reasons(found.values()) == {"placeholder": 5}
    shop.asked.clear()
    again = fetch(shop, tmp_path, paths | {"item9": "/blank/9"}, placeholder_from=5)
    assert shop.asked == {"/blank/9": 1}
    assert again["item9"].reason == "placeholder, the same picture at 6 addresses"
    for _ in range(2):  # of fewer items, too
        few = fetch(shop, tmp_path, {"item1": "/blank/1", "item2": "/blank/2"}, placeholder_from=5)
        assert {entry.status for entry in few.values()} == {"refused"}


def test_no_host_is_asked_more_often_at_once_than_it_may(shop, tmp_path):
    paths = {f"item{number}": f"/slow/{number}" for number in range(12)}
    fetch(shop, tmp_path, paths, politeness=Politeness(at_once=12, per_host=3))
    assert shop.most_busy == 3


@pytest.mark.parametrize("name", ["at_once", "per_host"])
@pytest.mark.parametrize("value", [0, -1, 1.5, "4", None, True])
def test_a_number_of_fetches_at_once_that_is_none_is_refused(name, value):
    said = f"{name} must be a whole number from 1 on, found {value!r}"
    with pytest.raises(ValueError, match=re.escape(said)):
        Politeness(**{name: value})


def test_a_slow_host_does_not_hold_up_another(shop, tmp_path):
    # Two names of this machine are two hosts; one of them has one fetch at a time.
    other = shop.url.replace("127.0.0.1", "localhost")
    urls = {f"item{number}": f"{shop.url}/slow/{number}" for number in range(4)}
    urls |= {f"other{number}": f"{other}/slow/{number}" for number in range(4)}
    fetch_images(
        urls,
        tmp_path,
        limits=QUICK,
        politeness=Politeness(at_once=4, per_host=1),
        allow_private=True,
        show_progress=False,
    )
    assert shop.most_busy == 2
    assert len(list(tmp_path.glob("*.jpg"))) == 8


def test_a_run_that_was_killed_goes_on_and_ends_alike(shop, tmp_path):
    shop.broken = False
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    fetch(shop, whole, MIXED)
    fetch(shop, cut, {item: path for item, path in MIXED.items() if item in ("a/b", "gone")})
    report = (cut / REPORT_NAME).read_text()
    # As a kill leaves it: the last line torn, a half-written picture beside.
    (cut / REPORT_NAME).write_text(report + "plain,stored,,http://127.0")
    (cut / "flaky.jpg").write_bytes(picture(7)[:100])
    shop.asked.clear()
    fetch(shop, cut, MIXED)
    assert "/ok/1" in shop.asked  # twin has no line yet
    assert "/404/3" not in shop.asked
    contents = [
        {path.name: path.read_bytes() for path in folder.iterdir()} for folder in (whole, cut)
    ]
    assert contents[0] == contents[1]


def test_an_interrupted_run_keeps_what_it_had(shop, tmp_path, monkeypatch):
    lines = []

    def append(file, entries):
        append_to_report(file, entries)
        lines.append(entries)
        if len(lines) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(download, "append_to_report", append)
    paths = {f"item{number}": f"/ok/{number}" for number in range(8)}
    with pytest.raises(KeyboardInterrupt):
        fetch(shop, tmp_path, paths, politeness=Politeness(1, 1))
    monkeypatch.undo()
    kept = read_report(tmp_path)
    assert len(kept) == 3
    shop.asked.clear()
    fetch(shop, tmp_path, paths)
    assert not {f"/ok/{item[4:]}" for item in kept} & set(shop.asked)
    assert len(list(tmp_path.glob("*.jpg"))) == 8


def test_private_addresses_and_other_protocols_are_refused(shop, tmp_path):
    found = fetch(shop, tmp_path, {"a": "/ok/1"}, allow_private=False)
    assert found["a"].status == "refused"
    assert "--allow-private" in found["a"].reason
    assert not shop.asked
    assert fetch(shop, tmp_path, {"a": "/ok/1"})["a"].status == "stored"
    urls = {"b": "file:///etc/passwd"}
    [entry] = fetch_images(urls, tmp_path, limits=QUICK, show_progress=False)
    assert entry.reason == "only http and https are fetched"


def test_a_full_disk_ends_the_run(shop, tmp_path, monkeypatch):
    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(download.shutil, "copyfile", full)
    with pytest.raises(CannotWriteError, match="No space left on device"):
        fetch(shop, tmp_path, {"a": "/ok/1", "b": "/ok/2"})


@pytest.mark.parametrize("file", ["..", "../kept.jpg", "."])
def test_a_report_that_names_what_is_no_file_here_removes_nothing(shop, tmp_path, file):
    (tmp_path / "kept.jpg").touch()
    folder = tmp_path / "photos"
    fetch(shop, folder, {"a": "/ok/1"})
    report = folder / "download.csv"
    report.write_text(report.read_text().replace("a.jpg", file))
    assert fetch(shop, folder, {"a": "/ok/2"})["a"].status == "stored"
    assert (tmp_path / "kept.jpg").is_file()
