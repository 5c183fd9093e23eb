"""Rows with histories that are laid out late are RecBole's rows, whatever is done with them."""

import copy
import pickle

import numpy as np
import pytest
import torch
from recbole.data.interaction import Interaction

from recbole_m3rec.data.augmentation import PrefixLists, prefix_rows
from recbole_m3rec.data.history_rows import HistoryRows, entries

USERS = torch.tensor([1, 1, 1, 1, 2, 2, 3, 3, 3])
ITEMS = torch.arange(1, 10)


def made():
    """Return the same rows twice: with late histories, and as RecBole keeps them."""
    rows = prefix_rows(USERS, 2)
    lists = PrefixLists(ITEMS, rows, (2,))
    fields = {"user": USERS[rows.target], "item": ITEMS[rows.target], "length": rows.length}
    return HistoryRows(fields, {"history": lists}), Interaction(
        {**fields, "history": lists.laid_out()}
    )


def assert_same(late, plain):
    assert late.columns == plain.columns == list(late)
    assert len(late) == len(plain)
    for name in plain:
        assert torch.equal(late[name], plain[name]), name


def is_late(rows):
    return "history" in rows._lists


@pytest.mark.parametrize(
    "index",
    [
        slice(1, 4),
        [2, 0],
        torch.tensor([5, 1, 1]),
        torch.tensor([True, False, False, True, True, False]),
        torch.tensor([3, 1]).numpy(),
        torch.empty(0, dtype=torch.int64),
        [],
        np.arange(6)[::-1],
        torch.tensor([1, 0, 0, 1, 0, 1], dtype=torch.uint8),
    ],
)
def test_picked_rows_are_the_same_and_still_late(index):
    late, plain = made()
    picked = late[index]
    assert is_late(late)
    assert is_late(picked)
    assert_same(picked, plain[index])


@pytest.mark.parametrize(
    "do",
    [
        lambda rows: rows.sort("length"),
        lambda rows: rows.sort(["length", "item"]),
        lambda rows: rows._reindex(torch.tensor([1, 0])),
        lambda rows: rows.drop("length"),
    ],
)
def test_rows_that_are_sorted_or_lose_a_field_stay_late(do):
    late, plain = made()
    for each in (late, plain):
        do(each)
    assert is_late(late)
    assert_same(late, plain)


@pytest.mark.parametrize(
    "do",
    [
        lambda rows: rows.drop("history"),
        lambda rows: rows.update(Interaction({"price": torch.ones(6)})),
        lambda rows: rows.add_prefix("x_"),
        lambda rows: rows.__setitem__("history", torch.zeros(6, 2)),
        lambda rows: rows.__delitem__("history"),
    ],
)
def test_what_else_changes_rows_does_it_as_in_recbole(do):
    late, plain = made()
    for each in (late, plain):
        do(each)
    assert_same(late, plain)


@pytest.mark.parametrize("index", [2, -1, np.int64(3), torch.tensor(1)])
def test_a_single_row_is_the_same(index):
    late, plain = made()
    row, expected = late[index], plain[index]
    assert row.columns == expected.columns
    assert all(torch.equal(row[name], expected[name]) for name in row)


def test_rows_can_be_sorted_by_a_history():
    late, plain = made()
    for each in (late, plain):
        each.sort("history")
    assert_same(late, plain)


def test_a_field_that_is_not_there_cannot_be_dropped():
    with pytest.raises(ValueError, match="price"):
        made()[0].drop("price")


def test_copies_are_the_same():
    late, plain = made()
    assert_same(copy.deepcopy(late), plain)
    assert is_late(late)
    assert_same(late[:4].to("cpu"), plain[:4].to("cpu"))
    assert_same(late.repeat(2), plain.repeat(2))
    assert_same(pickle.loads(pickle.dumps(made()[0])), plain)
    assert torch.equal(late.history, plain.history)
    with pytest.raises(AttributeError, match="'price'"):
        _ = late.price


def test_single_entries_and_changed_values_leave_rows_late():
    late, plain = made()
    row, column = torch.tensor([0, 2, 5]), torch.tensor([0, 1, 1])
    assert torch.equal(
        entries(late, "history", row, column), entries(plain, "history", row, column)
    )
    for name in ("history", "item"):
        late.change(name, lambda values: 10 * values)
        plain[name] = 10 * plain[name]
    assert is_late(late)
    assert_same(late, plain)
