"""Saved datasets and dataloaders are reused while today's features are theirs, and only then."""

import os
import re
from pathlib import Path

import pytest
import recbole.data.utils as recboles
from recbole.data import create_dataset, data_preparation
from recbole.utils import argument_list

from recbole_m3rec.data import pipeline

SAVED = {"save_dataset": True, "save_dataloaders": True}


@pytest.fixture
def digests(monkeypatch):
    """A dictionary that stands for the digests of today's feature files."""
    today = {"text": "1"}
    monkeypatch.setattr(pipeline.digests, "feature_digests", lambda config: dict(today))
    return today


@pytest.fixture
def rebuilt(make_config, caplog):
    """Return a function that tells whether dataset and dataloaders are built afresh."""
    caplog.set_level("INFO")

    def build(**keys):
        caplog.clear()
        config = make_config("SASRec", **SAVED, **keys)
        data_preparation(config, create_dataset(config))
        found = " ".join(caplog.messages)
        parts = ["Load filtered dataset" not in found, "Load split dataloaders" not in found]
        assert parts[0] == parts[1]
        return parts[0]

    return build


def test_caches_are_reused_while_nothing_changes(rebuilt, digests):
    assert rebuilt()
    assert not rebuilt()


@pytest.mark.parametrize(
    ("key", "values"),
    [
        ("modalities", (["text"], ["image"])),
        ("feature_norm", ("none", "l2")),
        ("train_positions", ("all", "last")),
        ("seed", (1, 2)),
    ],
)
def test_caches_are_not_reused_under_other_settings(key, values, rebuilt, digests):
    assert rebuilt(**{key: values[0]})
    assert not rebuilt(**{key: values[0]})
    assert rebuilt(**{key: values[1]})


def test_caches_are_not_reused_with_other_features(rebuilt, digests):
    assert rebuilt()
    digests["text"] = "2"
    assert rebuilt()


def test_caches_are_not_reused_with_a_restored_backup_of_the_same_size_and_time(rebuilt, digests):
    path = Path("dataset/tiny/tiny.inter")
    assert rebuilt()
    times = path.stat().st_atime_ns, path.stat().st_mtime_ns
    path.write_bytes(path.read_bytes().replace(b"1", b"9", 1))
    os.utime(path, ns=times)
    assert rebuilt()


def test_caches_of_before_the_plugin_are_not_reused_for_features(rebuilt, monkeypatch):
    monkeypatch.setattr(pipeline.digests, "feature_digests", lambda config: None)
    assert rebuilt()
    monkeypatch.setattr(pipeline.digests, "feature_digests", lambda config: {"text": "1"})
    assert rebuilt()


def test_a_saved_dataset_is_split_by_todays_configuration(make_config):
    """RecBole compares no eval_args of datasets, and splits by those of the day it was saved."""
    create_dataset(make_config("SASRec", **SAVED))
    ratios = {"split": {"RS": [1, 1, 0]}, "order": "TO", "mode": "full"}
    dataset = create_dataset(make_config("SASRec", **SAVED, eval_args=ratios))
    assert dataset.config["eval_args"]["split"] == {"RS": [1, 1, 0]}
    assert len(dataset.build()[2]) == 0


def test_an_order_is_that_of_the_day_a_dataset_is_read(make_config, write_dataset):
    """Interactions are put in exact order before they are saved, and a random split needs none."""
    write_dataset(interactions=[("u", f"i{n}", 1.6e9 + n) for n in (3, 1, 2, 0)])
    keys = {**SAVED, "user_inter_num_interval": "[0,inf)", "item_inter_num_interval": "[0,inf)"}
    create_dataset(make_config("BPR", **keys, eval_args={"order": "RO"}))
    dataset = create_dataset(make_config("BPR", **keys, eval_args={"order": "TO"}))
    items = dataset.id2token("item_id", dataset.inter_feat["item_id"])
    assert list(items) == ["i0", "i1", "i2", "i3"]


def test_everything_that_datasets_read_is_compared():
    folder = Path(recboles.__file__).parent / "dataset"
    sources = "".join(path.read_text(encoding="utf-8") for path in folder.glob("*.py"))
    read = set(re.findall(r"""config\[["'](\w+)["']\]""", sources))
    elsewhere = {"data_path", "dataset", "checkpoint_dir", "local_rank", "eval_args"}
    assert read - set(recboles.dataset_arguments) == elsewhere
    assert set(argument_list.dataset_arguments) < set(recboles.dataset_arguments)


def test_a_saved_dataset_of_m3rec_is_rebuilt_with_other_features(make_config, write_dataset):
    """End to end: the .item file that the text is made of has changed since."""
    folder = write_dataset()
    features = {"text": {"encoder": "tfidf-svd", "fields": ["title"]}}
    keys = {"modalities": "auto", "features": features, **SAVED}
    before = create_dataset(make_config("M3Rec", **keys)).item_features["text"]
    again = create_dataset(make_config("M3Rec", **keys)).item_features["text"]
    assert again.fingerprint == before.fingerprint
    item_file = folder / "tiny.item"
    item_file.write_text(item_file.read_text().replace("red", "dark"))
    after = create_dataset(make_config("M3Rec", **keys)).item_features["text"]
    assert after.fingerprint != before.fingerprint
