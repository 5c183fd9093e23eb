"""Interactions stand in the order of the exact times in the file, for every model and split."""

import pickle
import random

import numpy as np
import pytest
import torch
from recbole.data import create_dataset

from recbole_m3rec.atomic.exact_times import TimesError
from recbole_m3rec.config.yaml_files import ConfigurationError
from recbole_m3rec.quick_start.checkpoints import read_checkpoint
from recbole_m3rec.quick_start.recommend import Histories
from tests.tiny import ALL_USED

START = 1_600_000_000
N_USERS, LENGTH = 8, 6


def seconds_apart():
    """(user, item, time): each user's items in the order 0, 1, 2 …, a second after each other."""
    return [
        (f"u{user}", f"i{user}-{step}", START + N_USERS * step + user)
        for user in range(N_USERS)
        for step in range(LENGTH)
    ]


@pytest.fixture
def create(make_config, write_dataset):
    """Return a function that makes a dataset of shuffled interactions."""

    def made(model="SASRec", interactions=None, seed=7, **keys):
        write_dataset("made", interactions or seconds_apart(), shuffle=seed)
        return create_dataset(make_config(model, "made", **{**ALL_USED, **keys}))

    return made


def steps(dataset, feat):
    """Return the steps of every user's interactions in the order in which they stand."""
    found = {}
    for user, item in zip(feat["user_id"], feat["item_id"], strict=True):
        name, _, step = dataset.id2token("item_id", int(item)).partition("-")
        assert name == dataset.id2token("user_id", int(user)).replace("u", "i")
        found.setdefault(name, []).append(int(step))
    return list(found.values())


@pytest.mark.parametrize(
    ("model", "unit"),
    [("BPR", 1), ("SASRec", 1000), ("M3Rec", 10**9), ("GRU4RecF", 1), ("DIEN", 10**9)],
)
def test_the_last_interactions_are_left_out_in_the_order_of_the_file(create, model, unit):
    log = [(user, item, time * unit) for user, item, time in seconds_apart()]
    dataset = create(model, log)
    train, valid, test = dataset.build()
    first = 1 if dataset.config["MODEL_TYPE"].name == "SEQUENTIAL" else 0  # has no history
    assert steps(dataset, train.inter_feat) == [[*range(first, LENGTH - 2)]] * N_USERS
    assert steps(dataset, valid.inter_feat) == [[LENGTH - 2]] * N_USERS
    assert steps(dataset, test.inter_feat) == [[LENGTH - 1]] * N_USERS
    if "item_id_list" in test.inter_feat:
        lists = dataset.id2token("item_id", test.inter_feat["item_id_list"])
        assert [[int(item[-1]) for item in row] for row in lists] == [
            [*range(LENGTH - 1)]
        ] * N_USERS


@pytest.mark.parametrize("model", ["BPR", "SASRec", "M3Rec"])
@pytest.mark.parametrize("split", [{"RS": [0.5, 0.25, 0.25]}, {"TS": [0.5, 0.25, 0.25]}])
def test_splits_by_time_over_all_users_keep_to_exact_times(create, model, split):
    eval_args = {"group_by": None, "order": "TO", "mode": "full", "split": split}
    if "TS" in split:
        eval_args["group_by"] = "user"
    dataset = create(model, eval_args=eval_args)
    time_of = {item: time for _, item, time in seconds_apart()}
    parts = [
        [time_of[dataset.id2token("item_id", int(item))] for item in part.inter_feat["item_id"]]
        for part in dataset.build()
    ]
    assert all(parts)
    assert max(parts[0]) < min(parts[2])
    assert "TS" in split or (parts[0] + parts[1] + parts[2] == sorted(sum(parts, [])))


@pytest.mark.parametrize("model", ["SASRec", "M3Rec", "BPR"])
def test_models_get_the_times_that_recbole_gives_them(create, model):
    dataset = create(model)
    time_of = {item: np.float32(time) for _, item, time in seconds_apart()}
    for part in (dataset, *dataset.build()):
        feat = part.inter_feat
        expected = [time_of[item] for item in dataset.id2token("item_id", feat["item_id"])]
        assert feat["timestamp"].dtype == torch.float32
        assert feat["timestamp"].tolist() == expected
        if "item_id_list" in feat:
            lists = dataset.id2token("item_id", feat["item_id_list"])
            of_lists = [[time_of.get(item, 0.0) for item in row] for row in lists]
            assert feat["timestamp_list"].tolist() == of_lists


def test_a_file_in_order_gives_recboles_rows_to_the_bit(create, make_config):
    log = [(user, item, time * 10_000 % 2**24) for user, item, time in seconds_apart()]
    both = [create("SASRec", log, time_order=order).build() for order in ("exact", "recbole")]
    for exact, recboles in zip(*both, strict=True):
        assert list(exact.inter_feat.interaction) == list(recboles.inter_feat.interaction)
        for field, values in exact.inter_feat.interaction.items():
            assert torch.equal(values, recboles.inter_feat[field])


