"""Ranks targets and finds top items block by block, without the matrix of all scores.

Scores are made in blocks of users by items that stay in the processor's cache; of each block only
counts and the best items are kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from recbole_m3rec.ops.matmul import matmul
from recbole_m3rec.ops.scores.best import best
from recbole_m3rec.ops.scores.score_terms import ScoreTerms

# A block holds about so many scores (16 MiB of float32), and at most so many (64 MiB) where the
# catalogue is large: with fewer users to a block, reading the item table would take the time.
BLOCK, LARGEST_BLOCK = 2**22, 2**24
MANY_USERS, FEW_USERS = 64, 16


class Ranking(NamedTuple):
    """Where the targets of ``B`` users stand among ``n_items`` items, padding included as -inf.

    Attributes:
        higher: items that score higher than each target, ``[P]`` int64.
        equal: items that score as each target does, itself included, ``[P]`` int64.
        before: items listed before each target: the higher ones, and of the equal ones those of
            lower id, ``[P]`` int64.
        listed: items of each user that score more than -inf, if they were to be counted, ``[B]``
            int64.
        is_nan: users with a NaN score, whose other results mean nothing, ``[B]`` bool.
        top: each user's best items in order, ties to the lower id, ``[B, n_top]`` int64.
    """

    higher: Tensor
    equal: Tensor
    before: Tensor
    listed: Tensor
    is_nan: Tensor
    top: Tensor


def block_shape(n_users: int, n_items: int, largest: int = LARGEST_BLOCK) -> tuple[int, int]:
    """Choose how many users and items make a block of at most ``largest`` scores.

    Items are split only where a block could not hold the whole catalogue for a few users.
    """
    fitting = largest // n_items
    users = max(min(BLOCK, largest) // n_items, min(fitting, MANY_USERS))
    users = max(1, min(max(users, FEW_USERS), n_users, largest))
    return users, min(n_items, largest // users)


@torch.no_grad()
def rank_targets(
    queries: Tensor,
    table: Tensor,
    users: Tensor,
    targets: Tensor,
    *,
    n_top: int = 0,
    count_listed: bool = False,
    terms: ScoreTerms | None = None,
    seen: tuple[Tensor, Tensor] | None = None,
    largest_block: int = LARGEST_BLOCK,
) -> Ranking:
    """Rank targets among all items by the products of queries and item vectors, plus terms.

    A higher score comes first, and of equal scores the lower id. Item 0 is padding: it scores -inf.

    Args:
        queries: ``[B, D]`` floating point; scores are float32, or float64 for float64 queries.
        table: item vectors, ``[n_items, D]``; may stay on the CPU, from where blocks are taken.
        users: the row of ``queries`` that each target belongs to, ascending, ``[P]`` int64; a user
            may have any number of targets.
        targets: item ids, ``[P]`` int64.
        n_top: how many best items to name, at most ``n_items``.
        count_listed: whether to count ``Ranking.listed``, zeros otherwise.
        terms: added to the scores of single items.
        seen: rows of ``queries``, ascending, and for each an item that is no candidate there, which
            scores -inf; two ``[S]`` int64.
        largest_block: most scores held at once; the work takes about three times this memory.

    Raises:
        ValueError: more top items are wanted than there are items.
    """
    if n_top > len(table):
        raise ValueError(f"the {n_top} best items were asked for, there are {len(table)}")
    dtype = torch.promote_types(queries.dtype, torch.float32)
    queries, table = queries.to(dtype), table.to(dtype)
    shape = block_shape(len(queries), len(table), largest_block)
    blocks = _Blocks(queries, table, *shape, terms, seen)
    n_users = blocks.shape[0]
    starts = range(0, len(queries), n_users)
    edges = torch.searchsorted(users, torch.tensor([*starts, len(queries)], device=users.device))
    parts = []
    for start, first, last in zip(starts, edges[:-1].tolist(), edges[1:].tolist(), strict=True):
        own = users[first:last] - start
        rows = slice(start, min(start + n_users, len(queries)))
        parts.append(_rank_block(blocks, rows, own, targets[first:last], n_top, count_listed))
    if not parts:
        nobody = users.new_empty(0)
        no_top = users.new_empty(0, n_top)
        return Ranking(nobody, nobody, nobody, nobody, nobody.bool(), no_top)
    return Ranking(*(torch.cat(columns) for columns in zip(*parts, strict=True)))


@torch.no_grad()
def top_items(
    queries: Tensor,
    table: Tensor,
    n_top: int,
    *,
    terms: ScoreTerms | None = None,
    seen: tuple[Tensor, Tensor] | None = None,
    largest_block: int = LARGEST_BLOCK,
) -> tuple[Tensor, Tensor]:
    """Find the best items of all users in one pass over the table; arguments as above.

    Returns:
        Scores and items, best first, ties to the lower id, ``[B, n_top]`` each. A NaN comes first.
    """
    dtype = torch.promote_types(queries.dtype, torch.float32)
    n_users = len(queries)
    shape = n_users, max(1, min(len(table), largest_block // max(1, n_users)))
    blocks = _Blocks(queries.to(dtype), table.to(dtype), *shape, terms, seen)
    best_so_far = queries.new_empty(n_users, 0, dtype=dtype), queries.new_empty(n_users, 0).long()
    for first, scores in blocks.of(slice(0, n_users)):
        best_so_far = _best_so_far(*best_so_far, scores, first, n_top)
    return best_so_far


def _best_so_far(
    values: Tensor, items: Tensor, scores: Tensor, first: int, n_top: int
) -> tuple[Tensor, Tensor]:
    """Merge a block's best items with those of the blocks before."""
    new_values, new_items = best(scores, n_top)
    values, items = torch.cat([values, new_values], 1), torch.cat([items, new_items + first], 1)
    values, order = values.sort(dim=1, descending=True, stable=True)
    return values[:, :n_top], items.gather(1, order)[:, :n_top]


