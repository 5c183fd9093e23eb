"""The k-core of interactions, and one interaction per user and item."""

from __future__ import annotations

import numpy as np


def k_core(users: np.ndarray, items: np.ndarray, k: int) -> np.ndarray:
    """Find what is left when users and items with fewer than ``k`` are dropped, repeatedly.

    The fixed point is the same whatever is dropped first, hence RecBole's.

    Args:
        users: codes, ``[n]``, small integers from 0 on.
        items: the same of the items.
        k: fewest interactions of a user and of an item; repeated ones count each time.

    Returns:
        Indices of the interactions kept, ascending, int64.
    """
    rows = np.arange(len(users))
    while len(rows):
        here_users, here_items = users[rows], items[rows]
        enough = np.bincount(here_users)[here_users] >= k
        enough &= np.bincount(here_items)[here_items] >= k
        if enough.all():
            break
        rows = rows[enough]
    return rows


def one_per_pair(users: np.ndarray, items: np.ndarray, times: np.ndarray, keep: str) -> np.ndarray:
    """Find one interaction for each pair of user and item.

    Args:
        users, items: codes, ``[n]``.
        times: ``[n]``.
        keep: ``"first"`` or ``"last"`` in time; of equal times, in the order of the rows.

    Returns:
        Indices of the interactions kept, ascending, int64.
    """
    order = np.lexsort((times, items, users))
    new = np.ones(len(order), bool)
    new[1:] = (np.diff(users[order]) != 0) | (np.diff(items[order]) != 0)
    chosen = new if keep == "first" else np.append(new[1:], len(order) > 0)[: len(order)]
    return np.sort(order[chosen])


def n_repeated(users: np.ndarray, items: np.ndarray) -> int:
    """Return how many interactions are of a pair of user and item that an earlier one is of."""
    if not len(users):
        return 0
    pairs = users.astype(np.int64) * (int(items.max()) + 1) + items
    pairs.sort()
    return int((np.diff(pairs) == 0).sum())


def n_identical(*columns: np.ndarray) -> int:
    """Return how many rows are alike in all columns, ``[n]`` each, to an earlier one."""
    order = np.lexsort(columns)
    alike = np.ones(max(len(order) - 1, 0), bool)
    for column in columns:
        alike &= np.diff(column[order]) == 0
    return int(alike.sum())
