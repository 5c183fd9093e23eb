"""Prefix rows and splits against a naive reading of what they mean."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from recbole_m3rec.data import augmentation
from recbole_m3rec.data.augmentation import PrefixLists, prefix_rows, split_at, split_last_out

LENGTHS = st.sampled_from([1, 2, 5, 50])


def naive_prefixes(users, max_length):
    """Positions of the history and of the target of every row."""
    rows = []
    for target, user in enumerate(users):
        history = [k for k in range(target) if users[k] == user]
        if history:
            rows.append((history[-max_length:], target))
    return rows


def naive_groups(keys):
    groups = {}
    for row, key in enumerate(keys):
        groups.setdefault(key, []).append(row)
    return groups


@given(st.lists(st.integers(1, 5), max_size=60).map(sorted), LENGTHS)
def test_every_interaction_but_a_users_first_follows_its_latest_predecessors(users, max_length):
    rows = prefix_rows(torch.tensor(users, dtype=torch.int64), max_length)
    got = [
        (list(range(start, start + length)), target)
        for start, target, length in zip(*(column.tolist() for column in rows), strict=True)
    ]
    assert got == naive_prefixes(users, max_length)


def test_a_history_of_length_zero_is_refused():
    with pytest.raises(ValueError, match="at least 1"):
        prefix_rows(torch.tensor([1, 1]), 0)


@pytest.mark.parametrize("chunk_values", [1, 7, 2**22])
@pytest.mark.parametrize("inner", [(), (3,), (2,), (3, 2)])
@pytest.mark.parametrize("dtype", [torch.int64, torch.float32])
def test_lists_hold_the_values_of_the_history_then_zeros(monkeypatch, chunk_values, inner, dtype):
    monkeypatch.setattr(augmentation, "CHUNK_VALUES", chunk_values)
    users = [1, 1, 1, 1, 2, 3, 3, 3]
    values = (torch.arange(8 * torch.Size(inner).numel()) + 1).reshape(8, *inner).to(dtype)
    values[1] = float("inf") if dtype.is_floating_point else -1
    lists = PrefixLists(values, prefix_rows(torch.tensor(users), 2), (2, *inner)).laid_out()
    assert lists.dtype == dtype
    for row, (history, _) in zip(lists, naive_prefixes(users, 2), strict=True):
        assert torch.equal(row[: len(history)], values[history])
        assert not row[len(history) :].any()


def test_a_field_wider_than_declared_is_refused():
    rows = prefix_rows(torch.tensor([1, 1]), 2)
    with pytest.raises(ValueError, match=r"shape \(3,\), expected \(2,\)"):
        PrefixLists(torch.ones(2, 3), rows, (2, 2)).laid_out()


@given(st.lists(st.integers(0, 4), max_size=40), st.integers(1, 3))
def test_each_users_last_rows_are_left_out_and_one_always_stays(keys, n_out):
    parts = split_last_out(torch.tensor(keys, dtype=torch.int64), n_out)
    expected = [[] for _ in range(n_out + 1)]
    for rows in naive_groups(keys).values():
        n_left_out = min(n_out, len(rows) - 1)
        expected[0] += rows[: len(rows) - n_left_out]
        for k in range(n_left_out):
            expected[-n_left_out + k].append(rows[len(rows) - n_left_out + k])
    assert [part.tolist() for part in parts] == expected


@given(st.lists(st.integers(0, 4), max_size=40))
def test_groups_are_cut_where_their_size_says(keys):
    def cuts(size):
        return [size // 2, size - size // 4]

    parts = split_at(torch.tensor(keys, dtype=torch.int64), cuts, 3)
    expected = [[], [], []]
    for rows in naive_groups(keys).values():
        first, second = cuts(len(rows))
        expected[0] += rows[:first]
        expected[1] += rows[first:second]
        expected[2] += rows[second:]
    assert [part.tolist() for part in parts] == expected
