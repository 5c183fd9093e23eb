"""Softmax cross-entropy over items that several processes share, each with its rows of the table.

Every process scores the queries of all against its own items, so that no logit leaves it. What
travels are the queries, one maximum, one sum and one target's logit a query, and the gradients by
the queries.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from recbole_m3rec.ops.scores.linear_cross_entropy import (
    ROWS_OF_A_TILE,
    Logits,
    in_pieces,
    slopes_of_tiles,
    sums_of_tiles,
    tiles_of,
)
from recbole_m3rec.ops.scores.score_terms import ScoreTerms


def is_shared() -> bool:
    """Tell whether there are several processes."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def own_rows(n_rows: int) -> slice:
    """Return which of the rows of a whole table are this process's."""
    rank, world_size = dist.get_rank(), dist.get_world_size()
    return slice(n_rows * rank // world_size, n_rows * (rank + 1) // world_size)


def sharded_cross_entropy(
    query: Tensor,
    table: Tensor,
    first: int,
    targets: Tensor,
    terms: ScoreTerms | None = None,
) -> Tensor:
    """Mean cross-entropy of this process's queries; see :func:`linear_cross_entropy`.

    All processes call it, and its gradient, together. Whatever loss a process makes of its mean,
    the gradient by the table's rows is that of the sum of all processes' losses.

    Args:
        query: of this process, ``[n, width]``, ``n >= 1``.
        table: rows ``first`` to ``first + k`` of all items, ``[k, width]``, ``k >= 1``.
        first: see there.
        targets: ``[n]`` int64, among all items.
        terms: added to single logits; ``items`` are among all.
    """
    loss: Tensor = _ShardedCrossEntropy.apply(
        query, table, first, targets, *(terms or (None, None, None))
    )
    return loss


class _ShardedCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        table: Tensor,
        first: int,
        targets: Tensor,
        rows: Tensor | None,
        items: Tensor | None,
        values: Tensor | None,
    ) -> Tensor:
        ctx.dtypes = query.dtype, table.dtype, None if values is None else values.dtype
        if torch.is_autocast_enabled(query.device.type):
            product_dtype = torch.get_autocast_dtype(query.device.type)
            query, table = query.to(product_dtype), table.to(product_dtype)
        ctx.own, query = _gathered(query)
        targets = _gathered(targets)[1] - first  # as places in this table
        terms, ctx.own_terms = None, slice(0)
        if rows is not None and items is not None and values is not None:
            ctx.own_terms, values = _gathered(values)
            terms = ScoreTerms(
                _gathered(rows + ctx.own.start)[1], _gathered(items)[1] - first, values
            )
        of, pieces = in_pieces(Logits(query, table, targets, terms, None), ROWS_OF_A_TILE)
        ctx.tiles = tiles_of(of, pieces)
        with torch.autocast(query.device.type, enabled=False):
            log_sum, target_logits = sums_of_tiles(of, ctx.tiles)
        highest = log_sum.clone()
        dist.all_reduce(highest, dist.ReduceOp.MAX)
        total = (log_sum - highest).exp_()
        dist.all_reduce(total)
        log_sum = highest + total.log_()
        target_logits.nan_to_num_(0.0)  # of other processes' items
        dist.all_reduce(target_logits)
        ctx.save_for_backward(of.query, table, of.targets, log_sum, *(terms or ()))
        return (log_sum - target_logits)[ctx.own].mean()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_loss: Tensor) -> tuple[Tensor | None, ...]:
        query, table, targets, log_sum, *given = ctx.saved_tensors
        n_queries = ctx.own.stop - ctx.own.start
        weights = _gathered((grad_loss / n_queries).expand(n_queries))[1]
        weights = F.pad(weights, (0, len(query) - len(weights)))
        of = Logits(query, table, targets, ScoreTerms(*given) if given else None, None)
        # Shares of the largest, for a slope may be made in float16.
        largest = weights.abs().max().clamp(min=torch.finfo(weights.dtype).tiny)
        grad_query, grad_table, grad_terms = slopes_of_tiles(
            of, log_sum, (True, True), ctx.tiles, weights / largest
        )
        for gradient in (grad_query, grad_terms):
            if gradient is not None:
                dist.all_reduce(gradient)
        own = (grad_query, ctx.own), (grad_table, slice(None)), (grad_terms, ctx.own_terms)
        by_query, by_table, by_values = (
            None if gradient is None else (gradient[rows] * largest).to(dtype)
            for (gradient, rows), dtype in zip(own, ctx.dtypes, strict=True)
        )
        return by_query, by_table, None, None, None, None, by_values


def _gathered(own: Tensor) -> tuple[slice, Tensor]:
    """Return the rows of all processes, in their order, and which of them are this one's."""
    sizes = torch.zeros(dist.get_world_size(), dtype=torch.int64, device=own.device)
    sizes[dist.get_rank()] = len(own)
    dist.all_reduce(sizes)
    start = int(sizes[: dist.get_rank()].sum())
    rows = slice(start, start + len(own))
    every = own.new_zeros((int(sizes.sum()), *own.shape[1:]))
    every[rows] = own
    dist.all_reduce(every)
    return rows, every
