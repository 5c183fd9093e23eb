"""Popularity, entropy, coverage and Gini against numbers worked out by hand."""

import math

import numpy as np
import pytest
import torch
from recbole.evaluator import metrics
from recbole.evaluator.collector import DataStruct

from tests.tiny import ALL_USED


@pytest.mark.parametrize("batch", [7, 2048])
@pytest.mark.parametrize("negatives", [None, {"distribution": "uniform", "sample_num": 1}])
def test_popularity_counts_each_interaction_of_training_once(
    prepare, write_dataset, tiny_interactions, batch, negatives
):
    write_dataset("tiny")
    keys = {"train_batch_size": batch}
    if negatives:
        negatives = {**negatives, "alpha": 1.0, "dynamic": False, "candidate_num": 0}
    config, dataset, train, *_ = prepare("Pop", **ALL_USED, **keys, train_neg_sample_args=negatives)
    from recbole.utils import get_model

    model = get_model("Pop")(config, train.dataset)
    for each in train:
        model.calculate_loss(each)  # as often as there are epochs and processes
    log = {}
    for user, item, _ in sorted(tiny_interactions, key=lambda row: row[2]):
        log.setdefault(user, []).append(item)
    trained = [item for items in log.values() for item in items[:-2]]
    tokens = dataset.field2id_token["item_id"]
    expected = torch.tensor([trained.count(token) for token in tokens])
    assert torch.equal(model.item_cnt[:, 0], expected)
    assert int(model.max_cnt) == int(expected.max())


def test_metrics_of_lists_are_those_of_their_definitions():
    collected = DataStruct()
    # of items 1 to 4, beside padding
    collected.set("rec.items", torch.tensor([[1, 2], [1, 3], [1, 2], [1, 2]]))
    collected.set("data.num_items", 5)
    config = {"topk": [2], "metric_decimal_place": 12}
    found = {}
    for name in ("ShannonEntropy", "ItemCoverage", "GiniIndex"):
        found |= getattr(metrics, name)(config).calculate_metric(collected)
    shares = np.array([4, 3, 1, 0]) / 8
    entropy = -sum(share * math.log(share) for share in shares if share)
    differences = np.abs(shares[:, None] - shares).sum() / (2 * 4 * shares.sum())
    assert found["shannonentropy@2"] == pytest.approx(entropy)
    assert found["itemcoverage@2"] == pytest.approx(3 / 4)
    assert found["giniindex@2"] == pytest.approx(differences)
