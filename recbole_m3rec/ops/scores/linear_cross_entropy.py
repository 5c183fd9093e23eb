"""Softmax cross-entropy over all items without the matrix of all logits.

Computes logits in cache-sized chunks and accumulates gradients at once, so the ``[n_queries,
n_items]`` matrix is never materialised. Where a chunk holds whole rows, nothing is computed twice.
For larger catalogues a chunk is a tile of rows and items, and logits are computed twice: once for
the sum over all items, once for the gradients.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from recbole_m3rec.ops.matmul import matmul
from recbole_m3rec.ops.scores.score_terms import ScoreTermBlock, ScoreTerms

# Bytes of logits that are held at a time; what is made of them comes on top.
BYTES_AT_A_TIME = {"cpu": 2**24, "cuda": 2**28}
# Whole rows are taken where there is room for so many; a matrix product of fewer is so slow that
# tiles, for which logits are computed twice, are faster.
FEWEST_ROWS = 128
ROWS_OF_A_TILE = 1024
# A piece of rows is a power of two; rows of zeros fill the last one where it is so full already.
FULL_ENOUGH = 0.75
SMALLEST_PIECE = 16


def linear_cross_entropy(
    query: Tensor,
    table: Tensor,
    targets: Tensor,
    terms: ScoreTerms | None = None,
    log_weights: Tensor | None = None,
) -> Tensor:
    """Mean cross-entropy of ``softmax(query @ table.T + terms)`` against one target a row.

    Under autocast the matrix products run in its dtype; softmax and loss are float32 (float64 for
    float64 input).

    Args:
        query: ``[n_queries, width]``, ``n_queries >= 1``.
        table: ``[n_items, width]``.
        targets: ``[n_queries]`` int64, each in ``0..n_items - 1``.
        terms: added to single logits; their values get a gradient too.
        log_weights: added to every logit of an item, ``[n_items]``, without a gradient.

    Returns:
        The loss, a scalar. It can be differentiated once.
    """
    loss: Tensor = _LinearCrossEntropy.apply(
        query, table, targets, *(terms or (None, None, None)), log_weights
    )
    return loss


class Logits(NamedTuple):
    """What a matrix of logits is made of; see :func:`linear_cross_entropy`."""

    query: Tensor
    table: Tensor
    targets: Tensor
    terms: ScoreTerms | None
    log_weights: Tensor | None

    @property
    def sum_dtype(self) -> torch.dtype:
        """What sums and gradients are made in."""
        return torch.promote_types(self.query.dtype, torch.float32)

    def block(
        self, row: slice, item: slice, dtype: torch.dtype
    ) -> tuple[Tensor, ScoreTermBlock | None]:
        """Return the logits of some rows and items, and where terms were added to them."""
        query, table = self.query[row], self.table[item]
        logits = matmul(query, table, rows_at_a_time=len(query)).to(dtype)
        if self.log_weights is not None:
            logits += self.log_weights[item]
        if self.terms is None:
            return logits, None
        return logits, self.terms.add_to_block_(logits, row.start, item.start)


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        table: Tensor,
        targets: Tensor,
        rows: Tensor | None,
        items: Tensor | None,
        values: Tensor | None,
        log_weights: Tensor | None,
    ) -> Tensor:
        product_dtype = query.dtype
        if torch.is_autocast_enabled(query.device.type):
            product_dtype = torch.get_autocast_dtype(query.device.type)
        terms = None
        if rows is not None and items is not None and values is not None:
            terms = ScoreTerms(rows, items, values)
        of = Logits(query.to(product_dtype), table.to(product_dtype), targets, terms, log_weights)
        whole_rows = _held(of.query) // of.query.element_size() // len(table)
        wanted = ctx.needs_input_grad[:2]
        is_whole = whole_rows >= FEWEST_ROWS
        of, pieces = in_pieces(of, whole_rows if is_whole else ROWS_OF_A_TILE)
        with torch.autocast(query.device.type, enabled=False):
            losses, grad_query, *gradients = (
                _by_rows(of, wanted, pieces)
                if is_whole
                else _by_tiles(of, wanted, tiles_of(of, pieces))
            )
        losses = losses[: len(query)]
        gradients = [None if grad_query is None else grad_query[: len(query)], *gradients]
        # Without the mean's 1 / n_queries, which float16 could not hold with them.
        ctx.save_for_backward(*gradients)
        dtype = torch.promote_types(query.dtype, torch.float32)
        ctx.dtypes = query.dtype, table.dtype, dtype if values is None else values.dtype
        ctx.n_queries = len(query)
        return losses.mean(dtype=dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_loss: Tensor) -> tuple[Tensor | None, ...]:
        gradients = [
            None if gradient is None else gradient.mul_(grad_loss / ctx.n_queries).to(dtype)
            for gradient, dtype in zip(ctx.saved_tensors, ctx.dtypes, strict=True)
        ]
        return gradients[0], gradients[1], None, None, None, gradients[2], None


def _held(like: Tensor) -> int:
    """Return how many bytes of logits are held at a time on a device."""
    return BYTES_AT_A_TIME.get(like.device.type, BYTES_AT_A_TIME["cuda"])


def in_pieces(of: Logits, most: int) -> tuple[Logits, list[slice]]:
    """Cut rows into pieces of ``most`` at most, whose sizes are powers of two.

    Batches of whatever size so have few shapes, of which oneDNN keeps some megabytes each. Rows of
    zeros, which add nothing to any gradient, fill the last piece.
    """
    pieces: list[slice] = []
    start = 0
    while start < len(of.query):
        rest = len(of.query) - start
        size = max(SMALLEST_PIECE, 1 << (rest - 1).bit_length())  # the next power of two
        if size > SMALLEST_PIECE and rest < FULL_ENOUGH * size:
            size //= 2
        size = min(size, 1 << (most.bit_length() - 1))
        pieces.append(slice(start, start + size))
        start += size
    n_filled = start - len(of.query)
    query, targets = F.pad(of.query, (0, 0, 0, n_filled)), F.pad(of.targets, (0, n_filled))
    return of._replace(query=query, targets=targets), pieces


def _by_rows(
    of: Logits, wanted: tuple[bool, bool], pieces: list[slice]
) -> tuple[Tensor, Tensor | None, Tensor | None, Tensor | None]:
    """Return each row's loss and the gradients of their sum by query, table and terms, if wanted.

    The logits of some rows are held.
    """
    query, table, targets, terms, _ = of
    dtype = of.sum_dtype
    losses = query.new_empty(len(query), dtype=dtype)
    grad_query = torch.empty_like(query, dtype=dtype) if wanted[0] else None
    # Transposed: the matrix that is read where it lies is then the large one.
    grad_table: Tensor | None = None
    grad_terms = None if terms is None else torch.empty_like(terms.values, dtype=dtype)
    for row in pieces:
        logits, block = of.block(row, slice(0, len(table)), query.dtype)
        losses[row] = _softmax_loss_(logits, targets[row], any(wanted))
        if block is not None and grad_terms is not None:
            grad_terms[block.places] = block.of(logits).to(dtype)
        if grad_query is not None:
            grad_query[row] = matmul(logits, table.T, rows_at_a_time=len(logits))
        if wanted[1]:
            part = _transposed_matmul(query[row], logits).to(dtype)
            grad_table = part if grad_table is None else grad_table.add_(part)
    return losses, grad_query, None if grad_table is None else grad_table.T.contiguous(), grad_terms


def _softmax_loss_(logits: Tensor, targets: Tensor, wants_gradient: bool) -> Tensor:
    """Return each row's cross-entropy; its gradient takes the place of the logits if wanted."""
    wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
    highest = wide.amax(dim=1, keepdim=True)
    target_logits = wide.gather(1, targets[:, None]) - highest
    exponentials = wide.sub_(highest).exp_()
    total = exponentials.sum(dim=1, keepdim=True)
    if wants_gradient:
        exponentials.div_(total)
        exponentials.scatter_add_(1, targets[:, None], torch.full_like(total, -1.0))
        if exponentials is not logits:
            logits.copy_(exponentials)
    return (total.log() - target_logits)[:, 0]


