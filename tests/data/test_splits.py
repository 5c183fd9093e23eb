"""Held-out items and the split by time: on a log that a reader can split by hand."""

import logging

import pytest
import torch
import yaml

from recbole_m3rec.config.layers import properties_folder
from recbole_m3rec.config.yaml_files import ConfigurationError
from recbole_m3rec.data import splits

# Each user's items in order of time; the times of all users count up together, line by line.
LOG = [
    ("ann", "a", 1), ("ann", "x", 2), ("ann", "b", 3), ("ann", "c", 4), ("ann", "y", 5),
    ("ben", "b", 6), ("ben", "a", 7), ("ben", "c", 8), ("ben", "d", 9), ("ben", "x", 10),
    ("cem", "y", 11), ("cem", "c", 12), ("cem", "d", 13), ("cem", "a", 14), ("cem", "b", 15),
    ("dan", "d", 16), ("ann", "d", 17), ("dan", "y", 18), ("eve", "a", 19), ("eve", "e", 20),
]  # fmt: skip
HELD_OUT = {"x", "y"}
KEYS = {"user_inter_num_interval": None, "item_inter_num_interval": None}
BY_TIME = {"split": {"time_quantiles": [0.6, 0.8]}, "order": "TO", "group_by": None, "mode": "full"}


@pytest.fixture
def build(write_dataset, prepare, monkeypatch):
    """Return ``split(model, **keys)``: the loaders, and each part's (user, history, target)."""

    def hold_out(tokens, share, seed):
        return torch.tensor([token in HELD_OUT for token in tokens])

    def split(model, start=0.0, **keys):
        monkeypatch.setattr(splits, "choose_cold_items", hold_out)
        write_dataset("tiny", [(user, item, start + time) for user, item, time in LOG])
        _, dataset, *loaders = prepare(model, **{**KEYS, "train_positions": "last", **keys})
        return loaders, [rows(dataset, loader) for loader in loaders]

    return split


def rows(dataset, loader):
    part = loader._dataset.inter_feat
    found = []
    for row in range(len(part)):
        user = dataset.id2token("user_id", part["user_id"][row])
        target = dataset.id2token("item_id", part["item_id"][row])
        history = ""
        if "item_id_list" in part.columns:
            ids = part["item_id_list"][row][: part["item_length"][row]]
            history = "".join(dataset.id2token("item_id", ids))
        found.append((user, history, target))
    return sorted(found)


WITH_LISTS = pytest.mark.parametrize("model", ["M3Rec", "SASRec"])


@WITH_LISTS
def test_held_out_items_are_in_no_history_and_are_targets_of_the_test_alone(build, model):
    _, (train, valid, test) = build(model, cold_items=0.3)
    # Without x and y: ann a b c d, ben b a c d, cem c d a b, dan d (nothing to predict), eve a e.
    assert train == [("ann", "a", "b"), ("ben", "b", "a"), ("cem", "c", "d"), ("eve", "a", "e")]
    assert valid == [("ann", "ab", "c"), ("ben", "ba", "c"), ("cem", "cd", "a")]
    warm = [("ann", "abc", "d"), ("ben", "bac", "d"), ("cem", "cda", "b")]
    # cem's y came first of all, with nothing before it.
    cold = [("ann", "a", "x"), ("ann", "abc", "y"), ("ben", "bacd", "x"), ("dan", "d", "y")]
    assert test == sorted(warm + cold)


def test_a_general_model_has_the_same_targets_a_row_each(build):
    loaders, (train, valid, test) = build("BPR", cold_items=0.3)
    _, (_, *sequential) = build("SASRec", cold_items=0.3)
    assert not HELD_OUT & {item for _, _, item in train + valid}
    for general, theirs in zip((valid, test), sequential, strict=True):
        assert sorted((u, i) for u, _, i in general) == sorted((u, i) for u, _, i in theirs)
    # eve has two interactions, of which the second is a target of training
    assert ("eve", "", "e") in train
    batches = [(history, rows, items) for _, history, rows, items in loaders[2]]
    assert all(history is None for history, _, _ in batches)
    assert [rows.tolist() for _, rows, _ in batches] == [[0, 1, 2, 3], [0, 1, 2]]  # 32 // 8 items
    targets = loaders[2]._dataset.inter_feat["item_id"]
    assert torch.equal(torch.cat([items for _, _, items in batches]), targets)


