"""Saved datasets and dataloaders are reused while today's features are theirs, and only then."""

import pytest
import recbole.data.utils as recboles
from recbole.data import create_dataset, data_preparation
from recbole.utils import argument_list

from recbole_m3rec.data import cache, pipeline

SAVED = {"save_dataset": True, "save_dataloaders": True}


@pytest.fixture
def digests(monkeypatch):
    """A dictionary that stands for the digests of today's feature files."""
    today = {"text": "1"}
    monkeypatch.setattr(pipeline, "feature_digests", lambda config: dict(today))
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


def test_caches_of_before_the_plugin_are_not_reused_for_features(rebuilt, monkeypatch):
    monkeypatch.setattr(pipeline, "feature_digests", lambda config: None)
    assert rebuilt()
    monkeypatch.setattr(pipeline, "feature_digests", lambda config: {"text": "1"})
    assert rebuilt()


def test_a_saved_dataset_is_split_by_todays_configuration(make_config):
    """RecBole compares no eval_args of datasets, and splits by those of the day it was saved."""
    create_dataset(make_config("SASRec", **SAVED))
    ratios = {"split": {"RS": [1, 1, 0]}, "order": "TO", "mode": "full"}
    dataset = create_dataset(make_config("SASRec", **SAVED, eval_args=ratios))
    assert dataset.config["eval_args"]["split"] == {"RS": [1, 1, 0]}
    assert len(dataset.build()[2]) == 0


def test_recboles_own_keys_are_compared_as_before():
    assert recboles.dataset_arguments[: -len(cache.DATASET_KEYS)] == argument_list.dataset_arguments


def test_features_are_identified_by_their_recipes_and_what_those_read(make_config, write_dataset):
    folder = write_dataset()
    recipe = {"encoder": "tfidf-svd", "fields": ["title"]}
    features = {"text": recipe, "noise": {"encoder": "random-codes", "dim": 4}}

    def today(**keys):
        keys = {"modalities": "auto", "features": features, **keys}
        return cache.feature_digests(make_config("M3Rec", **keys))

    before = today()
    assert list(before) == ["noise", "text"]
    assert today() == before
    assert today(seed=1)["noise"] != before["noise"]
    assert today(seed=1)["text"] == before["text"]
    other = {**features, "text": {**recipe, "fields": ["kind"]}}
    assert today(features=other)["text"] != before["text"]
    item_file = folder / "tiny.item"
    item_file.write_text(item_file.read_text().replace("red", "dark red"))
    assert today()["text"] != before["text"]
    assert today()["noise"] == before["noise"]
    assert cache.feature_digests(make_config("Mamba4Rec")) in (None, {})


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
