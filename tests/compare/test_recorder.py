"""What is kept of a run equals what RecBole says of it."""

import numpy as np
import pytest
import torch
from recbole.quick_start import quick_start

from recbole_m3rec.compare.recorder import Recorder, agreeing, listed_before
from recbole_m3rec.compare.user_values import SEVERAL
from tests.tiny import ALL_USED, small

METRICS = ["Hit", "NDCG", "MRR", "Recall", "MAP", "Precision", "ItemCoverage", "GAUC"]
SETTINGS = {"epochs": 2, "eval_batch_size": 5, "metrics": METRICS, "topk": [2, 5]}
SETTINGS["metric_decimal_place"] = 12


def run(recorder, model, folder, **keys):
    with recorder.listening(folder):
        return alone(model, **keys)


def alone(model, **keys):
    settings = {**small(model), **SETTINGS, **keys}
    return quick_start.run_recbole(model=model, dataset="tiny", config_dict=settings)


RUNS = {}


@pytest.fixture(params=["M3Rec", "SASRec", "BPR"])
def recorded(request, write_dataset, tmp_path):
    """What was recorded of a model's run, and RecBole's result: one run for all tests."""
    model = request.param
    if model not in RUNS:
        write_dataset("tiny", shuffle=1)
        recorder = Recorder()
        # For M3Rec, metrics that are made of ranks alone take the evaluation in blocks.
        metrics = METRICS[:4] if model == "M3Rec" else METRICS
        RUNS[model] = recorder, run(recorder, model, tmp_path, metrics=metrics)["test_result"]
    return RUNS[model]


def test_means_over_users_are_recboles_result(recorded):
    recorder, result = recorded
    unrounded, users = recorder.unrounded(result), recorder.user_values()
    assert list(unrounded) == list(result)
    means = dict(zip(users.metrics, users.values.mean(axis=0).tolist(), strict=True))
    for name, value in result.items():
        assert unrounded[name] == means.get(name, value)
        assert round(unrounded[name], 12) == pytest.approx(value, rel=1e-11)
    assert {name for name in result if "@" in name and "coverage" not in name} == set(means)
    assert 0 < means["ndcg@5"] < 1


def test_users_targets_histories_popularity_and_ranks(recorded, tiny_interactions):
    users = recorded[0].user_values()
    log = {}
    for user, item, _ in sorted(tiny_interactions, key=lambda row: row[2]):
        log.setdefault(user, []).append(item)
    trained = [item for items in log.values() for item in items[:-2]]
    assert sorted(users.users) == sorted(log)
    for row, user in enumerate(users.users):
        assert users.targets[row] == log[user][-1]
        assert users.history[row] == len(log[user]) - 1
        assert users.popularity[row] == trained.count(log[user][-1])
    for k in (2, 5):
        hit = users.values[:, users.metrics.index(f"hit@{k}")]
        assert np.array_equal(hit > 0, users.rank <= k)
    mrr = users.values[:, users.metrics.index("mrr@5")]
    assert np.allclose(mrr, np.where(users.rank <= 5, 1 / users.rank, 0))
    assert users.rank.max() <= 12
    assert users.rank.min() >= 1


@pytest.mark.parametrize("model", ["M3Rec", "SASRec", "BPR"])
def test_a_target_out_of_reach_is_a_test_that_ranks_last(
    write_dataset, tiny_interactions, tmp_path, model
):
    log = {}
    for row in tiny_interactions:
        log.setdefault(row[0], []).append(row)
    repeating = sorted(log)[:7]  # more than a batch of users
    for user in repeating:  # what is tested was used first of all
        log[user][-1] = (user, log[user][0][1], log[user][-1][2])
    write_dataset("tiny", [row for rows in log.values() for row in rows])
    recorder = Recorder()
    keys = {"metrics": ["Hit", "MRR"], "valid_metric": "Hit@5", "mask_seen": True}
    result = run(recorder, model, tmp_path, **ALL_USED, **keys)["test_result"]
    users = recorder.user_values()
    assert sorted(users.users) == sorted(log)
    assert list(users.targets) == [log[user][-1][1] for user in users.users]
    out = np.isin(users.users, repeating)
    assert (users.rank[out] == 13).all()
    assert users.rank[~out].max() <= 5  # seven of twelve items are no candidates
    assert not users.values[out].any()
    means = dict(zip(users.metrics, users.values.mean(axis=0), strict=True))
    assert means == pytest.approx(dict(result))


