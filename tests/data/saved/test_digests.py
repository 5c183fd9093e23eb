"""What features are known by changes with what they are made of, and with nothing else."""

from types import SimpleNamespace

import numpy as np
import pytest

from recbole_m3rec.data.saved import digests
from recbole_m3rec.data.saved.digests import feature_digests
from recbole_m3rec.features.feature_file import features_digest
from recbole_m3rec.support.hashing import sha256_of


def test_features_are_identified_by_their_recipes_and_what_those_read(make_config, write_dataset):
    folder = write_dataset()
    recipe = {"encoder": "tfidf-svd", "fields": ["title"]}
    features = {"text": recipe, "noise": {"encoder": "random-codes", "dim": 4}}

    def today(**keys):
        keys = {"modalities": "auto", "features": features, **keys}
        return feature_digests(make_config("M3Rec", **keys))

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
    assert feature_digests(make_config("Mamba4Rec")) in (None, {})


@pytest.mark.parametrize(("change", "is_warned"), [("", False), ("array", True), ("ids", True)])
@pytest.mark.parametrize("counted_ids", [True, False])  # a checkpoint's, or an earlier one's
def test_checkpoints_of_arrays_are_warned_of_changes_alone(
    tmp_path, monkeypatch, caplog, change, is_warned, counted_ids
):
    path = tmp_path / "shop.image.npy"
    ids = path.with_suffix(".ids.txt")
    np.save(path, np.eye(2, dtype=np.float32))
    ids.write_text("a\nb\n")
    before = features_digest(path) if counted_ids else sha256_of(path)
    if change == "array":
        np.save(path, np.ones((2, 2), np.float32))
    elif change == "ids":
        ids.write_text("b\na\n")
    source = SimpleNamespace(modality="image", path=path)
    monkeypatch.setattr(digests, "feature_sources", lambda config: (source,))
    now = {"feature_digests": {"image": features_digest(path)}, "source_digests": None}
    digests.warn_of_changes(
        "x.pth", {"feature_digests": {"image": before}}, now | {"data_path": "d"}
    )
    # What an earlier checkpoint did not count cannot be told from no change.
    assert ("DATA CHANGED" in caplog.text) == (is_warned and (counted_ids or change != "ids"))