class _Blocks:
    """Makes blocks of scores, and holds the newest."""

    def __init__(
        self,
        queries: Tensor,
        table: Tensor,
        n_users: int,
        n_items: int,
        terms: ScoreTerms | None,
        seen: tuple[Tensor, Tensor] | None,
    ) -> None:
        self.queries, self.table, self.shape = queries, table, (n_users, n_items)
        self.terms, self.seen = terms, seen
        self.held: tuple[int, int, Tensor] | None = None

    def of(self, rows: slice) -> Iterator[tuple[int, Tensor]]:
        """Yield the scores of some users with the first item of each block.

        Item 0, and what a user has seen, score -inf.
        """
        for first in range(0, len(self.table), self.shape[1]):
            if self.held is None or self.held[:2] != (rows.start, first):
                self.held = None  # so that its memory is used again
                vectors = self.table[first : first + self.shape[1]].to(self.queries.device)
                scores = matmul(self.queries[rows], vectors, rows_at_a_time=self.shape[0])
                if self.terms is not None:
                    self.terms.add_to_block_(scores, rows.start, first)
                if first == 0:
                    scores[:, 0] = -torch.inf
                if self.seen is not None:
                    self._leave_out(*self.seen, scores, rows, first)
                self.held = rows.start, first, scores
            yield first, self.held[2]

    def _leave_out(
        self, users: Tensor, items: Tensor, scores: Tensor, rows: slice, first: int
    ) -> None:
        edges = torch.tensor([rows.start, rows.stop], device=users.device)
        start, stop = torch.searchsorted(users, edges).tolist()
        users, items = users[start:stop] - rows.start, items[start:stop] - first
        here = (items >= 0) & (items < scores.shape[1])
        scores[users[here], items[here]] = -torch.inf

    @cached_property
    def compared(self) -> Tensor:
        """Room for what a block's scores compare to."""
        return self.queries.new_empty(self.shape[0] * self.shape[1])

    def count(self, comparison: Callable[..., Tensor], scores: Tensor, limits: Tensor) -> Tensor:
        """Count in each row the scores that compare so with a limit of the row's own, ``[P]``."""
        ones = self.compared[: scores.numel()].view(scores.shape)
        # Ones and zeros as floating point are written and added up several times faster than as
        # bool, and exactly: a block has at most 2^24 items.
        comparison(scores, limits[:, None], out=ones)
        return ones.sum(1).long()


def _rank_block(
    blocks: _Blocks,
    rows: slice,
    users: Tensor,
    targets: Tensor,
    n_top: int,
    count_listed: bool,
) -> tuple[Tensor, ...]:
    """Rank the targets of the users ``rows``; ``users`` counts from the first of them."""
    queries = blocks.queries
    n_users = rows.stop - rows.start
    own = queries.new_empty(len(targets))
    highest = queries.new_full((n_users,), -torch.inf)
    listed = targets.new_zeros(n_users)
    values, top = queries.new_empty(n_users, 0), targets.new_empty(n_users, 0)
    for first, scores in blocks.of(rows):
        here = (targets >= first) & (targets < first + scores.shape[1])
        column = torch.where(here, targets - first, 0)
        own = torch.where(here, scores[users, column], own)
        highest = torch.maximum(highest, scores.amax(1))  # both pass NaN on
        if count_listed:
            listed += blocks.count(torch.gt, scores, torch.full_like(highest, -torch.inf))
        if n_top:
            values, top = _best_so_far(values, top, scores, first, n_top)
    higher, equal, before = targets.new_zeros(3, len(targets)).unbind()
    for first, scores in blocks.of(rows):
        for some, its_scores in _rows_of(scores, users):
            above = blocks.count(torch.gt, its_scores, own[some])
            at_least = blocks.count(torch.ge, its_scores, own[some])
            higher[some] += above
            equal[some] += at_least - above
            before[some] += above + _equal_of_lower_id(
                its_scores, own[some], targets[some] - first, at_least - above
            )
    return higher, equal, before, listed, highest.isnan(), top


def _rows_of(scores: Tensor, users: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Yield the scores of each target's user, as many targets at a time as there are users."""
    n_users = len(scores)
    one_each = len(users) == n_users and bool((users[1:] > users[:-1]).all())
    for first in range(0, len(users), n_users):
        some = slice(first, min(first + n_users, len(users)))
        yield some, scores if one_each else scores[users[some]]


def _equal_of_lower_id(scores: Tensor, own: Tensor, column: Tensor, equal: Tensor) -> Tensor:
    """Count in each row the scores equal to its own before its own column; looks at ties alone."""
    count = torch.zeros_like(equal)
    here = (column >= 0) & (column < scores.shape[1])
    tied = (equal > here.long()).nonzero().squeeze(1)
    if len(tied):
        is_before = torch.arange(scores.shape[1], device=scores.device) < column[tied, None]
        count[tied] = ((scores[tied] == own[tied, None]) & is_before).sum(1)
    return count