@pytest.mark.parametrize("model", ["BPR", "SASRec", "M3Rec"])
def test_recboles_order_is_the_stable_one_of_float32(create, model):
    """One histories order for training and for recommending, too."""
    dataset = create(model, time_order="recbole")
    log = seconds_apart()
    random.Random(7).shuffle(log)
    log.sort(key=lambda row: np.float32(row[2]))
    expected = {}
    for user, item, _ in log:
        expected.setdefault(user, []).append(item)
    rows = Histories(dataset.inter_feat, dataset).rows
    for user, items in expected.items():
        of_user = rows[rows["user_id"] == dataset.token2id("user_id", user)]
        assert dataset.id2token("item_id", of_user["item_id"].to_numpy()).tolist() == items
    test = dataset.build()[2].inter_feat
    last = dict(
        zip(
            dataset.id2token("user_id", test["user_id"]),
            dataset.id2token("item_id", test["item_id"]),
            strict=True,
        )
    )
    assert last == {user: items[-1] for user, items in expected.items()}


def test_recommendations_follow_the_exact_order_too(create):
    nanoseconds = [(user, item, time + 10**18) for user, item, time in seconds_apart()]
    dataset = create("SASRec", nanoseconds)
    assert (
        steps(dataset, Histories(dataset.inter_feat, dataset).rows) == [[*range(LENGTH)]] * N_USERS
    )


def test_a_saved_dataset_keeps_the_order(create):
    dataset = pickle.loads(pickle.dumps(create("BPR")))
    assert steps(dataset, dataset.build()[0].inter_feat) == [[*range(LENGTH - 2)]] * N_USERS


def test_of_repeated_pairs_the_earliest_by_exact_time_stays(create):
    log = [("u", f"i{k % 3}", 10**18 + k) for k in range(9)] + [("v", f"i{k}", k) for k in range(3)]
    dataset = create("BPR", log, rm_dup_inter="first")
    kept = dataset.inter_feat[dataset.inter_feat["user_id"] == dataset.token2id("user_id", "u")]
    assert dataset.id2token("item_id", kept["item_id"].to_numpy()).tolist() == ["i0", "i1", "i2"]


def test_filtered_rows_take_their_times_along(create):
    log = [*seconds_apart(), *((f"x{k}", f"i{k % N_USERS}-0", START) for k in range(30))]
    dataset = create("BPR", log, user_inter_num_interval="[3,inf)")
    assert steps(dataset, dataset.build()[2].inter_feat) == [[LENGTH - 1]] * N_USERS


def test_a_random_order_is_drawn_as_recbole_draws_it(create):
    eval_args = {"group_by": "user", "order": "RO", "mode": "full", "split": {"RS": [8, 1, 1]}}
    found = []
    for order in ("exact", "recbole"):
        dataset = create("BPR", eval_args=eval_args, time_order=order)
        torch.manual_seed(3)
        found.append(dataset.build()[0].inter_feat["item_id"].tolist())
    assert found[0] == found[1]


def test_the_log_says_for_how_many_users_float32_gives_another_order(create, caplog):
    create("BPR")
    assert f"the interactions of {N_USERS} of {N_USERS} users in another order" in caplog.text
    caplog.clear()
    create("BPR", [(user, item, time - START) for user, item, time in seconds_apart()])
    assert "in another order" not in caplog.text


HEADER = "user_id:token\titem_id:token\ttimestamp:"
ROWS = "u\ta\t1\nu\tb\t{}\nu\tc\t3\nv\ta\t{}\n"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("float\n" + ROWS.format("", "nan"), r"of 4 times .*, 2 missing \(lines 3, 5\)"),
        ("float\n" + ROWS.format("inf", 4), r"1 infinite \(line 3, the first 'inf'\)"),
        ("float\n" + ROWS.format("2021-05-01", "x"), r"2 no number \(lines 3, 5, the first"),
        ("float\n" + ROWS.format("1e50", 4), r"1 too large \(line 3"),
        ("token\n" + ROWS.format(2, 4), "line 1: .* is timestamp:token, .* Expected timest"),
    ],
)
def test_times_that_have_no_order_are_refused(make_config, write_files, text, says):
    write_files("hand", {"inter": HEADER + text})
    for model in ("BPR", "M3Rec"):
        with pytest.raises(TimesError, match=f"hand.inter.*{says}"):
            create_dataset(make_config(model, "hand", **ALL_USED))


def test_another_value_of_time_order_is_refused(make_config):
    with pytest.raises(ConfigurationError, match="time_order must be one of exact, recbole, found"):
        make_config(time_order="exakt")


def test_a_checkpoint_from_before_there_was_a_choice_keeps_recboles_order(trained):
    path = trained("SASRec")
    content = torch.load(path, weights_only=False)
    assert read_checkpoint(path).settings["time_order"] == "exact"
    for values in (content["config"].internal_config_dict, content["config"].final_config_dict):
        del values["time_order"]
    torch.save(content, path)
    assert read_checkpoint(path).settings["time_order"] == "recbole"


def test_a_checkpoint_from_before_parts_of_eval_args_were_completed_keeps_recboles_split(trained):
    path = trained("SASRec")
    content = torch.load(path, weights_only=False)
    content["config"].external_config_dict["eval_args"] = {"mode": "uni5", "group_by": None}
    torch.save(content, path)
    assert read_checkpoint(path).settings["eval_args"] == {
        "split": {"RS": [0.8, 0.1, 0.1]},
        "order": "RO",
        "group_by": None,
        "mode": "uni5",
    }
