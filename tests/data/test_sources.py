"""A dataset that says where it comes from is fetched and prepared when it is first used."""

import functools
import gzip
import json
import logging
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from recbole_m3rec.compare.runs import Run, configuration, has_data, identify
from recbole_m3rec.config.yaml_files import ConfigurationError
from recbole_m3rec.data import sources

START, DAY = 1_400_025_600, 86_400
REVIEWS = "categoryFiles/reviews_Beauty_5.json.gz"


@pytest.fixture
def asked(tmp_path, monkeypatch):
    """Serve a category as the publisher does, and say so in the dataset's YAML: what was asked."""
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    folder = tmp_path / "mirror"
    reviews = [
        {"reviewerID": f"U{user}", "asin": f"B{(user + step) % 8}", "overall": 5.0,
         "unixReviewTime": START + DAY * (10 * user + step)}
        for user in range(8) for step in range(6)
    ]  # fmt: skip
    titles = [repr({"asin": f"B{item}", "title": f"Item {item}"}) for item in range(8)]
    (folder / "categoryFiles").mkdir(parents=True)
    (folder / REVIEWS).write_bytes(gzip.compress("\n".join(map(json.dumps, reviews)).encode()))
    items = folder / "categoryFiles/meta_Beauty.json.gz"
    items.write_bytes(gzip.compress("\n".join(titles).encode()))
    asked = []

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, *arguments):
            asked.append(self.path)

    handler = functools.partial(Handler, directory=str(folder))
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    Path("properties/dataset").mkdir(parents=True)
    Path("properties/dataset/mini.yaml").write_text(
        "source: {amazon: Beauty, release: 2014, allow_private: true, "
        f"base_url: 'http://127.0.0.1:{server.server_address[1]}'}}\n"
        "features: {text: {encoder: tfidf-svd, fields: [title], dim: 2}}\n"
    )
    yield asked
    server.shutdown()
    server.server_close()


def test_an_absent_dataset_is_fetched_prepared_and_trained_on_once(
    call, asked, small_arguments, caplog
):
    caplog.set_level(logging.INFO)
    arguments = [*small_arguments[1:], "--epochs=1", "--model=SASRec", "--dataset=mini"]
    code, out, error = call(*arguments)
    assert code == 0, error
    assert "hit@3" in out
    assert len(asked) == 2
    assert "fetching http://127.0.0.1" in caplog.text
    assert "8 users, 8 items, 48 interactions" in caplog.text
    there = sorted(path.name for path in Path("dataset/mini").iterdir())
    assert there == ["mini.inter", "mini.item", "mini.stats.json"]
    code, _, error = call(*arguments)
    assert code == 0, error
    assert len(asked) == 2  # nothing more


def test_no_download_refuses_and_asks_nobody(call, asked):
    code, out, error = call("--model=SASRec", "--dataset=mini", "--no-download")
    assert code == 2
    assert "no dataset `mini`" in error
    assert "--no-download" in error
    assert REVIEWS in error
    assert out == ""
    assert asked == []
    assert not Path("dataset").exists()
    assert not Path("raw").exists()


def test_raw_files_that_are_there_need_no_download(call, asked, tmp_path, small_arguments):
    (tmp_path / "mirror/categoryFiles").rename(tmp_path / "amazon-2014")
    Path("raw").mkdir()
    (tmp_path / "amazon-2014").rename("raw/amazon-2014")
    arguments = [*small_arguments[1:], "--epochs=1", "--model=SASRec", "--dataset=mini"]
    code, _, error = call(*arguments, "--no-download")
    assert code == 0, error
    assert asked == []


def test_a_failed_download_is_one_line_and_leaves_no_dataset(call, asked, tmp_path):
    (tmp_path / "mirror" / REVIEWS).unlink()
    code, _, error = call("--model=SASRec", "--dataset=mini")
    assert code == 2
    assert "HTTP 404" in error
    assert not Path("dataset/mini").exists()


def test_files_of_the_user_are_left_alone(make_config, asked):
    Path("dataset/mini").mkdir(parents=True)
    Path("dataset/mini/mini.item").write_text("item_id:token\n")
    sources.fetch_if_absent(make_config(dataset="mini"))
    assert asked == []


def test_a_comparison_waits_for_the_download_and_counts_neither_source_nor_switch(
    asked, write_dataset
):
    config = configuration(Run("SASRec", "SASRec", "mini", 1, {"data_path": "dataset"}))
    assert not has_data(config)
    assert {"source", "download"}.isdisjoint(identify(config).config)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("Beauty", "must be like {amazon: Beauty"),
        ({"amazon": "Beauty"}, "must be like"),
        ({"amazon": "Beauty", "release": 2014, "url": "x"}, "no key 'url'"),
        ({"amazon": "Beauty", "release": 2014, "base_ulr": "x"}, "Did you mean base_url"),
        ({"amazon": ["Beauty"], "release": 2014}, "amazon must be a category"),
    ],
)
def test_a_source_that_cannot_be_meant_is_named(source, expected):
    with pytest.raises(ConfigurationError, match=f"source of dataset shop.*{expected}"):
        sources.checked(source, "shop")
