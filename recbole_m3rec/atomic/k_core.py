"""The k-core of interactions, and one interaction per user and item."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from recbole_m3rec.cluster.pieces import THIS_PROCESS, Cluster


class Part(NamedTuple):
    """What is left of the interactions of some users: places in the part, and codes, ``[n]``."""

    places: np.ndarray
    users: np.ndarray
    items: np.ndarray

    def where(self, chosen: np.ndarray) -> Part:
        """Return the interactions of a mask."""
        return Part(self.places[chosen], self.users[chosen], self.items[chosen])


def k_core(
    users: np.ndarray, items: np.ndarray, k: int, cluster: Cluster = THIS_PROCESS
) -> np.ndarray:
    """Find what is left when users and items with fewer than ``k`` are dropped, repeatedly.

    The fixed point is the same whatever is dropped first, hence RecBole's. Each part of the users
    stays where it is; what travels are the counts of items.

    Args:
        users: codes, ``[n]``, small integers from 0 on.
        items: the same of the items.
        k: fewest interactions of a user and of an item; repeated ones count each time.
        cluster: where users and items are counted.

    Returns:
        Indices of the interactions kept, ascending, int64.
    """
    n_items = int(items.max(initial=-1)) + 1
    n_parts = cluster.n_workers
    rows = [np.flatnonzero(users % n_parts == number) for number in range(n_parts)]
    parts = [cluster.keep(frequent_users, users[part], items[part], k) for part in rows]
    while True:
        found = cluster.map(count_items, [(part, n_items) for part in parts])
        counts = sum(found, start=np.zeros(n_items, np.int64))
        is_rare = counts < k
        if not counts[is_rare].any():
            break
        parts = [cluster.keep(without_items, part, is_rare, k) for part in parts]
    places = cluster.map(places_of, [(part,) for part in parts])
    left = np.concatenate([of[some] for of, some in zip(rows, places, strict=True)])
    left.sort()
    return left


def frequent_users(users: np.ndarray, items: np.ndarray, k: int) -> Part:
    """Return the interactions of users with at least ``k`` of them."""
    return _without_rare_users(Part(np.arange(len(users)), users, items), k)


def _without_rare_users(part: Part, k: int) -> Part:
    return part.where(np.bincount(part.users)[part.users] >= k)


def without_items(part: Part, is_rare: np.ndarray, k: int) -> Part:
    """Drop items, ``[n_items]`` says which, and then users with fewer than ``k`` interactions."""
    return _without_rare_users(part.where(~is_rare[part.items]), k)


def count_items(part: Part, n_items: int) -> np.ndarray:
    """Count the interactions of each item, ``[n_items]`` int64."""
    return np.bincount(part.items, minlength=n_items)


def places_of(part: Part) -> np.ndarray:
    """Return where in the part, as it was at first, the interactions left stood."""
    return part.places


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
