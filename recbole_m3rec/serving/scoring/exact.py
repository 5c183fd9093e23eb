"""The best items of many queries, exactly: scores are made in blocks and never all held."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from recbole_m3rec.ops.matmul import matmul
from recbole_m3rec.ops.scores.best import best
from recbole_m3rec.ops.scores.score_terms import ScoreTerms

# A block holds at most so many scores, and of a large catalogue so many items.
BLOCK, ITEMS_AT_ONCE = 2**22, 2**18
GROUP = 64  # items whose best score is looked at first
FEW_SCORES = 2**15  # that are sorted without such a look


class Edits(NamedTuple):
    """What changes single scores before the best are chosen.

    Attributes:
        removed: rows, ascending, and an item of each that is not to be recommended; ``[S]`` each.
        added: terms that are added to single scores, or None.
        allowed: for each row the items it may get, ascending ``[n]``, or None for all.
        replaced: ascending rows whose scores are not the model's but ``replacement``.
        replacement: ``[n_items]`` float32.
    """

    removed: tuple[Tensor, Tensor]
    added: ScoreTerms | None
    allowed: Sequence[Tensor | None]
    replaced: Tensor
    replacement: Tensor

    def of(self, rows: Tensor) -> Edits:
        """Return the edits of some rows, ascending and at least one, which are numbered anew."""

        def pick(their_rows: Tensor, *columns: Tensor) -> tuple[Tensor, ...]:
            places = torch.searchsorted(rows, their_rows.contiguous()).clamp_(max=len(rows) - 1)
            here = rows[places] == their_rows
            return places[here], *(column[here] for column in columns)

        removed, added = pick(*self.removed), self.added and pick(*self.added)
        return Edits(
            (removed[0], removed[1]),
            ScoreTerms(added[0], added[1], added[2]) if added else None,
            [self.allowed[row] for row in rows.tolist()],
            pick(self.replaced)[0],
            self.replacement,
        )

    def apply(self, scores: Tensor, rows: slice, items: slice) -> None:
        """Edit a block of scores in place; item 0 is padding."""
        _, here = _within(self.replaced, rows)
        if len(here):
            scores[here] = self.replacement[items]
        if self.added is not None:
            self.added.add_to_block_(scores, rows.start, items.start)
        part, row = _within(self.removed[0], rows)
        item = self.removed[1][part] - items.start
        inside = (item >= 0) & (item < scores.shape[1])
        scores[row[inside], item[inside]] = -torch.inf
        for number in range(rows.start, rows.stop):
            if (allowed := self.allowed[number]) is not None:
                kept = allowed[(allowed >= items.start) & (allowed < items.stop)] - items.start
                own = scores[number - rows.start]
                values = own[kept]
                own.fill_(-torch.inf)
                own[kept] = values
        if items.start == 0:
            scores[:, 0] = -torch.inf


def _within(sorted_rows: Tensor, rows: slice) -> tuple[slice, Tensor]:
    # By numpy, for which a few numbers are less trouble than for torch.
    first, last = np.searchsorted(sorted_rows.numpy(), (rows.start, rows.stop)).tolist()
    return slice(first, last), sorted_rows[first:last] - rows.start


def exact_top(queries: Tensor, table: Tensor, k: int, edits: Edits) -> tuple[Tensor, Tensor]:
    """Return each query's ``k`` best items, of equal ones the lower number.

    Args:
        queries: ``[B, D]`` float32.
        table: ``[n_items, D]`` float32 or float16.

    Returns:
        Items ``[B, k]`` int64 and scores ``[B, k]``, -inf where there are no more items; fewer
        columns where there are fewer than ``k`` items.
    """
    n_items = len(table)
    width = min(n_items, ITEMS_AT_ONCE)
    height = max(1, BLOCK // width)
    all_items, all_scores = [], []
    for start in range(0, len(queries), height):
        rows = slice(start, min(start + height, len(queries)))
        top_scores = queries.new_empty(rows.stop - start, 0)
        top_items = torch.empty(rows.stop - start, 0, dtype=torch.int64)
        for first in range(0, n_items, width):
            items = slice(first, min(first + width, n_items))
            scores = matmul(queries[rows], table[items].to(queries.dtype), rows_at_a_time=height)
            edits.apply(scores, rows, items)
            block_scores, block_items = best_by_groups(scores, k)
            if first == 0:
                top_scores, top_items = block_scores, block_items
                continue
            top_scores = torch.cat([top_scores, block_scores], 1)
            top_items = torch.cat([top_items, block_items + first], 1)
            top_scores, order = top_scores.sort(dim=1, descending=True, stable=True)
            top_scores, top_items = top_scores[:, :k], top_items.gather(1, order)[:, :k]
        all_scores.append(top_scores)
        all_items.append(top_items)
    return torch.cat(all_items), torch.cat(all_scores)


def cosines(table: Tensor, own: Tensor) -> Tensor:
    """Return the cosine of each row ``[n, D]`` with a vector ``[D]``, ``[n]``; -inf for zeros."""
    own = own.float()
    parts = []
    for part in table.split(ITEMS_AT_ONCE):
        rows = part.float()
        lengths = rows.norm(dim=1) * own.norm()
        parts.append(torch.where(lengths > 0, (rows @ own) / lengths, -torch.inf))
    return torch.cat(parts)


def best_by_groups(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Return what :func:`recbole_m3rec.ops.scores.best.best` does, faster over many columns.

    The ``k`` best scores lie in the ``k`` groups of columns whose highest scores are best, so that
    only those are sorted. Rows where a tie leaves open which groups these are, are sorted whole.
    """
    n_rows, n_columns = scores.shape
    n_groups = n_columns // GROUP
    if n_groups < 4 * (k + 1) or scores.numel() < FEW_SCORES:
        return best(scores, k)
    whole = n_groups * GROUP
    highest = scores[:, :whole].view(n_rows, n_groups, GROUP).amax(2)
    chosen_scores, chosen = torch.topk(highest, k + 1, dim=1)
    # In ascending order, so that of equal scores the lower column comes first.
    groups = chosen[:, :k].sort(dim=1).values
    columns = (groups[:, :, None] * GROUP + torch.arange(GROUP)).view(n_rows, -1)
    rest = torch.arange(whole, n_columns).expand(n_rows, -1)
    columns = torch.cat([columns, rest], 1)
    values, places = best(scores.gather(1, columns), k)
    items = columns.gather(1, places)
    open_rows = (chosen_scores[:, k] >= values[:, -1]).nonzero().squeeze(1)
    if len(open_rows):
        values[open_rows], items[open_rows] = best(scores[open_rows], k)
    return values, items
