"""The items that users have used before, looked up for a batch of users."""

from __future__ import annotations

import torch
from torch import Tensor


class SeenItems:
    """The items of every user's history, each once.

    Args:
        users: user ids, ``[N]`` int64, each in ``0..n_users - 1``.
        items: the item that each used, ``[N]`` int64; 0 is padding and left out.
        n_items: how many items there are, padding included.
    """

    def __init__(self, users: Tensor, items: Tensor, n_users: int, n_items: int) -> None:
        self.n_items = n_items
        self.keys = torch.unique(users[items != 0] * n_items + items[items != 0])
        edges = torch.arange(n_users + 1) * n_items
        self.starts = torch.searchsorted(self.keys, edges)

    def of(self, users: Tensor, lists: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return what a batch of users has seen.

        Args:
            users: ``[B]`` int64.
            lists: further items that each row has seen, ``[B, L]`` int64, 0 is padding.

        Returns:
            Rows of the batch, ascending, and the item seen in each, ascending within a row and each
            once; two ``[S]`` int64.
        """
        counts = self.starts[users + 1] - self.starts[users]
        rows = torch.repeat_interleave(torch.arange(len(users)), counts)
        # Place within the user's own items, then within all.
        place = torch.arange(len(rows)) - (counts.cumsum(0) - counts)[rows]
        items = self.keys[self.starts[users][rows] + place] % self.n_items
        if lists is None:
            return rows, items
        row, column = lists.nonzero(as_tuple=True)
        keys = torch.cat([rows * self.n_items + items, row * self.n_items + lists[row, column]])
        keys = torch.unique(keys)
        return keys // self.n_items, keys % self.n_items

    def contains(self, users: Tensor, items: Tensor) -> Tensor:
        """Tell of each pair of user and item whether the user has seen it, ``[N]`` bool."""
        keys = users * self.n_items + items
        if len(self.keys) == 0:
            return torch.zeros(len(keys), dtype=torch.bool)
        place = torch.searchsorted(self.keys, keys).clamp_(max=len(self.keys) - 1)
        return self.keys[place] == keys
