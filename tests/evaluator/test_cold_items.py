"""Metrics of held-out targets are RecBole's on their rows alone."""

import numpy as np
import pytest
from recbole.quick_start import quick_start

from recbole_m3rec.compare.recorder import Recorder
from tests.tiny import small

SETTINGS = {
    "eval_batch_size": 20,  # a row at a time for general models
    "metrics": ["Hit", "NDCG"],
    "topk": [2, 5],
    "metric_decimal_place": 12,
    "cold_items": 0.25,
}


def run(model, **keys):
    settings = {**small(model), **SETTINGS, **keys}
    return quick_start.run_recbole(model=model, dataset="tiny", config_dict=settings)


@pytest.mark.parametrize(
    ("model", "mask_seen"),
    [("M3Rec", False), ("M3Rec", True), ("SASRec", False), ("BPR", True), ("Pop", False)],
)
def test_warm_and_cold_are_the_means_over_their_own_rows(write_dataset, tmp_path, model, mask_seen):
    write_dataset("tiny")
    recorder = Recorder()
    with recorder.listening(tmp_path):
        result = run(model, mask_seen=mask_seen)["test_result"]
    users = recorder.user_values()
    assert users is not None
    assert recorder._data is not None
    dataset = recorder._data[0]
    ids = dataset.token2id("item_id", users.targets)
    is_cold = dataset.cold_items.numpy()[ids]
    assert 0 < is_cold.sum() < len(is_cold)
    assert (users.popularity[is_cold] == 0).all()
    assert (users.popularity[~is_cold] > 0).all()
    for column, name in enumerate(users.metrics):
        values = users.values[:, column]
        assert result[name] == pytest.approx(values.mean())
        assert result[f"warm {name}"] == pytest.approx(values[~is_cold].mean())
        assert result[f"cold {name}"] == pytest.approx(values[is_cold].mean())
    assert len(result) == 3 * len(users.metrics)
    if not mask_seen:  # one target a row, each ranked among all items but padding
        assert users.rank.max() <= 12
        hit = users.values[:, users.metrics.index("hit@5")]
        assert np.array_equal(hit > 0, users.rank <= 5)


def test_validation_knows_no_held_out_target(write_dataset):
    write_dataset("tiny")
    assert set(run("SASRec")["best_valid_result"]) == {"hit@2", "hit@5", "ndcg@2", "ndcg@5"}
