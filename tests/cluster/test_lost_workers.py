"""A worker is killed in the middle of encoding texts and of fetching images: the same bytes."""

import numpy as np
import pytest

from tests.cluster.workers import kill
from tests.datasets.http_server import serve_folder

pytest.importorskip("distributed")

from recbole_m3rec.cluster.connect import connected
from recbole_m3rec.datasets.images.download import fetch_images
from recbole_m3rec.features.encoders import encode_texts
from tests.features.encoders.test_text_models import WORDS, bert  # noqa: F401  (a fixture)

pytestmark = pytest.mark.slow


def test_text_encoding_outlives_a_worker(running, bert, monkeypatch):  # noqa: F811
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    texts = [" ".join(np.roll(WORDS, place)[: place % 5 + 1]) for place in range(60)]
    encoder, options = f"transformers:{bert}", {"batch_size": 2}
    here = encode_texts(encoder, texts, options, device="cpu")
    [victim, _] = running.processes
    done = []

    def kill_at_the_fifth(n):
        done.append(n)
        if len(done) == 5:
            kill(victim)

    with connected(str(running.file)) as cluster:
        there = encode_texts(
            *(encoder, texts, options), device="cpu", progress=kill_at_the_fifth, cluster=cluster
        )
    assert victim.wait(60) == -9
    assert sum(done) == 60
    np.testing.assert_array_equal(here, there)


class KillAt(list):
    """Paths that were asked for; with so many of them a process is killed."""

    def __init__(self, n, process):
        super().__init__()
        self.n, self.process = n, process

    def append(self, path):
        super().append(path)
        if len(self) == self.n:
            kill(self.process)


def test_image_downloads_outlive_a_worker(running, tmp_path):
    from PIL import Image

    shop = tmp_path / "shop"
    shop.mkdir()
    for number in range(40):
        Image.new("RGB", (8, 8), (number, 0, 0)).save(shop / f"{number}.png")
    options = {"allow_private": True, "show_progress": False}
    [victim, _] = running.processes
    asked = KillAt(42 + 10, victim)
    with (
        serve_folder(shop, asked, running.host) as server,
        connected(str(running.file)) as cluster,
    ):
        urls = {f"i{number}": f"{server}/{number}.png" for number in range(42)}
        here = fetch_images(urls, tmp_path / "here", **options)
        there = fetch_images(urls, tmp_path / "there", **options, cluster=cluster)
    assert victim.wait(60) == -9
    assert there == here
    assert sum(entry.status == "stored" for entry in here) == 40
    for entry in here:
        if entry.file:
            written = (tmp_path / place / entry.file for place in ("here", "there"))
            assert len({path.read_bytes() for path in written}) == 1
