"""Softmax cross-entropy over all items without ever holding all logits of a step.

As many logits are made at a time as a processor's cache holds, and what the backward pass needs of
them, the gradients of queries and item table, is made while they are there, so nothing of the size
``n_queries · n_items`` is kept. Of catalogues that leave room for some rows of logits, whole rows
are taken, and nothing is computed twice. Of larger ones a tile is taken, and logits are computed
twice: once for the sum over all items, once for the gradients.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from recbole_m3rec.mamba import product, softmax_loss_

# Bytes of logits that are held at a time.
BYTES_AT_A_TIME = {"cpu": 2**23, "cuda": 2**28}
# Whole rows are taken where there is room for so many; a matrix product of fewer is slow.
FEWEST_ROWS = 64
ROWS_OF_A_TILE = 1024


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
    """Return the mean loss, and where wanted the gradients of the sum by query and table.

    The gradients lack the mean's ``1 / n_queries``, which float16 could not hold with them.
    """
    held = BYTES_AT_A_TIME.get(query.device.type, BYTES_AT_A_TIME["cuda"]) // query.element_size()
    of_query = torch.zeros_like(query, dtype=dtype) if wanted[0] else None
    of_table = torch.zeros_like(table, dtype=dtype) if wanted[1] else None
    given = (query, table, targets, of_query, of_table)
    whole = held // len(table)
    # A power of two, so that batches, which mostly are one, leave no rest, and that of whatever
    # size they are few shapes come up: oneDNN keeps some megabytes for each.
    most = min(len(query), whole if whole >= FEWEST_ROWS else ROWS_OF_A_TILE)
    rows = 1 << (most.bit_length() - 1)
    if whole >= FEWEST_ROWS:
        losses = _by_rows(*given, rows=rows)
    else:
        losses = _by_tiles(*given, rows=rows, items=max(1, held // rows))
    return losses.mean(dtype=dtype), of_query, of_table


def _by_rows(
    query: Tensor,
    table: Tensor,
    targets: Tensor,
    of_query: Tensor | None,
    of_table: Tensor | None,
    rows: int,
) -> Tensor:
    """Return each row's loss and add to the gradients; the logits of some rows are held."""
    losses = []
    # Transposed: the matrix that is read where it lies is then the large one.
    turned = None if of_table is None else of_table.new_zeros(of_table.shape[::-1])
    for chunk, target in zip(query.split(rows), targets.split(rows), strict=True):
        logits = product(chunk, table, rows_at_a_time=rows)
        losses.append(softmax_loss_(logits, target, of_query is not None or turned is not None))
        start = (len(losses) - 1) * rows
        if of_query is not None:
            of_query[start : start + rows] = product(logits, table.T, rows_at_a_time=rows)
        if turned is not None:
            turned += _turned_product(chunk, logits, rows)
    if of_table is not None and turned is not None:
        of_table.copy_(turned.T)
    return torch.cat(losses)


def _by_tiles(
    query: Tensor,
    table: Tensor,
    targets: Tensor,
    of_query: Tensor | None,
    of_table: Tensor | None,
    rows: int,
    items: int,
) -> Tensor:
    """As :func:`_by_rows`; the logits of some rows and items are held."""
    dtype = torch.promote_types(query.dtype, torch.float32)
    log_sum = query.new_full((len(query),), -torch.inf, dtype=dtype)
    of_target = torch.empty_like(log_sum)
    tiles = [
        (slice(row, row + rows), slice(item, item + items))
        for item in range(0, len(table), items)
        for row in range(0, len(query), rows)
    ]
    for row, item in tiles:
        logits = product(query[row], table[item], rows_at_a_time=rows).to(dtype)
        is_here, place = _within(targets[row], item.start, logits.shape[1])
        of_target[row] = torch.where(is_here, logits.gather(1, place)[:, 0], of_target[row])
        log_sum[row] = torch.logaddexp(log_sum[row], logits.logsumexp(dim=1))
    for row, item in tiles if of_query is not None or of_table is not None else []:
        logits = product(query[row], table[item], rows_at_a_time=rows).to(dtype)
        slope = logits.sub_(log_sum[row, None]).exp_()
        is_here, place = _within(targets[row], item.start, slope.shape[1])
        slope.scatter_add_(1, place, -is_here[:, None].to(dtype))
        slope = slope.to(query.dtype)
        if of_query is not None:
            of_query[row] += product(slope, table[item].T, rows_at_a_time=rows)
        if of_table is not None:
            of_table[item] += _turned_product(query[row], slope, rows).T
    return log_sum - of_target


def _within(targets: Tensor, first: int, items: int) -> tuple[Tensor, Tensor]:
    """Tell which targets are among these items, ``[n]``, and where, ``[n, 1]``; else anywhere."""
    place = targets - first
    return (place >= 0) & (place < items), place.clamp(0, items - 1)[:, None]


def _turned_product(x: Tensor, y: Tensor, rows: int) -> Tensor:
    """``x.T @ y``; only whole pieces of ``rows`` make a shape that recurs."""
    if len(x) < rows:
        return x.T @ y
    return product(x.T.contiguous(), y.T, rows_at_a_time=x.shape[1])