def test_long_histories_of_held_out_targets_keep_their_latest_items(build):
    _, (_, _, test) = build("SASRec", cold_items=0.3, MAX_ITEM_LIST_LENGTH=2)
    assert ("ben", "cd", "x") in test


@pytest.mark.parametrize("model", ["M3Rec", "BPR"])
@pytest.mark.parametrize("distribution", ["uniform", "popularity"])
def test_no_negative_of_training_is_held_out(build, model, distribution):
    negatives = {"distribution": distribution, "sample_num": 1, "alpha": 1.0, "dynamic": False}
    keys = {"loss_type": "BPR", "train_neg_sample_args": {**negatives, "candidate_num": 0}}
    (train, _, _), _ = build(model, cold_items=0.3, **keys)
    is_cold = train._dataset.cold_items
    drawn = [batch["neg_item_id"] for _ in range(30) for batch in train]
    assert not is_cold[torch.cat(drawn)].any()
    assert len(torch.unique(torch.cat(drawn))) > 2


@WITH_LISTS
def test_a_split_by_time_trains_up_to_one_moment(build, model):
    # 20 interactions: training up to time 12, validation up to 16.
    _, (train, valid, test) = build(model, eval_args=BY_TIME)
    assert len(train) == 4 + 4 + 1
    assert ("cem", "y", "c") in train
    assert valid == [("cem", "yc", "d"), ("cem", "ycd", "a"), ("cem", "ycda", "b")]
    assert test == [("ann", "axbcy", "d"), ("dan", "d", "y"), ("eve", "a", "e")]


@pytest.mark.parametrize("model", ["M3Rec", "SASRec", "BPR"])
@pytest.mark.parametrize("keys", [{"eval_args": BY_TIME}, {"cold_items": 0.3}])
def test_seconds_that_float32_cannot_tell_apart_change_nothing(build, caplog, model, keys):
    _, expected = build(model, **keys)
    with caplog.at_level(logging.INFO):
        loaders, found = build(model, start=1.6e9, **keys)
    assert found == expected
    times = [loader._dataset.inter_feat["timestamp"] for loader in loaders]
    assert all(((time - 1.6e9).abs() < 128).all() for time in times)
    if "eval_args" in keys:
        assert "training up to timestamp 1600000012, validation up to 1600000016" in caplog.text


def test_a_split_by_time_asks_general_models_for_the_same_targets(build):
    _, (_, *general) = build("BPR", eval_args=BY_TIME)
    _, (_, *sequential) = build("SASRec", eval_args=BY_TIME)
    assert general == sequential


@pytest.mark.parametrize(
    "keys",
    [{"eval_args": BY_TIME}, {"cold_items": 0.3}, {"eval_args": BY_TIME, "cold_items": 0.3}],
)
@pytest.mark.parametrize("longest", [3, 50])
def test_mask_seen_takes_the_same_items_out_for_every_model(build, keys, longest):
    def masked(model):
        loaders, parts = build(model, mask_seen=True, MAX_ITEM_LIST_LENGTH=longest, **keys)
        found = {}
        for loader, part in zip(loaders[1:], parts[1:], strict=True):
            dataset, targets = loader._dataset, []
            for _, (rows, items), row, _ in loader:
                tokens = dataset.id2token("item_id", items)
                targets += [set(tokens[(rows == k).numpy()]) for k in row]
            users = dataset.id2token("user_id", dataset.inter_feat["user_id"])
            items = dataset.id2token("item_id", dataset.inter_feat["item_id"])
            found.update(zip(zip(users, items, strict=True), targets, strict=True))
            assert len(part) == len(targets)
        return found

    general, sequential = masked("BPR"), masked("SASRec")
    assert general == sequential


def test_held_out_items_are_tested_after_the_cut_alone(build):
    _, (_, _, test) = build("SASRec", eval_args=BY_TIME, cold_items=0.3)
    assert test == [("ann", "abc", "d"), ("dan", "d", "y"), ("eve", "a", "e")]