def _by_tiles(
    of: Logits, wanted: tuple[bool, bool], tiles: list[tuple[slice, slice]]
) -> tuple[Tensor, Tensor | None, Tensor | None, Tensor | None]:
    """As :func:`_by_rows`; the logits of some rows and items are held."""
    log_sum, target_logits = sums_of_tiles(of, tiles)
    gradients = slopes_of_tiles(of, log_sum, wanted, tiles if any(wanted) else [])
    return log_sum - target_logits, *gradients


def tiles_of(of: Logits, pieces: list[slice]) -> list[tuple[slice, slice]]:
    """Cut the matrix of logits into tiles of these rows and of items that may be held at a time."""
    items = max(1, _held(of.query) // of.sum_dtype.itemsize // pieces[0].stop)
    starts = range(0, len(of.table), items)
    return [(row, slice(item, item + items)) for item in starts for row in pieces]


def sums_of_tiles(of: Logits, tiles: list[tuple[slice, slice]]) -> tuple[Tensor, Tensor]:
    """Return the log of each row's sum of exponentials, and its target's logit, NaN if not here."""
    log_sum = of.query.new_full((len(of.query),), -torch.inf, dtype=of.sum_dtype)
    target_logits = torch.full_like(log_sum, torch.nan)
    for row, item in tiles:
        logits, _ = of.block(row, item, of.sum_dtype)
        is_here, place = _within(of.targets[row], item.start, logits.shape[1])
        target_logits[row] = torch.where(is_here, logits.gather(1, place)[:, 0], target_logits[row])
        log_sum[row] = torch.logaddexp(log_sum[row], logits.logsumexp(dim=1))
    return log_sum, target_logits


def slopes_of_tiles(
    of: Logits,
    log_sum: Tensor,
    wanted: tuple[bool, bool],
    tiles: list[tuple[slice, slice]],
    weights: Tensor | None = None,
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Return the gradients of the rows' losses by query, table and terms, given ``log_sum``.

    The sum of the losses is one of ``weights`` times each where these are given, ``[n]``.
    """
    query, table, targets, terms, _ = of
    dtype = log_sum.dtype
    grad_query = torch.zeros_like(query, dtype=dtype) if wanted[0] else None
    grad_table = torch.zeros_like(table, dtype=dtype) if wanted[1] else None
    grad_terms = None if terms is None else torch.zeros_like(terms.values, dtype=dtype)
    for row, item in tiles:
        logits, block = of.block(row, item, dtype)
        slope = logits.sub_(log_sum[row, None]).exp_()
        is_here, place = _within(targets[row], item.start, slope.shape[1])
        slope.scatter_add_(1, place, -is_here[:, None].to(dtype))
        if weights is not None:
            slope *= weights[row, None]
        if block is not None and grad_terms is not None:
            grad_terms[block.places] = block.of(slope)
        slope = slope.to(query.dtype)
        if grad_query is not None:
            grad_query[row] += matmul(slope, table[item].T, rows_at_a_time=len(slope))
        if grad_table is not None:
            grad_table[item] += _transposed_matmul(query[row], slope).T
    return grad_query, grad_table, grad_terms


def _within(targets: Tensor, first: int, items: int) -> tuple[Tensor, Tensor]:
    """Tell which targets are among these items, ``[n]``, and where, ``[n, 1]``; else anywhere."""
    place = targets - first
    return (place >= 0) & (place < items), place.clamp(0, items - 1)[:, None]


def _transposed_matmul(x: Tensor, y: Tensor) -> Tensor:
    """``x.T @ y``."""
    return matmul(x.T.contiguous(), y.T, rows_at_a_time=x.shape[1])
