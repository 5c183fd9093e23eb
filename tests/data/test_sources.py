"""A dataset that says where it comes from is fetched and prepared when it is first used."""

import logging
from pathlib import Path

import pytest

from recbole_m3rec.compare.runs import Run, configuration, has_data, identify
from recbole_m3rec.config.yaml_files import ConfigurationError
from recbole_m3rec.data import sources
from tests.datasets.amazon.raw_beauty import write_raw
from tests.datasets.http_server import serve_folder

REVIEWS = "categoryFiles/reviews_Beauty_5.json.gz"


@pytest.fixture
def asked(tmp_path):
    """Serve a category as the publisher does, and say so in the dataset's YAML: what was asked."""
    asked = []
    write_raw(tmp_path / "mirror/categoryFiles", users=8, items=6)
    with serve_folder(tmp_path / "mirror", asked) as address:
        Path("properties/dataset").mkdir(parents=True)
        Path("properties/dataset/mini.yaml").write_text(
            "source: {amazon: Beauty, release: 2014, allow_private: true, "
            f"base_url: '{address}'}}\n"
            "features: {text: {encoder: tfidf-svd, fields: [title], dim: 2}}\n"
        )
        yield asked


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
    assert "8 users, 6 items, 48 interactions" in caplog.text
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