def test_the_log_counts_users_and_items_without_a_past(build, caplog):
    with caplog.at_level(logging.INFO):
        build("SASRec", eval_args=BY_TIME)
    said = next(r.message for r in caplog.records if r.message.startswith("Time split"))
    # dan and eve come after time 12, and so does item e.
    assert "training up to timestamp 12, validation up to 16, test after it" in said
    assert "0 of 1 users of the validation, 0 of 3 items of the validation" in said
    assert "2 of 3 users of the test, 1 of 3 items of the test" in said


def test_the_log_counts_the_items_that_are_held_out(build, caplog):
    with caplog.at_level(logging.INFO):
        build("SASRec", cold_items=0.3)
    said = next(r.message for r in caplog.records if r.message.startswith("cold_items"))
    assert "(seed 2024) holds 2 of 7 items out of training, with 5 interactions" in said
    assert "4 are test targets of their own" in said


def test_a_share_that_holds_out_every_item_is_refused(prepare, write_dataset):
    write_dataset("tiny", LOG)
    with pytest.raises(ConfigurationError, match=r"cold_items: 0.99 holds out all \d items and"):
        prepare("SASRec", **KEYS, train_positions="last", cold_items=0.99)


def test_a_draw_depends_on_tokens_and_seed_and_not_on_ids():
    tokens = ["[PAD]", *(f"i{k}" for k in range(30))]
    drawn = splits.choose_cold_items(tokens, 0.1, 1)
    assert int(drawn.sum()) == 3
    assert not drawn[0]
    names = {token for token, is_cold in zip(tokens, drawn, strict=True) if is_cold}
    turned = [tokens[0], *reversed(tokens[1:])]
    again = splits.choose_cold_items(turned, 0.1, 1)
    assert names == {token for token, is_cold in zip(turned, again, strict=True) if is_cold}
    assert not torch.equal(drawn, splits.choose_cold_items(tokens, 0.1, 2))


@pytest.mark.parametrize("share", [1, 1.5, -0.1, "many", True, [0.1]])
def test_a_share_that_cannot_be_meant_is_refused(make_config, share):
    with pytest.raises(ConfigurationError, match=r"^cold_items must be a number in \[0, 1\)"):
        make_config("SASRec", cold_items=share)


@pytest.mark.parametrize("cuts", [[0.9, 0.8], [0.8], [0.8, 1.0], 0.8, [0, 0.5], None, ["a", "b"]])
def test_cuts_that_cannot_be_meant_are_refused(make_config, cuts):
    with pytest.raises(ConfigurationError, match=r"time_quantiles: .*two rising shares"):
        make_config("SASRec", eval_args={**BY_TIME, "split": {"time_quantiles": cuts}})


@pytest.mark.parametrize("model", ["M3Rec", "SASRec", "BPR"])
@pytest.mark.parametrize(
    ("cuts", "part"),
    [([0.8, 0.96], "test"), ([0.59, 0.6], "validation"), ([0.01, 0.5], "training")],
)
def test_a_cut_that_leaves_no_target_is_one_clear_error(build, monkeypatch, model, cuts, part):
    if part == "test":
        monkeypatch.setitem(globals(), "LOG", [*LOG[:-1], ("eve", "e", 19)])
    if part == "training":
        monkeypatch.setitem(globals(), "LOG", [("zoe", "a", 0), *LOG])
        if model == "BPR":
            return  # a first interaction is enough to train on
    arguments = {**BY_TIME, "split": {"time_quantiles": cuts}}
    with pytest.raises(ConfigurationError, match=rf"leaves no target for {part}: no interaction"):
        build(model, eval_args=arguments)


def test_without_either_key_recbole_splits_as_ever(build):
    loaders, _ = build("SASRec")
    assert not hasattr(loaders[2]._dataset, "cold_items")
    lengths = loaders[0]._dataset.inter_feat["item_length"]
    assert sorted(lengths.tolist()) == [1, 1, 1, 1, 1, 2, 2, 2, 3]


@pytest.mark.parametrize("model", ["M3Rec", "BPR"])
def test_the_preset_splits_by_time(make_config, model):
    preset = yaml.safe_load((properties_folder() / "presets/time-split.yaml").read_text())
    config = make_config(model, **preset)
    assert config["eval_args"]["split"] == {"time_quantiles": [0.8, 0.9]}
    assert splits.splits_apart(config)
