"""Training rows with a target at every position (``train_positions: all``).

A user's training interactions are one sequence; a *window* is a row of at most L inputs of it, and
the item after each input is that input's target:

    inputs    i1 i2 i3 i4        i3 i4 i5 i6        (L = 4: the second window starts L // 2 later
    targets   i2 i3 i4 i5         .  . i6 i7         and scores only what was not scored before)

So every interaction but a user's first is a target exactly once, with at least half of the L
interactions that RecBole's prefix row would show before it. On histories of at most L inputs there
is one window, which holds all of RecBole's prefix rows at once.

Letters: P prefix rows, S sequences, W windows, L the most inputs of a row, T all items of all
    sequences.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

TARGET_LIST = "target_item_list"
"""Field of a batch: ``[W, L]`` int64, the target of every position; 0 is a position not scored."""


class Sequences(NamedTuple):
    """Training sequences, one after another.

    ``items [T]``; sequence ``s`` of user ``user[s]`` is ``items[offset[s] : offset[s + 1]]``, and
    its first ``n_context[s]`` items (at least 1) are inputs only, never targets.
    """

    items: Tensor
    offset: Tensor
    user: Tensor
    n_context: Tensor


class Windows(NamedTuple):
    """Rows of inputs: ``n_inputs`` items of sequence ``sequence`` from its position ``start`` on.

    The items after inputs ``first_scored .. n_inputs - 1`` of the row are its targets. All ``[W]``
    int64.
    """

    sequence: Tensor
    start: Tensor
    n_inputs: Tensor
    first_scored: Tensor


def window_rows(lengths: Tensor, max_length: int) -> Windows:
    """Cover sequences with windows of at most ``max_length`` inputs.

    Args:
        lengths: items of each sequence, ``[S]``; one of less than 2 has no target and gets no
            window.
        max_length: L, at least 1.

    Returns:
        windows in the order of sequences and of time.
    """
    if max_length < 1:
        raise ValueError(f"a window holds at least 1 input, got max_length={max_length}")
    stride = max(1, max_length // 2)
    n_inputs = (lengths - 1).clamp(min=0)
    n_later = ((n_inputs - max_length).clamp(min=0) + stride - 1) // stride
    n_windows = torch.where(n_inputs > 0, n_later + 1, 0)
    sequence, number = _ragged(n_windows)
    start = number * stride
    return Windows(
        sequence=sequence,
        start=start,
        n_inputs=(n_inputs[sequence] - start).clamp(max=max_length),
        first_scored=torch.where(number > 0, max_length - stride, 0),
    )


def sequences_of_prefix_rows(
    users: Tensor,
    targets: Tensor,
    entries: Callable[[Tensor, Tensor], Tensor],
    lengths: Tensor,
    max_length: int,
) -> Sequences:
    """Put the sequences together again that prefix rows were made of.

    Rows of one user follow each other in time, whatever stands between them, as in every split in
    time order. A row that does not continue the row before it (it misses a target in between)
    starts a sequence of its own, whose history is context and not scored: each row's target is a
    target once.

    Args:
        users: ``[P]``.
        targets: ``[P]`` item ids.
        entries: from rows and columns to item ids of histories, ``[n]`` each.
        lengths: items of each history, ``[P]``, in ``1..L``.
        max_length: L.

    Raises:
        ValueError: a history of length 0.
    """
    if len(lengths) and int(lengths.min()) < 1:
        raise ValueError(
            f"row {int(lengths.argmin())} has a history of length 0, expected at least 1"
        )
    order = torch.argsort(users, stable=True)
    user, target, length = users[order], targets[order], lengths[order]
    latest = entries(order, length - 1)
    starts = torch.ones(len(order), dtype=torch.bool)
    starts[1:] = (
        (user[1:] != user[:-1])
        | (latest[1:] != target[:-1])
        | (length[1:] != (length[:-1] + 1).clamp(max=max_length))
    )
    first = starts.nonzero().squeeze(1)
    n_context = length[first]
    n_rows = torch.diff(first, append=torch.tensor([len(order)]))
    offset = torch.cat([torch.zeros(1, dtype=torch.int64), (n_context + n_rows).cumsum(0)])
    # A sequence is the history of its first row, then the targets of all its rows.
    items = targets.new_empty(int(offset[-1]))
    sequence, column = _ragged(n_context)
    items[offset[sequence] + column] = entries(order[first[sequence]], column)
    sequence, column = _ragged(n_rows)
    items[(offset[:-1] + n_context)[sequence] + column] = target
    return Sequences(items, offset, user[first], n_context)


def _ragged(lengths: Tensor) -> tuple[Tensor, Tensor]:
    """Row and column of every entry of rows of these lengths, ``[sum(lengths)]`` each."""
    row = torch.arange(len(lengths)).repeat_interleave(lengths)
    return row, torch.arange(len(row)) - (lengths.cumsum(0) - lengths)[row]


class WindowTable:
    """All windows of a training split, from which batches are cut by index."""

    def __init__(self, sequences: Sequences, max_length: int) -> None:
        windows = window_rows(torch.diff(sequences.offset), max_length)
        context = sequences.n_context[windows.sequence] - 1
        self.user = sequences.user[windows.sequence]
        self.n_inputs = windows.n_inputs
        self.first_scored = torch.where(windows.start == 0, context, windows.first_scored)
        self._start = sequences.offset[windows.sequence] + windows.start
        # Padding, so that a row may be read at full width wherever it starts.
        self._items = torch.cat([sequences.items, sequences.items.new_zeros(max_length + 1)])

    def __len__(self) -> int:
        return len(self.n_inputs)

    @property
    def n_targets(self) -> Tensor:
        """Scored positions of each window, ``[W]``, each at least 1."""
        return self.n_inputs - self.first_scored

    def rows(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """Inputs and targets of the windows ``index [R]``, both ``[R, L']`` padded with 0.

        ``L'`` is the most inputs of these windows.
        """
        n_inputs = self.n_inputs[index, None]
        column = torch.arange(int(n_inputs.max()))
        place = self._start[index, None] + column
        real = column < n_inputs
        scored = real & (column >= self.first_scored[index, None])
        return self._items[place] * real, self._items[place + 1] * scored


def group_by_targets(n_targets: Tensor, order: Tensor, max_targets: int) -> list[Tensor]:
    """Cut shuffled rows into batches of at most ``max_targets`` targets, as full as possible.

    Args:
        n_targets: targets of each row, ``[R]``; a row with more than ``max_targets`` is a batch of
            its own.
        order: row numbers, ``[R]``.
        max_targets: at least 1.
    """
    total = n_targets[order].cumsum(0)
    batches, begin, before = [], 0, 0
    while begin < len(order):
        end = int(torch.searchsorted(total, before + max_targets, right=True))
        end = max(end, begin + 1)
        batches.append(order[begin:end])
        begin, before = end, int(total[end - 1])
    return batches
