"""Events are kept where they were acknowledged, count once, and a store that fails says so."""

import os

import pytest

from recbole_m3rec.serving.service import store as stores
from recbole_m3rec.serving.service.store import StoreError, open_store
from tests.serving.conftest import is_problem

EVENT = {"user": "ann", "items": ["i9", "i30"]}


def test_a_file_that_is_no_store_is_named(tmp_path):
    (tmp_path / "photo.jpg").write_bytes(b"not sqlite" * 100)
    with pytest.raises(StoreError, match="photo.jpg"):
        open_store(str(tmp_path / "photo.jpg"))


def test_an_event_that_is_sent_again_with_its_id_counts_once(client):
    for event_id in ("e1", "e1", "e2", None, None):
        answer = client.post("/events", json=EVENT | {"id": event_id})
        assert answer.json() == {"accepted": 2}
    client.post("/events", json={"user": "böb", "items": ["i9"], "id": "e1"})  # another's
    for user, count in (("ann", 2 + 4 * 2), ("böb", 3 + 1)):
        assert len(client.get("/history", params={"user": user}).json()["items"]) == count


@pytest.mark.parametrize("ending", ["", "-wal"])
@pytest.mark.skipif(os.name == "nt", reason="Windows removes no open file")
def test_events_are_not_acknowledged_where_their_file_was_removed(client, tmp_path, ending):
    assert client.post("/events", json=EVENT).status_code == 200
    (tmp_path / f"events.sqlite{ending}").unlink()
    assert "was removed or replaced" in is_problem(client.post("/events", json=EVENT), 503)
    is_problem(client.get("/readyz"), 503)


def test_a_store_that_cannot_write_is_not_ready_until_it_can(client, monkeypatch):
    writer = client.app.state.service.store._writer
    writer.execute("PRAGMA query_only = 1")
    is_problem(client.get("/readyz"), 503)  # before any event
    is_problem(client.post("/events", json=EVENT), 503)
    writer.execute("PRAGMA query_only = 0")
    is_problem(client.get("/readyz"), 503)  # it does not try at every question
    monkeypatch.setattr(stores, "TRUSTED", 0.0)
    assert client.get("/readyz").status_code == 200
    writer.execute("PRAGMA query_only = 1")
    is_problem(client.get("/readyz"), 503)


def test_a_damaged_file_is_a_problem_and_no_fault(client, tmp_path):
    client.post("/events", json=EVENT)
    for ending in ("", "-wal"):
        file = tmp_path / f"events.sqlite{ending}"
        with open(file, "r+b") as opened:
            opened.write(b"x" * file.stat().st_size)
    for answer in (
        client.get("/history", params={"user": "böb"}),
        client.post("/recommend", json={"user": "böb"}),
        client.get("/readyz"),
    ):
        assert "store" in is_problem(answer, 503)


@pytest.mark.parametrize(
    ("address", "says"),
    [
        ("redis://:sup3r@localhost:notaport/0", "cannot use the address"),
        ("redis://:sup3r/more@localhost/0", "cannot use the address"),
        ("redis://:sup3r@localhost:1/0?socket_timeout=abc", "its option socket_timeout"),
        ("redis://:sup3r@localhost:1/0?foo=1", "its option foo"),
        ("Redis://:sup3r@localhost/0", "--store Redis:/…: expected redis://"),
        ("redis:/:sup3r@localhost/0", "--store redis:/…: expected redis://"),
    ],
)
def test_an_address_that_cannot_be_used_is_an_error_without_its_password(address, says):
    pytest.importorskip("redis")
    with pytest.raises(StoreError) as error:
        open_store(address)
    assert says in str(error.value)
    assert "sup3r" not in str(error.value)
    assert error.value.__cause__ is None
