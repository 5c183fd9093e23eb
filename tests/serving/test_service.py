"""The service answers as the Recommender does, keeps what it acknowledged, and documents errors."""

import asyncio
import json
import select
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
import uvicorn

from recbole_m3rec.serving.service.app import create_app
from recbole_m3rec.serving.service.batching import Batcher
from recbole_m3rec.serving.service.endpoints import PAGE
from recbole_m3rec.serving.service.limits import RequestLimits
from recbole_m3rec.serving.service.state import Settings
from tests.serving.conftest import is_problem


def test_it_recommends_what_the_recommender_does(client, shop):
    body = {"history": ["i4", "nope", "i9"], "k": 5, "explain": True, "weights": {"id": 2}}
    answer = client.post("/recommend", json=body).json()
    frame = shop.recommend([["i4", "i9"]], 5, weights={"id": 2}, explain=True)
    assert [item["item"] for item in answer["items"]] == list(frame["item"])
    for item, (_, row) in zip(answer["items"], frame.iterrows(), strict=True):
        assert item["score"] == pytest.approx(row["score"], abs=1e-4)
        assert sum(item["terms"].values()) == pytest.approx(item["score"], abs=1e-4)
        assert set(item["terms"]) == {"image", "text", "id"}
        assert item["title"].startswith("Élan")
    assert (answer["source"], answer["unknown_items"]) == ("model", 1)
    assert answer["bundle"] == shop.digest


def test_events_count_at_once_after_the_bundles_history(client, shop):
    assert client.post("/events", json={"user": "ann", "items": ["i9", "i30"]}).json() == {
        "accepted": 2
    }
    answer = client.post("/recommend", json={"user": "ann", "k": 3}).json()
    frame = shop.recommend([["i1", "i2", "i9", "i30"]], 3)
    assert [item["item"] for item in answer["items"]] == list(frame["item"])
    history = client.get("/history", params={"user": "ann"}).json()["items"]
    assert [item["item"] for item in history] == ["i1", "i2", "i9", "i30"]
    detail = is_problem(client.post("/events", json={"user": "ann", "items": ["i1", "x"]}), 404)
    assert "'x'" in detail
    assert len(client.get("/history", params={"user": "ann"}).json()["items"]) == 4


def test_an_unknown_user_gets_what_is_used_most(client):
    answer = client.post("/recommend", json={"user": "nobody 🦉", "k": 2}).json()
    assert answer["source"] == "popular"
    assert [item["item"] for item in answer["items"]] == ["i3", "i1"]
    user = "'; DROP TABLE events; -- ../../\u0000 🦉"
    assert client.post("/events", json={"user": user, "items": ["i9"]}).status_code == 200
    answer = client.post("/recommend", json={"user": user, "k": 2}).json()
    assert answer["source"] == "model"


def test_explain_similar_items_users_about(client, shop):
    found = client.post("/explain", json={"history": ["i4", "i9"], "item": "i30"}).json()
    ours = shop.explain(["i4", "i9"], "i30")
    assert found["terms"] == pytest.approx(ours.terms, abs=1e-5)
    assert found["because"]["text"][0]["item"] == ours.because["text"][0][0]
    similar = client.post("/similar", json={"item": "i7", "modality": "text", "k": 3}).json()
    assert [one["item"] for one in similar["items"]] == list(shop.similar("i7", "text", 3)["item"])
    nothing = client.post("/similar", json={"item": "i5", "modality": "image"}).json()
    assert nothing == {"items": [], "reason": "item 'i5' has no image"}
    assert client.get("/items", params={"q": "elan hat", "limit": 1}).json()["items"][0]["item"]
    named = client.post("/items", json={"items": ["i9", "nope", "u" * 256, "i1", "i9"]}).json()
    assert [item["item"] for item in named["items"]] == ["i9", "i1", "i9"]
    assert client.get("/items", params={"q": "u" * 256}).json() == {"items": []}
    assert client.get("/users", params={"q": "BÖB"}).json() == {"users": ["böb"]}
    assert client.get("/about").json()["modalities"] == ["image", "text", "id"]
    assert client.get("/readyz").json()["bundle"] == shop.digest
    assert client.get("/healthz").json()["status"] == "ok"
    metrics = client.get("/metrics").text
    assert 'm3rec_requests_total{path="/explain",status="200"} 1.0' in metrics


