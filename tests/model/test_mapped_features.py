"""Models whose features are mapped beside the same models with features in memory."""

from pathlib import Path

import numpy as np
import pytest
import torch

from recbole_m3rec.features import feature_map
from recbole_m3rec.network import item_encoder
from recbole_m3rec.network.item_encoder import ContentModality
from tests.tiny import write_vectors


@pytest.fixture
def train(new_trainer, write_dataset):
    """Return a function that trains an epoch: to the model, its test metrics and a test batch."""

    def trained(name, **keys):
        settings = {"modalities": ["image"], "features": {}, "softmax_items": 4, **keys}
        folder = write_dataset("tiny")
        with open(folder / "tiny.inter", encoding="utf-8") as lines:
            items = sorted({line.split("\t")[1] for line in list(lines)[1:]})
        values = np.random.default_rng(0).normal(size=(len(items) - 1, 6)).astype(np.float32)
        write_vectors(folder, "image", items[1:], values)
        trainer, train, valid, test = new_trainer(name, **settings)
        trainer.fit(train, valid, saved=False, show_progress=False)
        metrics = dict(trainer.evaluate(test, load_best_model=False))
        return trainer.model, metrics, next(iter(test))[0]

    return trained


@pytest.mark.parametrize("name", ["M3Rec", "SASRecMM"])
@pytest.mark.parametrize("score", ["dot", "cosine"])
def test_training_and_evaluation_are_those_with_features_in_memory(train, name, score, monkeypatch):
    expected, metrics, batch = train(name, score=score)
    assert not item_encoder.feature_maps(expected.network)
    monkeypatch.setattr(feature_map, "MAPPED_FROM", 0)
    monkeypatch.setattr(item_encoder, "PROJECTED_AT_A_TIME", 18)  # three items
    mapped, mapped_metrics, _ = train(name, score=score)
    assert Path("dataset/tiny/tiny.image.parquet.map").is_file()
    for (key, found), value in zip(
        mapped.state_dict().items(), expected.state_dict().values(), strict=True
    ):
        if isinstance(value, torch.Tensor):
            torch.testing.assert_close(found, value, msg=key)
    assert mapped_metrics == metrics
    torch.testing.assert_close(
        mapped.full_sort_predict(batch), expected.full_sort_predict(batch), rtol=1e-5, atol=1e-6
    )


def test_neither_a_step_nor_an_evaluation_projects_all_items_at_once(train, monkeypatch):
    monkeypatch.setattr(feature_map, "MAPPED_FROM", 0)
    monkeypatch.setattr(item_encoder, "PROJECTED_AT_A_TIME", 18)
    monkeypatch.setattr("recbole_m3rec.network.m3rec.FEW_ITEMS", 1.0)
    original, wholes = ContentModality.forward, []

    def forward(self, items):
        wholes.append(items is None)
        return original(self, items)

    monkeypatch.setattr(ContentModality, "forward", forward)
    model, _, _ = train("M3Rec")
    assert wholes
    assert not any(wholes)
    buffers = {name.split(".")[-1] for name, _ in model.named_buffers()}
    assert "is_missing" in buffers
    assert "features" not in buffers


def test_the_table_in_a_file_leaves_no_file(train, monkeypatch):
    monkeypatch.setattr(feature_map, "MAPPED_FROM", 0)
    train("M3Rec")
    names = {path.name for path in Path("dataset/tiny").iterdir()}
    assert names == {"tiny.inter", "tiny.item", "tiny.image.parquet", "tiny.image.parquet.map"}
