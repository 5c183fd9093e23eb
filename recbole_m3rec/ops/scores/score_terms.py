"""Terms that are added to single entries of a matrix of scores."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class ScoreTerms(NamedTuple):
    """What is added to some scores; a pair of query and item may come up several times.

    Attributes:
        rows: the query of each number, ascending, ``[S]`` int64.
        items: its item, ``[S]`` int64.
        values: ``[S]`` floating point.
    """

    rows: Tensor
    items: Tensor
    values: Tensor

    def of(self, items: Tensor) -> Tensor:
        """Return what is added to the score of one item per query, ``[n_queries]`` to the same."""
        same = self.items == items[self.rows]
        zeros = self.values.new_zeros(len(items))
        return zeros.index_add(0, self.rows[same], self.values[same])

    def add_to_(self, scores: Tensor) -> Tensor:
        """Add the terms to a whole matrix ``[n_queries, n_items]`` in place, and return it."""
        values = self.values.to(scores.dtype)
        if scores.is_cpu and scores.is_contiguous():  # index_put_ adds as its threads come
            scores.view(-1).index_add_(0, self.rows * scores.shape[1] + self.items, values)
            return scores
        return scores.index_put_((self.rows, self.items), values, accumulate=True)

    def add_to_block_(self, scores: Tensor, first_row: int, first_item: int) -> ScoreTermBlock:
        """Add the terms to a block of the matrix, and say where they went."""
        edges = torch.tensor([first_row, first_row + scores.shape[0]], device=self.rows.device)
        start, stop = torch.searchsorted(self.rows, edges).tolist()
        places: slice | Tensor = slice(start, stop)
        items = self.items[places] - first_item
        here = (items >= 0) & (items < scores.shape[1])
        if not bool(here.all()):
            places = here.nonzero().squeeze(1) + start
            items = items[here]
        rows = self.rows[places] - first_row
        ScoreTerms(rows, items, self.values[places]).add_to_(scores)
        return ScoreTermBlock(places, rows * scores.shape[1] + items)


class ScoreTermBlock(NamedTuple):
    """The terms in a block of the matrix.

    Attributes:
        places: which of all terms they are.
        entries: where they stand in the block, whose rows follow each other, ``[n]`` int64.
    """

    places: slice | Tensor
    entries: Tensor

    def of(self, block: Tensor) -> Tensor:
        """Return the block's values there, ``[n]``."""
        return block.reshape(-1).index_select(0, self.entries)
