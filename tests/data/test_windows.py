"""Windows of training sequences against a naive reading of their rules."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from recbole_m3rec.data.augmentation import PrefixLists, prefix_rows
from recbole_m3rec.data.windows import (
    WindowTable,
    group_by_targets,
    sequences_of_prefix_rows,
    window_rows,
)

LENGTHS = st.sampled_from([1, 2, 3, 5, 8, 50])
HISTORIES = st.lists(st.lists(st.integers(1, 6), min_size=1, max_size=70), min_size=1, max_size=6)


def sequences_of(users, targets, lists, lengths):
    return sequences_of_prefix_rows(
        users, targets, lambda row, column: lists[row, column], lengths, lists.shape[1]
    )


def prefix_table(histories, max_length):
    """RecBole's prefix rows of users 1, 2, ...: users, targets, histories, lengths."""
    users = torch.arange(1, len(histories) + 1).repeat_interleave(
        torch.tensor([len(history) for history in histories])
    )
    items = torch.tensor([item for history in histories for item in history])
    rows = prefix_rows(users, max_length)
    lists = PrefixLists(items, rows, (max_length,)).laid_out()
    return users[rows.target], items[rows.target], lists, rows.length


def naive_windows(n_items, max_length):
    """(start, inputs, first scored input) of each window of a sequence."""
    n_inputs, stride, windows = n_items - 1, max(1, max_length // 2), []
    scored_to, start = 0, 0
    while scored_to < n_inputs:
        end = min(start + max_length, n_inputs)
        windows.append((start, end - start, scored_to - start))
        scored_to, start = end, start + stride
    return windows


@given(st.lists(st.integers(0, 130), max_size=5), LENGTHS)
def test_windows_start_half_a_window_later_until_all_is_scored(lengths, max_length):
    windows = window_rows(torch.tensor(lengths, dtype=torch.int64), max_length)
    expected = [
        (sequence, *window)
        for sequence, n_items in enumerate(lengths)
        for window in naive_windows(n_items, max_length)
    ]
    assert list(zip(*(column.tolist() for column in windows), strict=True)) == expected


def test_a_window_of_length_zero_is_refused():
    with pytest.raises(ValueError, match="at least 1"):
        window_rows(torch.tensor([3]), 0)


def scored(table):
    """Every scored position of a table: (user, inputs up to it, target)."""
    inputs, targets = table.rows(torch.arange(len(table)))
    for row in range(len(table)):
        for column in targets[row].nonzero().flatten().tolist():
            yield (
                int(table.user[row]),
                tuple(inputs[row, : column + 1].tolist()),
                int(targets[row, column]),
            )


@given(
    st.lists(st.lists(st.integers(1, 6), min_size=2, max_size=9), min_size=1, max_size=6),
    st.sampled_from([8, 50]),
)
def test_on_histories_that_fit_every_target_sees_what_its_prefix_row_shows(histories, max_length):
    users, targets, lists, lengths = prefix_table(histories, max_length)
    table = WindowTable(sequences_of(users, targets, lists, lengths), max_length)
    assert len(table) == len(histories)
    assert list(scored(table)) == [
        (user, tuple(history[:length]), target)
        for user, history, length, target in zip(
            users.tolist(), lists.tolist(), lengths.tolist(), targets.tolist(), strict=True
        )
    ]


@given(HISTORIES, LENGTHS, st.data())
def test_sequences_survive_other_users_rows_in_between(histories, max_length, data):
    users, targets, lists, lengths = prefix_table(histories, max_length)
    # A split in time order: users' rows are dealt among each other, each user's in their order.
    turns = torch.tensor(data.draw(st.permutations(users.tolist())), dtype=torch.int64)
    order = torch.empty_like(turns)
    for user in users.unique():
        order[turns == user] = (users == user).nonzero().flatten()
    sequences = sequences_of(users[order], targets[order], lists[order], lengths[order])
    expected = [(u + 1, items) for u, items in enumerate(histories) if len(items) > 1]
    assert sequences.user.tolist() == [user for user, _ in expected]
    assert sequences.n_context.tolist() == [1] * len(expected)
    pieces = sequences.items.split(torch.diff(sequences.offset).tolist())
    assert [piece.tolist() for piece in pieces] == [items for _, items in expected]


@given(st.lists(st.integers(2, 70), min_size=1, max_size=4), LENGTHS, st.data())
def test_of_rows_with_gaps_each_target_is_still_scored_once_after_its_own_history(
    sizes, max_length, data
):
    # Items of a user differ, so that a gap shows.
    histories = [list(range(1, size + 1)) for size in sizes]
    columns = prefix_table(histories, max_length)
    kept = data.draw(
        st.lists(st.booleans(), min_size=len(columns[0]), max_size=len(columns[0])).filter(any)
    )
    users, targets, lists, lengths = (column[torch.tensor(kept)] for column in columns)
    table = WindowTable(sequences_of(users, targets, lists, lengths), max_length)
    assert int(table.n_targets.min()) >= 1
    assert int(table.n_inputs.max()) <= max_length
    got = list(scored(table))
    assert [(user, target) for user, _, target in got] == list(
        zip(users.tolist(), targets.tolist(), strict=True)
    )
    for (_, seen, _), history, length in zip(got, lists.tolist(), lengths.tolist(), strict=True):
        assert seen == tuple(history[length - len(seen) : length])
        assert 2 * len(seen) >= length


def test_a_row_without_a_history_is_refused_by_number():
    one = torch.tensor([1, 1])
    with pytest.raises(ValueError, match="row 1 has a history of length 0"):
        sequences_of(one, one, one[:, None].expand(2, 3), torch.tensor([1, 0]))


def test_rows_are_trimmed_to_the_longest_of_the_batch():
    users, targets, lists, lengths = prefix_table([[1, 2, 3, 4], [5, 6], [7, 8, 9]], 50)
    table = WindowTable(sequences_of(users, targets, lists, lengths), 50)
    inputs, targets = table.rows(torch.tensor([2, 1]))
    assert inputs.tolist() == [[7, 8], [5, 0]]
    assert targets.tolist() == [[8, 9], [6, 0]]


@given(
    st.lists(st.integers(1, 9), min_size=1, max_size=40).flatmap(
        lambda counts: st.tuples(st.just(counts), st.permutations(range(len(counts))))
    ),
    st.integers(1, 30),
)
def test_batches_keep_the_order_and_are_full(counts_and_order, max_targets):
    counts, order = counts_and_order
    batches = group_by_targets(torch.tensor(counts), torch.tensor(order), max_targets)
    assert [row for batch in batches for row in batch.tolist()] == list(order)
    sizes = [sum(counts[row] for row in batch.tolist()) for batch in batches]
    for batch, size in zip(batches, sizes, strict=True):
        assert size <= max_targets or len(batch) == 1
    for size, following in zip(sizes, batches[1:], strict=False):
        assert size + counts[int(following[0])] > max_targets
