"""A new bundle is taken while requests go on, and a broken one is not."""

import json
import shutil
import signal
import sqlite3
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from recbole_m3rec.serving.recommender import Recommender
from recbole_m3rec.serving.service.app import _reload_logged
from tests.serving.conftest import N_ITEMS, is_problem, made_items, made_network


def test_pictures_follow_the_bundle_and_the_folder(make_client, write_made, tmp_path, caplog):
    photos, secret = tmp_path / "photos", {"authorization": "Bearer secret"}
    photos.mkdir()
    (photos / "i3.jpg").write_bytes(b"three")
    client = make_client(write_made(), images=photos, admin_token="secret")

    def addresses():
        items = client.get("/items", params={"limit": 100}).json()["items"]
        return {one["item"]: one["picture"] for one in items if "picture" in one}

    old = addresses()
    (photos / "i58.jpg").write_bytes(b"fifty-eight")
    write_made(items=made_items().take(list(range(N_ITEMS))[::-1]))
    client.post("/admin/reload", headers=secret)
    new = addresses()
    assert set(new) == {"i3", "i58"}
    assert {item: client.get(path).content for item, path in new.items()} == {
        "i3": b"three",
        "i58": b"fifty-eight",
    }
    is_problem(client.get(old["i3"]), 404)  # of the row that is another item's now
    is_problem(client.get(new["i3"] + "%2F.."), 404)

    for photo in photos.iterdir():
        photo.unlink()
    write_made()
    answer = client.post("/admin/reload", headers=secret)
    assert "The old bundle stays in use" in is_problem(answer, 409)
    client.portal.call(_reload_logged, client.app.state.service)  # as a hangup does
    assert "the old bundle stays in use" in caplog.text
    assert addresses() == new


def test_a_new_bundle_is_taken_and_a_broken_one_is_not(make_client, write_made):
    folder = write_made()
    client = make_client(folder, admin_token="secret")
    old = client.get("/about").json()["bundle"]
    is_problem(client.post("/admin/reload"), 403)
    for given in ("Bearer no", "secret", "Bearer Bearer secret", "Bearer None"):
        is_problem(client.post("/admin/reload", headers={"authorization": given}), 403)
    write_made(network=made_network(spread=2.0))
    answer = client.post("/admin/reload", headers={"authorization": "Bearer secret"})
    new = Recommender.load(folder).digest
    assert answer.json()["bundle"] == client.get("/about").json()["bundle"] == new != old
    (folder / "items.parquet").write_bytes(b"broken")
    answer = client.post("/admin/reload", headers={"authorization": "Bearer secret"})
    assert "items.parquet" in is_problem(answer, 409)
    assert client.post("/recommend", json={"history": ["i1"]}).json()["bundle"] == new


@pytest.mark.parametrize("maps", [False, True], ids=["in memory", "mapped"])
def test_a_bundle_that_is_written_over_gives_no_mixture(
    make_client, write_made, monkeypatch, caplog, maps
):
    monkeypatch.setattr("recbole_m3rec.serving.bundle.files.MAPPED_FROM", 0 if maps else 2**20)
    folder, other = write_made(), write_made("other", network=made_network(spread=2.0))
    client, secret = make_client(folder, admin_token="secret"), {"authorization": "Bearer secret"}

    def ask():
        return client.post("/recommend", json={"history": ["i1"], "k": 5, "explain": True})

    before = ask().json()
    for path in other.iterdir():
        shutil.copy(path, folder)
    (folder / "vectors.safetensors").write_bytes(b"")
    assert "vectors.safetensors" in is_problem(client.post("/admin/reload", headers=secret), 409)
    if maps:
        for answer in (ask(), client.get("/readyz"), ask()):
            assert "written over" in is_problem(answer, 503)
        assert caplog.text.count("of the bundle in use was written over") == 1
        assert client.get("/healthz").status_code == 200
    else:
        assert ask().json() == before
    shutil.copy(other / "vectors.safetensors", folder)
    client.post("/admin/reload", headers=secret)
    assert ask().json()["bundle"] == client.get("/readyz").json()["bundle"] != before["bundle"]
    write_made()  # takes the folder's place, and does no harm
    assert ask().status_code == 200


def test_no_request_is_dropped_while_bundles_change(make_client, write_made):
    client = make_client(write_made(), admin_token="secret")
    ending, failed, answered = threading.Event(), [], []

    def ask():
        while not ending.is_set():
            response = client.post("/recommend", json={"history": ["i1", "i2"], "k": 5})
            (answered if response.status_code == 200 else failed).append(response.text)

    with ThreadPoolExecutor(4) as pool:
        for _ in range(4):
            pool.submit(ask)
        for number in range(3):
            write_made(network=made_network(spread=1.0 + number))
            client.post("/admin/reload", headers={"authorization": "Bearer secret"})
        ending.set()
    assert not failed
    assert len({json.loads(text)["bundle"] for text in answered}) >= 2


@pytest.mark.slow
def test_a_hangup_reloads_the_bundle_and_a_kill_loses_no_event(start_server, write_made):
    bundle, acknowledged = write_made(), []
    process, address = start_server(bundle)
    old = httpx.get(f"{address}/about").json()["bundle"]
    write_made(network=made_network(spread=2.0))
    process.send_signal(signal.SIGHUP)
    deadline = time.monotonic() + 60
    while httpx.get(f"{address}/about").json()["bundle"] == old:
        assert time.monotonic() < deadline, "the bundle stayed"
        time.sleep(0.05)

    def send(worker):
        with httpx.Client(base_url=address, timeout=5) as http:
            for number in range(10**6):
                event = {"user": f"{worker}-{number}", "items": ["i9"]}
                try:
                    http.post("/events", json=event).raise_for_status()
                except httpx.HTTPError:
                    return
                acknowledged.append(event["user"])
                if len(acknowledged) == 100:
                    process.kill()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(send, range(4)))
    rows = sqlite3.connect(f"{bundle}.events.sqlite").execute("SELECT user FROM events")
    assert len(acknowledged) >= 100
    assert not set(acknowledged) - {row[0] for row in rows}
