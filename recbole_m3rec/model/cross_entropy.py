"""Softmax cross-entropy over all items without ever holding all logits of a step.

Rows are taken some at a time through one buffer of logits. What the backward pass needs of them,
the gradients of queries and item table, is made while they are there, so nothing is computed twice
and nothing of the size ``n_queries · n_items`` is kept.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from recbole_m3rec.mamba import product

# Logits that are held at a time. Few enough for a processor's cache, but never fewer rows than make
# a matrix product worth its start.
LOGITS_AT_A_TIME = {"cpu": 2**20, "cuda": 2**26}
FEWEST_ROWS = 64


def linear_cross_entropy(query: Tensor, table: Tensor, targets: Tensor) -> Tensor:
    """Mean cross-entropy of ``softmax(query @ table.T)`` against one target a row.

    Under autocast the matrix products run in its dtype; softmax and loss are float32 (float64 for
    float64 input).

    Args:
        query: ``[n_queries, width]``, ``n_queries >= 1``.
        table: ``[n_items, width]``.
        targets: ``[n_queries]`` int64, each in ``0..n_items - 1``.

    Returns:
        The loss, a scalar. It can be differentiated once.
    """
    loss: Tensor = _LinearCrossEntropy.apply(query, table, targets)
    return loss


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, query: Tensor, table: Tensor, targets: Tensor) -> Tensor:
        product_dtype = query.dtype
        if torch.is_autocast_enabled(query.device.type):
            product_dtype = torch.get_autocast_dtype(query.device.type)
        dtype = torch.promote_types(query.dtype, torch.float32)
        with torch.autocast(query.device.type, enabled=False):
            loss, *gradients = _pass(
                *(query.to(product_dtype), table.to(product_dtype), targets, dtype),
                wanted=ctx.needs_input_grad[:2],
            )
        ctx.save_for_backward(*gradients)
        ctx.dtypes, ctx.n_queries = (query.dtype, table.dtype), len(query)
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_loss: Tensor) -> tuple[Tensor | None, ...]:
        gradients = [
            None if gradient is None else gradient.mul_(grad_loss / ctx.n_queries).to(dtype)
            for gradient, dtype in zip(ctx.saved_tensors, ctx.dtypes, strict=True)
        ]
        return *gradients, None


def _pass(
    query: Tensor, table: Tensor, targets: Tensor, dtype: torch.dtype, wanted: tuple[bool, bool]
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Return the mean loss, and where wanted the gradients of the sum by query and table."""
    n_queries, n_items = query.shape[0], table.shape[0]
    at_a_time = LOGITS_AT_A_TIME.get(query.device.type, LOGITS_AT_A_TIME["cuda"])
    rows = min(n_queries, max(FEWEST_ROWS, at_a_time // n_items))
    losses = query.new_empty(n_queries, dtype=dtype)
    of_query = torch.empty_like(query, dtype=dtype) if wanted[0] else None
    of_table = torch.zeros_like(table, dtype=dtype) if wanted[1] else None
    for start in range(0, n_queries, rows):
        chunk, target = query[start : start + rows], targets[start : start + rows, None]
        held = product(chunk, table, rows_at_a_time=rows).to(dtype)
        highest = held.amax(dim=1, keepdim=True)
        of_target = held.gather(1, target) - highest
        exponentials = held.sub_(highest).exp_()
        total = exponentials.sum(dim=1, keepdim=True)
        losses[start : start + rows] = (total.log() - of_target)[:, 0]
        if not any(wanted):
            continue
        # Without the mean's 1 / n_queries, which float16 could not hold together with them.
        probabilities = exponentials.div_(total)
        probabilities.scatter_add_(1, target, torch.full_like(total, -1.0))
        slope = probabilities.to(chunk.dtype)
        if of_query is not None:
            of_query[start : start + rows] = product(slope, table.T, rows_at_a_time=rows)
        if of_table is not None and chunk.dtype == dtype:
            of_table.addmm_(slope.T, chunk)
        elif of_table is not None:
            of_table += slope.T @ chunk
    return losses.mean(), of_query, of_table
