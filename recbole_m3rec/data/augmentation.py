"""Prefix augmentation and splits as operations on whole columns.

RecBole turns a user's time-ordered items ``i1 i2 i3 i4`` into one row for each target,

    i1 -> i2      i1 i2 -> i3      i1 i2 i3 -> i4

and then deals the rows to training, validation and test, user by user. The functions here do both
on whole columns and give the same rows in the same order, to the bit. They know tensors alone.

Letters: N interactions, R rows, L the longest history of a row.
"""

import copy
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

# Values gathered at a time, so that temporaries stay at 32 MB however long the log is. Much smaller
# chunks would be hundreds of short parallel loops, which crawl on a machine whose cores are taken.
CHUNK_VALUES = 2**22


class PrefixRows(NamedTuple):
    """Rows of the augmentation, as positions in the interactions they were made of.

    Row ``r`` has the history ``start[r] .. start[r] + length[r] - 1`` and the target ``target[r]``,
    all ``[R]`` int64.
    """

    start: Tensor
    target: Tensor
    length: Tensor

    def taken(self, order: Any) -> "PrefixRows":
        """Return the rows ``order``, anything that picks rows of a tensor, in that order."""
        return PrefixRows(*(column[order] for column in self))


def prefix_rows(users: Tensor, max_length: int) -> PrefixRows:
    """Make every interaction but each user's first the target of the interactions before it.

    Args:
        users: user of each interaction, ``[N]``, one user's interactions side by side and in time
            order.
        max_length: most interactions in a history; of longer ones the latest are kept. At least 1.

    Returns:
        rows with ascending targets.
    """
    if max_length < 1:
        raise ValueError(f"a history holds at least 1 interaction, got max_length={max_length}")
    position = torch.arange(len(users))
    first = torch.ones(len(users), dtype=torch.bool)
    first[1:] = users[1:] != users[:-1]
    target = position[~first]
    # The latest first interaction up to a position is that of the position's own user.
    first_of_user = torch.where(first, position, 0).cummax(0).values
    start = torch.maximum(first_of_user[target], target - max_length)
    return PrefixRows(start, target, target - start)


class PrefixLists:
    """The histories of one field: rows padded with zeros on the right, laid out when asked for.

    All rows laid out take ``L`` times the room of the interactions that they are made of.

    Args:
        values: the field of each interaction, ``[N, ...]``.
        rows: histories as positions in ``values``.
        shape: shape of one row, ``(L, ...)``; where the field is narrower than ``shape[1:]`` it is
            broadcast to it.

    Raises:
        ValueError: the field cannot be broadcast to ``shape[1:]``.
    """

    def __init__(self, values: Tensor, rows: PrefixRows, shape: Sequence[int]) -> None:
        width, inner = shape[0], tuple(shape[1:])
        try:
            values = values.expand(len(values), *inner)
        except RuntimeError as error:
            raise ValueError(
                f"one interaction's value has shape {tuple(values.shape[1:])}, expected {inner}"
            ) from error
        self._shape, self._rows = tuple(shape), rows
        self._padded = torch.cat([values, values.new_zeros((width, *inner))])

    @property
    def shape(self) -> tuple[int, ...]:
        """``(R, L, ...)``, that of all rows laid out."""
        return (len(self._rows.start), *self._shape)

    def taken(self, order: Any) -> "PrefixLists":
        """Return the rows ``order``, anything that picks rows of a tensor, in that order."""
        return self._copy(self._padded, self._rows.taken(order))

    def of_values(self, change: Callable[[Tensor], Tensor]) -> "PrefixLists":
        """Return the same histories of other values, ``change`` of these; it keeps 0 and shape."""
        return self._copy(change(self._padded), self._rows)

    def _copy(self, padded: Tensor, rows: PrefixRows) -> "PrefixLists":
        other = copy.copy(self)
        other._padded, other._rows = padded, rows
        return other

    def at(self, row: Tensor, column: Tensor) -> Tensor:
        """Return single entries of rows, before their padding begins."""
        return self._padded[self._rows.start[row] + column]

    def laid_out(self) -> Tensor:
        """Return all rows, ``[R, L, ...]`` with the dtype of the values."""
        rows, width = self._rows, self._shape[0]
        lists = self._padded.new_zeros(self.shape)
        # A sliding view [N + 1, L, ...] of the values: a history is one entry, cut to its length.
        windows = self._padded.unfold(0, width, 1).movedim(-1, 1)
        column = torch.arange(width)
        chunk = max(1, CHUNK_VALUES // max(1, math.prod(self._shape)))
        for first in range(0, len(lists), chunk):
            part = slice(first, first + chunk)
            history = windows[rows.start[part]]
            history[column >= rows.length[part, None]] = 0
            lists[part] = history
        return lists


class Groups(NamedTuple):
    """Rows gathered group by group: groups in order of first appearance, rows of a group in theirs.

    ``order [R]`` are row numbers; row ``order[k]`` is number ``position[k]`` of its group, which
    has ``size[k]`` rows.
    """

    order: Tensor
    position: Tensor
    size: Tensor


def group_rows(keys: Tensor) -> Groups:
    """Gather rows with equal keys, ``[R]``."""
    unique, inverse = torch.unique(keys, return_inverse=True)
    row = torch.arange(len(keys))
    first_row = torch.full((len(unique),), len(keys)).scatter_reduce_(0, inverse, row, "amin")
    order = torch.argsort(first_row[inverse], stable=True)
    sizes = torch.bincount(inverse, minlength=len(unique))[first_row.argsort()]
    size = sizes.repeat_interleave(sizes)
    start = (sizes.cumsum(0) - sizes).repeat_interleave(sizes)
    return Groups(order, row - start, size)


def split_last_out(keys: Tensor, n_out: int) -> list[Tensor]:
    """Deal the last ``n_out`` rows of each group out to a part each, the rest to the first part.

    A group always keeps one row in the first part: with fewer than ``n_out + 1`` rows it has none
    for the earliest of the other parts.

    Args:
        keys: group of each row, ``[R]``, rows in time order.
        n_out: parts besides the first.

    Returns:
        row numbers of the ``n_out + 1`` parts.
    """
    order, position, size = group_rows(keys)
    from_end = size - position
    out = (from_end <= n_out) & (position > 0)
    return [order[~out], *(order[out & (from_end == k)] for k in range(n_out, 0, -1))]


def split_at(keys: Tensor, cuts: Callable[[int], Sequence[int]], n_parts: int) -> list[Tensor]:
    """Cut each group into parts at the positions that ``cuts`` gives for the group's size.

    Args:
        keys: group of each row, ``[R]``, rows in time order.
        cuts: from a group's size to the first position of its ``n_parts - 1`` later parts,
            ascending.
        n_parts: parts to cut into.

    Returns:
        row numbers of the parts.
    """
    order, position, size = group_rows(keys)
    sizes, inverse = torch.unique(size, return_inverse=True)
    table = torch.zeros((len(sizes), n_parts - 1), dtype=torch.int64)
    for row, group_size in enumerate(sizes.tolist()):
        table[row] = torch.as_tensor(cuts(group_size))
    part = (position[:, None] >= table[inverse]).sum(1)
    return [order[part == k] for k in range(n_parts)]