BAD_REQUESTS = (
    ("/recommend", {"history": ["i1"], "k": -1}, 422, "k: Input should be greater"),
    ("/recommend", {"history": ["i1"], "k": 10**9}, 422, "k: Input should be less"),
    ("/recommend", {"history": ["i1"], "k": True}, 422, "k: Input should be a valid integer"),
    ("/recommend", {"history": ["i1"], "k": "3"}, 422, "k: Input should be a valid integer"),
    ("/recommend", {"history": ["i1"], "k": 2.0}, 422, "k: Input should be a valid integer"),
    ("/similar", {"item": "i1", "k": True}, 422, "k: Input should be a valid integer"),
    (
        "/recommend",
        {"history": ["i1"], "exclude_seen": "no"},
        422,
        "exclude_seen: Input should",
    ),
    ("/recommend", {"history": "i1"}, 422, "history: Input should be a valid list"),
    ("/recommend", {"history": {"i1": 1}}, 422, "history: Input should be a valid list"),
    ("/recommend", {"history": ["i1", 5]}, 422, "history.1: Input should be a valid string"),
    ("/recommend", {"history": ["i1"], "allowed": "i1"}, 422, "allowed: Input should be a v"),
    ("/recommend", {"history": ["i1"], "blocked": [None]}, 422, "blocked.0: Input should be"),
    ("/recommend", {"history": ["i1"], "weights": {"id": "2"}}, 422, "id: Input should be a v"),
    ("/recommend", {"history": ["i1"], "weights": {"id": True}}, 422, "id: Input should be a"),
    ("/recommend", {"history": ["i1"], "weights": {"id": 1e300}}, 422, "id: Input should be l"),
    ("/recommend", {"history": ["i1"], "weights": [1]}, 422, "weights: Input should be a va"),
    ("/explain", {"history": ["i1"], "item": ["i1"]}, 422, "item: Input should be a valid s"),
    ("/events", {"user": "a", "items": "i1"}, 422, "items: Input should be a valid list"),
    ("/recommend", {"history": ["i1"] * 10_000}, 422, "at most 1000 items"),
    ("/recommend", {"history": ["i" * 300]}, 422, "at most 256 characters"),
    ("/recommend", {"history": [], "user": "ann"}, 422, "either user or history"),
    ("/recommend", {}, 422, "either user or history"),
    ("/recommend", {"history": [], "kk": 1}, 422, "kk: Extra"),
    ("/recommend", {"history": ["i1"], "weights": {"smell": 1}}, 422, "smell"),
    ("/recommend", {"history": ["i1"], "weights": {"id": -1}}, 422, "weights.id"),
    ("/explain", {"history": ["i1"], "item": "x"}, 404, "no item 'x'"),
    ("/explain", {"history": [], "item": "i1"}, 422, "needs a history"),
    ("/similar", {"item": "i1", "modality": "smell"}, 422, "modality must be one of"),
    ("/similar", {"item": "i1\ud800"}, 422, "item"),
    ("/events", {"user": "", "items": ["i1"]}, 422, "user"),
    ("/events", {"user": "a", "items": []}, 422, "items"),
    ("/events", {"user": "a\ud800", "items": ["i1"]}, 422, "user"),
    ("/nothing", {}, 404, "Not Found"),
)


def test_a_bad_request_is_a_documented_problem(client):
    for path, body, status, message in BAD_REQUESTS:
        raw = json.dumps(body).encode()
        response = client.post(path, content=raw, headers={"content-type": "application/json"})
        assert message in is_problem(response, status), (path, body)


def test_numbers_that_json_has_not_are_a_problem(client):
    for raw in (b'{"history": ["i1"], "weights": {"id": NaN}}', b"{", b'"' + b"[" * 5000):
        is_problem(
            client.post("/recommend", content=raw, headers={"content-type": "application/json"}),
            422,
        )
    is_problem(client.get("/recommend"), 405)
    of = client.get("/about").json()["bundle"][:12]
    is_problem(client.get(f"/pictures/99999999999999999999?of={of}"), 404)
    is_problem(client.get("/page/..%2Fapp.js"), 404)


def test_a_large_body_is_refused_before_it_is_read_whole(client):
    is_problem(client.post("/recommend", content=b"x" * 10 * 2**20), 413)
    assert client.get("/healthz").status_code == 200


def test_a_key_is_wanted_where_one_is_set(make_client):
    client = make_client(limits=RequestLimits(api_key="sésame"))
    is_problem(client.post("/recommend", json={"history": []}), 401)
    is_problem(client.get("/about", headers={"x-api-key": "other"}), 401)
    key = "sésame".encode()
    assert client.get("/about", headers={b"x-api-key": key}).status_code == 200
    for path in ("/", "/healthz", "/page/app.js"):
        assert client.get(path).status_code == 200


def test_the_head_of_what_can_be_got_is_answered(client):
    for path in ("/", "/page/app.js", "/healthz", "/readyz", "/items?q=hat"):
        got, head = client.get(path), client.head(path)
        assert (head.status_code, head.content) == (200, b"")
        assert head.headers["content-length"] == got.headers["content-length"]
    is_problem(client.get("/recommend"), 405)


def test_a_file_that_a_browser_has_is_sent_again_once_it_changed(make_client, tmp_path):
    photo = tmp_path / "photos" / "i3.jpg"
    photo.parent.mkdir()
    photo.write_bytes(b"old")
    client = make_client(images=photo.parent)
    shown = client.get("/items", params={"limit": 1}).json()["items"][0]["picture"]
    for path in ("/page/app.js", shown):
        first = client.get(path)
        assert first.headers["cache-control"] == "no-cache"
        known = {"if-none-match": f'"other", W/{first.headers["etag"]}'}
        again = client.get(path, headers=known)
        assert (again.status_code, again.content) == (304, b"")
        assert again.headers["etag"] == first.headers["etag"]
    photo.write_bytes(b"newer")
    assert client.get(shown, headers=known).content == b"newer"


