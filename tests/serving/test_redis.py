"""Two replicas on one Redis server agree on every history."""

import os
import shutil
import signal
import socket
import subprocess
import time

import pytest
from fastapi.testclient import TestClient

from recbole_m3rec.serving.service.app import create_app
from recbole_m3rec.serving.service.state import Settings
from recbole_m3rec.serving.service.store import RedisStore, open_store

pytest.importorskip("redis")
needs_server = pytest.mark.skipif(
    shutil.which("redis-server") is None, reason="no redis-server on this machine"
)


@pytest.fixture
def redis_address(tmp_path, port):
    command = ["redis-server", "--port", str(port), "--save", "", "--dir", str(tmp_path)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    for _ in range(100):
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            break
        except OSError:
            time.sleep(0.05)
    yield f"redis://127.0.0.1:{port}/0"
    process.terminate()
    process.wait()


@needs_server
def test_two_replicas_agree(write_made, redis_address):
    bundle = write_made()
    apps = [create_app(Settings(bundle, redis_address)) for _ in range(2)]
    with TestClient(apps[0]) as first, TestClient(apps[1]) as second:
        user = "ann\u0000 🦉 {*}"
        for number, client in enumerate((first, second, first)):
            client.post("/events", json={"user": user, "items": [f"i{number + 10}"]})
        answers = [c.post("/recommend", json={"user": user}).json() for c in (first, second)]
        assert answers[0] == answers[1]
        assert answers[0]["source"] == "model"
        items = second.get("/history", params={"user": user}).json()["items"]
        assert [item["item"] for item in items] == ["i10", "i11", "i12"]
        assert first.get("/readyz").status_code == 200


def test_a_server_that_is_not_there_is_no_readiness(write_made):
    store = "redis://127.0.0.1:1/0"
    assert isinstance(open_store(store), RedisStore)
    with TestClient(
        create_app(Settings(write_made(), store)), raise_server_exceptions=False
    ) as client:
        assert client.get("/readyz").status_code == 503
        assert client.get("/healthz").status_code == 200
        answer = client.post("/recommend", json={"user": "ann"})
        assert answer.status_code == 503
        assert "store" in answer.json()["detail"]


@needs_server
def test_an_event_counts_once_however_often_it_is_tried(write_made, redis_address):
    import redis

    server = redis.from_url(redis_address)
    app = create_app(Settings(write_made(), f"{redis_address}?socket_timeout=0.2"))
    with TestClient(app) as client:
        for event_id in ("e1", "e1", None):
            event = {"user": "ann", "items": ["i9"], "id": event_id}
            assert client.post("/events", json=event).status_code == 200
        assert server.llen("recbole_m3rec:history:ann") == 2
        process = server.info()["process_id"]
        os.kill(process, signal.SIGSTOP)
        event = {"user": "cy", "items": ["i9", "i8"], "id": "e1"}
        answer = client.post("/events", json=event)
        os.kill(process, signal.SIGCONT)
        assert client.post("/events", json=event).status_code == 200
        assert answer.status_code == 503
        assert "may have been written" in answer.json()["detail"]
        assert server.llen("recbole_m3rec:history:cy") == 2
        server.config_set("maxmemory", 1)
        assert client.get("/readyz").status_code == 503
