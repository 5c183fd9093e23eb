"""`mask_seen` means the same for every model, checked against histories written out here."""

import logging
import random

import pytest
import torch

from recbole_m3rec.config.yaml_files import ConfigurationError
from recbole_m3rec.evaluator import mask_seen as protocol
from recbole_m3rec.evaluator.ranking import rank_targets
from tests.tiny import ALL_USED, metrics_in

MODELS = ["M3Rec", "SASRec", "BPR"]
N_ITEMS, N_USERS, HISTORY = 20, 15, 12


@pytest.fixture
def repeats(write_dataset):
    """Histories longer than a model sees, in which every third user's last items repeat old ones.

    Returns ``items``, which gives a user's items in the order of time.
    """
    draw = random.Random(7)
    histories = {}
    for user in range(N_USERS):
        items = [f"i{item:02d}" for item in draw.sample(range(N_ITEMS), HISTORY)]
        if user % 3 == 0:
            items[-1] = items[0]  # out of sight of a model that sees five
        if user % 3 == 1:
            items[-2] = items[-3]
        histories[f"u{user:02d}"] = items
    rows = [
        (user, item, float(1000 * number + time))
        for number, (user, items) in enumerate(histories.items())
        for time, item in enumerate(items)
    ]
    write_dataset(interactions=rows, shuffle=3)
    return histories


@pytest.fixture
def split(prepare, repeats):
    """Return a function that gives (dataset, validation loader, test loader) for a model."""

    def build(model, **keys):
        _, dataset, _, valid, test = prepare(model, **ALL_USED, **keys)
        return dataset, valid, test

    return build


def tokens_of(dataset, field, ids):
    """The tokens of any number of ids, one included, as a list."""
    return dataset.field2id_token[field][ids.numpy()].tolist()


@pytest.mark.parametrize("model", MODELS)
def test_every_model_takes_out_the_same_items(split, repeats, model):
    dataset, valid, test = split(model, mask_seen=True)
    for loader, place in ((valid, -2), (test, -1)):
        for interaction, (rows, items), _, _ in loader:
            users = tokens_of(dataset, dataset.uid_field, interaction[dataset.uid_field])
            for row, user in enumerate(users):
                ids = items[rows == row]
                tokens = tokens_of(dataset, dataset.iid_field, ids)
                assert sorted(tokens) == sorted(set(repeats[user][:place]))
            assert (rows[1:] >= rows[:-1]).all()


@pytest.mark.parametrize("largest", [1, 7, 40])
def test_blocks_of_any_size_leave_out_the_same_items(largest):
    generator = torch.Generator().manual_seed(0)
    queries = torch.randn(9, 4, generator=generator)
    table = torch.randn(13, 4, generator=generator)
    mask = torch.rand(9, 13, generator=generator) < 0.4
    mask[:, 0], mask[2] = False, False  # one user has seen nothing
    targets = torch.randint(1, 13, (9,), generator=generator)
    mask[torch.arange(9), targets] = False
    dense = (queries @ table.T).masked_fill(mask, -torch.inf)
    dense[:, 0] = -torch.inf
    own = dense[torch.arange(9), targets]
    ranking = rank_targets(
        queries,
        table,
        torch.arange(9),
        targets,
        n_top=3,
        count_listed=True,
        seen=tuple(mask.nonzero(as_tuple=True)),
        largest_block=largest,
    )
    assert ranking.higher.equal((dense > own[:, None]).sum(1))
    assert ranking.top.equal(dense.topk(3).indices)
    assert ranking.listed.equal((dense > -torch.inf).sum(1))


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("mask_seen", [False, True])
def test_the_log_says_which_protocol_holds_and_what_it_puts_out_of_reach(
    split, model, mask_seen, caplog
):
    caplog.set_level(logging.INFO)
    split(model, mask_seen=mask_seen)
    said = "are no candidates" if mask_seen else "stay among the candidates"
    assert f"history items {said} (mask_seen: {mask_seen})" in caplog.text
    assert "5 of 15 valid targets and 5 of 15 test targets" in caplog.text


def test_nothing_is_said_of_repeats_where_there_are_none(prepare, caplog):
    caplog.set_level(logging.INFO)
    prepare("BPR", mask_seen=True)
    assert "mask_seen: True" in caplog.text
    assert "out of reach" not in caplog.text


@pytest.mark.parametrize("value", ["maybe", None, [True]])
def test_what_is_no_switch_is_refused(make_config, value):
    with pytest.raises(ConfigurationError, match="mask_seen must be true or false"):
        make_config("SASRec", mask_seen=value)


def test_the_default_leaves_every_history_in(make_config):
    for model in (*MODELS, "Pop"):
        assert make_config(model)["mask_seen"] is False


def test_sampled_candidates_and_a_masked_history_exclude_each_other(prepare):
    args = {"split": {"LS": "valid_and_test"}, "order": "TO", "mode": "uni5", "group_by": "user"}
    with pytest.raises(ConfigurationError, match="set mode: full, or mask_seen: False"):
        prepare("BPR", mask_seen=True, eval_args=args)
    prepare("BPR", mask_seen=False, eval_args=args)


def test_a_loader_without_histories_is_not_believed(split):
    _, valid, _ = split("SASRec", mask_seen=True)
    del valid.seen_items
    with pytest.raises(RuntimeError, match="knows no histories"):
        next(iter(valid))


def test_lists_of_ready_made_splits_are_history_whole(write_files, prepare):
    header = "user_id:token\titem_id_list:token_seq\titem_id:token\ttimestamp:float\n"
    parts = {
        "train": "u1\ta b c\td\t1\nu2\te f\ta\t1\nu3\td g\te\t1\n",
        "valid": "u1\tc d\te\t2\nu2\tf a\tb\t2\n",
        "test": "u1\td e\tb\t3\nu2\ta b\tc\t3\nu3\te\tf\t3\n",
    }
    write_files("ready", {f"{part}.inter": header + rows for part, rows in parts.items()})
    columns = ["user_id", "item_id_list", "item_id", "timestamp"]
    _, dataset, _, valid, test = prepare(
        "SASRec",
        "ready",
        mask_seen=True,
        benchmark_filename=["train", "valid", "test"],
        alias_of_item_id=["item_id_list"],
        load_col={"inter": columns},
        **ALL_USED,
    )

    def histories(loader):
        interaction, (rows, items), _, _ = next(iter(loader))
        users = dataset.id2token("user_id", interaction["user_id"])
        tokens = dataset.id2token("item_id", items)
        return {
            user: "".join(sorted(tokens[(rows == row).numpy()])) for row, user in enumerate(users)
        }

    assert histories(valid) == {"u1": "abcd", "u2": "aef"}
    assert histories(test) == {"u1": "abcde", "u2": "abef", "u3": "deg"}
    assert protocol.count_repeats(test, test.seen_items) == (1, 3)


def test_a_checkpoint_keeps_its_protocol_and_can_be_asked_for_the_other(
    repeats, call, small_arguments, tmp_path
):
    keys = ["--epochs=1", *(f"--{key}={value}" for key, value in ALL_USED.items())]
    trained = metrics_in(call("--model=SASRec", *small_arguments, *keys, "--mask_seen=True")[1])
    assert trained
    [checkpoint] = (tmp_path / "saved").glob("*.pth")
    assert metrics_in(call("--evaluate", str(checkpoint))[1]) == trained
    assert metrics_in(call("--evaluate", str(checkpoint), "--mask_seen=False")[1]) != trained