def test_several_targets_have_no_popularity_of_one(write_dataset, tmp_path):
    write_dataset("tiny")
    recorder = Recorder()
    shares = {"split": {"RS": [0.5, 0.2, 0.3]}, "order": "TO", "group_by": "user", "mode": "full"}
    run(recorder, "BPR", tmp_path, eval_args=shares)
    users = recorder.user_values()
    recall = users.values[:, users.metrics.index("recall@5")]
    several = (users.values[:, users.metrics.index("hit@5")] == 1) & (recall < 1)
    assert several.any()
    assert (users.popularity[several] == SEVERAL).all()


def test_the_lists_of_the_test_hold_its_hits(recorded):
    users, lists = recorded[0].user_values(), recorded[0].lists()
    assert lists.top.shape == (len(users.users), 5)
    for k in (2, 5):
        listed = (lists.items[lists.top[:, :k]] == users.targets[:, None]).any(axis=1)
        assert np.array_equal(listed, users.values[:, users.metrics.index(f"hit@{k}")] > 0)
    place = dict(zip(lists.items, lists.popularity, strict=True))
    assert [place[token] for token in users.targets] == users.popularity.tolist()


def test_listening_changes_no_number_and_leaves_recbole_as_it_was(write_dataset, tmp_path):
    from recbole.trainer import Trainer

    write_dataset("tiny")
    before = Trainer.evaluate, quick_start.create_dataset
    listened = run(Recorder(), "SASRec", tmp_path)
    assert (Trainer.evaluate, quick_start.create_dataset) == before
    assert listened == alone("SASRec")


def test_each_epoch_is_told_as_it_ends(write_dataset, tmp_path):
    write_dataset("tiny")
    told = []
    recorder = Recorder(on_epoch=told.append)
    result = run(recorder, "SASRec", tmp_path, epochs=3)
    assert [epoch["epoch"] for epoch in told] == [0, 1, 2]
    assert max(epoch["score"] for epoch in told) == result["best_valid_score"]
    assert all(epoch["seconds"] > 0 and epoch["loss"] > 0 for epoch in told)
    assert recorder.parameters > 0


def test_a_trial_never_sees_the_test_data(write_dataset, tmp_path, monkeypatch):
    from recbole.trainer import Trainer

    write_dataset("tiny")
    seen = []
    evaluate = Trainer.evaluate

    def watch(self, data, *args, **kwargs):
        seen.append(data)
        return evaluate(self, data, *args, **kwargs)

    monkeypatch.setattr(Trainer, "evaluate", watch)
    recorder = Recorder(tests=False)
    assert run(recorder, "M3Rec", tmp_path)["test_result"] is None
    assert seen[-1] is None
    assert all(data is recorder._data[1] for data in seen[:-1] if recorder._data)
    assert len(seen) == 3


def test_metrics_without_a_value_for_each_user_have_none(write_dataset, tmp_path):
    write_dataset("tiny")
    recorder = Recorder()
    keys = {"metrics": ["GAUC"], "valid_metric": "GAUC"}
    result = run(recorder, "SASRec", tmp_path, **keys)["test_result"]
    assert recorder.user_values() is None
    assert recorder.unrounded(result) == pytest.approx(dict(result))


@pytest.mark.parametrize("model", ["M3Rec", "SASRec", "BPR"])
def test_warm_and_cold_metrics_are_as_exact_as_all(write_dataset, tmp_path, model):
    write_dataset("tiny")
    recorder = Recorder()
    keys = {"cold_items": 0.3, "metric_decimal_place": 2, "metrics": METRICS[:3]}
    rounded = run(recorder, model, tmp_path, **keys)["test_result"]
    unrounded, users = recorder.unrounded(rounded), recorder.user_values()
    assert 0 < users.cold.sum() < len(users.cold)
    for name, value in rounded.items():
        assert round(unrounded[name], 2) == pytest.approx(value, abs=0.0051)
    for part, rows in (("cold", users.cold), ("warm", ~users.cold)):
        for metric, mean in zip(users.metrics, users.values[rows].mean(axis=0), strict=True):
            assert unrounded[f"{part} {metric}"] == mean


def test_items_before_a_target_score_more_or_have_a_lower_id():
    scores = torch.tensor([[-torch.inf, 3.0, 5.0, 3.0, 1.0], [-torch.inf, 0.0, 0.0, 0.0, 0.0]])
    rows, targets = torch.tensor([0, 0, 1]), torch.tensor([3, 2, 4])
    assert listed_before(scores, rows, targets).tolist() == [2, 0, 3]


def test_ranks_give_way_to_recboles_lists_where_scores_are_equal():
    hits = np.array([[0, 1, 0], [0, 0, 1], [0, 0, 0], [0, 0, 0], [1, 0, 1]])
    rank = np.array([4, 1, 3, 9, 2])
    assert agreeing(rank, hits).tolist() == [2, 3, 4, 9, 1]