def test_pictures_are_those_of_the_folder(make_client, tmp_path, caplog):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "i3.jpg").write_bytes(b"\xff\xd8picture")
    (tmp_path / "photos" / "i4.jpg").touch()
    (tmp_path / "photos" / "i5.jpg").write_bytes(b"<!DOCTYPE html>")
    (tmp_path / "photos" / "i6.jpg").mkdir()
    (tmp_path / "photos" / "i7.jpg").symlink_to("nowhere.jpg")
    client = make_client(images=tmp_path / "photos")
    assert "4 pictures are not shown" in caplog.text
    items = client.get("/items", params={"limit": 10}).json()["items"]
    assert [one["item"] for one in items if "picture" in one] == ["i3"]
    first = client.get("/items", params={"limit": 1}).json()["items"][0]
    assert client.get(first["picture"]).content == b"\xff\xd8picture"
    for number in (0, 4, 61, -1):
        is_problem(client.get(first["picture"].replace("/3?", f"/{number}?")), 404)


def test_what_is_asked_at_once_is_worked_on_together():
    sizes = []

    async def run():
        with ThreadPoolExecutor(1) as pool:
            batcher = Batcher(lambda asked: [2 * n for n in asked], pool, 8, 0.01, sizes.append)
            answers = await asyncio.gather(*(batcher.ask(n) for n in range(20)))
            await batcher.stop()
            return answers

    assert asyncio.run(run()) == [2 * n for n in range(20)]
    assert sizes == [8, 8, 4]


@pytest.mark.parametrize("after", [0.0, 0.02, 0.1], ids=["queued", "collected", "worked on"])
def test_what_was_asked_before_the_end_is_answered(after):
    def work(asked):
        time.sleep(0.1)
        return asked

    async def run():
        with ThreadPoolExecutor(1) as pool:
            batcher = Batcher(work, pool, 8, 0.05)
            asked = [asyncio.create_task(batcher.ask(n)) for n in range(3)]
            await asyncio.sleep(after)
            await batcher.stop()
            return await asyncio.wait_for(asyncio.gather(*asked), 5)

    assert asyncio.run(run()) == [0, 1, 2]


def test_an_error_reaches_all_who_asked_and_the_next_are_answered():
    def work(asked):
        if "bad" in asked:
            raise ValueError("no")
        return asked

    async def run():
        with ThreadPoolExecutor(1) as pool:
            batcher = Batcher(work, pool, 8, 0.01)
            results = await asyncio.gather(
                *(batcher.ask(word) for word in ("a", "bad")), return_exceptions=True
            )
            assert all(isinstance(result, ValueError) for result in results)
            assert await batcher.ask("b") == "b"
            await batcher.stop()

    asyncio.run(run())


def test_openapi_has_examples_and_problems(client):
    schema = client.get("/openapi.json").json()
    recommend = schema["paths"]["/recommend"]["post"]
    assert "application/problem+json" in recommend["responses"]["422"]["content"]
    assert schema["components"]["schemas"]["RecommendRequest"]["examples"]
    assert "HTTPValidationError" not in json.dumps(schema)


def test_the_page_loads_nothing_from_elsewhere(client):
    for name in ("index.html", "app.js", "style.css"):
        text = (PAGE / name).read_text(encoding="utf-8")
        assert "http://" not in text.replace("http://www.w3.org/2000/svg", "")
        assert "https://" not in text
        assert "innerHTML" not in text
    response = client.get("/")
    assert "default-src 'none'" in response.headers["content-security-policy"]


def test_slow_clients_and_cut_bodies_get_an_answer_and_others_do_not_wait(write_made, tmp_path):
    store = str(tmp_path / "events.sqlite")
    app = create_app(Settings(write_made(), store, limits=RequestLimits(body_seconds=3.0)))
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.01)
    address = server.servers[0].sockets[0].getsockname()
    with socket.create_connection(address) as slow:
        slow.sendall(b"POST /recommend HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{")
        host, port = address
        assert httpx.get(f"http://{host}:{port}/healthz").status_code == 200
        assert not select.select([slow], [], [], 0)[0]
        slow.settimeout(20)
        assert b" 408 " in slow.recv(4096)
    with socket.create_connection(address) as cut:
        body = b'{"user": "x", "items": ["i1"]}'
        head = b"content-type: application/json\r\ncontent-length: 500\r\n\r\n"
        cut.sendall(b"POST /events HTTP/1.1\r\nhost: x\r\n" + head + body)
    counted = ""
    while 'path="/events"' not in counted and 'path="other",status="400"' not in counted:
        counted = httpx.get(f"http://{host}:{port}/metrics").text
    assert not httpx.get(f"http://{host}:{port}/history?user=x").json()["items"]
    server.should_exit = True
    thread.join()
