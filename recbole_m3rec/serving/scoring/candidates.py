"""Exact scores of a few candidates for each query."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class Pairs(NamedTuple):
    """Pairs of row and item, to be looked up; with the sum of values of each."""

    keys: Tensor  # ascending, each once
    values: Tensor

    @classmethod
    def of(cls, rows: Tensor, items: Tensor, values: Tensor | None = None) -> Pairs:
        keys, places = torch.unique((rows << 32) | items, return_inverse=True)
        values = torch.zeros(len(rows)) if values is None else values.float()
        return cls(keys, torch.zeros(len(keys)).index_add_(0, places, values))

    def look_up(self, rows: Tensor, items: Tensor) -> tuple[Tensor, Tensor]:
        """Tell which items ``[B, n]`` of rows ``[B]`` are there, and their values, 0 if not."""
        if not len(self.keys):
            return torch.zeros_like(items, dtype=torch.bool), torch.zeros(items.shape)
        wanted = (rows[:, None] << 32) | items.clamp(min=0)
        places = torch.searchsorted(self.keys, wanted).clamp_(max=len(self.keys) - 1)
        there = self.keys[places] == wanted
        return there, self.values[places] * there

    def of_rows(self, rows: Tensor) -> Tensor:
        """Return the items of rows, ``[B, n]``, filled up with -1."""
        bounds = torch.searchsorted(self.keys, torch.stack([rows, rows + 1]) << 32)
        lists = [self.keys[a:b] & 0xFFFFFFFF for a, b in bounds.T.tolist()]
        return torch.nn.utils.rnn.pad_sequence(lists, batch_first=True, padding_value=-1)


def score(
    queries: Tensor,
    table: Tensor,
    items: Tensor,
    rows: Tensor,
    added: Pairs | None,
    removed: Pairs | None = None,
    allowed: Sequence[Tensor | None] = (),
) -> Tensor:
    """Score ascending items ``[B, n]`` of some rows; -inf for what is not to be recommended."""
    vectors = table[items.clamp(min=0)].float()
    scores = torch.bmm(vectors, queries[:, :, None]).squeeze(2)
    if added is not None:
        scores += added.look_up(rows, items)[1]
    unwanted = items <= 0
    if removed is not None:
        unwanted |= removed.look_up(rows, items)[0]
    unwanted[:, 1:] |= items[:, 1:] == items[:, :-1]
    for place, row in enumerate(rows.tolist() if allowed else ()):
        if (only := allowed[row]) is not None:
            unwanted[place] |= ~torch.isin(items[place], only)
    return scores.masked_fill_(unwanted, -torch.inf)
