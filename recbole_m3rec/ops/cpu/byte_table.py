"""The best rows of a table for a few queries, by way of the table in eight bits a number."""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor

from recbole_m3rec.ops.cpu import library

LARGEST = 127
TINY = torch.finfo(torch.float32).tiny
MOST_ROWS = 2**31 - 1  # the library numbers them in 32 bits


class ByteTable:
    """A table, and the same rounded to eight bits, a quarter of what float32 has to read.

    Each column has a unit of its own. Rounded scores are off by no more than a bound. Where the
    best of them, scored exactly, beat by more than that whatever was left out, they are the best.
    Needs the compiled kernels.

    Args:
        table: ``[n, D]`` float32 or float16 on the CPU, at least a row and a column.

    Raises:
        ValueError: the table is something else.
    """

    def __init__(self, table: Tensor) -> None:
        if (
            table.dtype not in (torch.float32, torch.float16)
            or not table.is_cpu
            or table.dim() != 2
            or not table.numel() > 0
            or len(table) > MOST_ROWS
        ):
            raise ValueError(
                "expected a table [n, D] of float32 or float16 on the CPU, found "
                f"{list(table.shape)} {table.dtype} on {table.device}"
            )
        values = table.float()
        self.table = table.contiguous()
        self.unit = (values.abs().amax(0) / LARGEST).clamp_(min=TINY)
        scaled = values / self.unit
        rounded = scaled.round()
        self.bytes = rounded.to(torch.int8)
        self.error, self.length = (
            float(each.norm(dim=1).max()) for each in (scaled - rounded, rounded)
        )

    def best(
        self,
        queries: Tensor,
        k: int,
        removed: tuple[Tensor, Tensor],
        added: tuple[Tensor, Tensor, Tensor] | None = None,
        *,
        candidates: int,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return each query's ``k`` best rows, of equal ones the lower, and whether they are sure.

        Args:
            queries: ``[B, D]`` float32.
            removed: queries ``[S]`` and a row of each that is left out, int64; row 0 always is.
            added: queries, a row of each, both int64, and what is added to its score, ``[T]`` each.
            candidates: rows of each query that are scored exactly, at least ``k``.

        Returns:
            Rows ``[B, k]`` int64, scores ``[B, k]`` float32 and ``[B]`` bool: False where the
            bound does not say that these are the best. Where there are fewer rows, 0 and -inf.

        Raises:
            ValueError: a shape, dtype or number does not fit, or a pair is not there.
            RuntimeError: the kernels are not there.
        """
        n, width = self.table.shape
        library.check("queries", queries, (len(queries), width))
        if not 1 <= k <= candidates:
            raise ValueError(f"expected 1 <= k <= candidates, found {k} and {candidates}")
        queries = queries.contiguous()
        rows = torch.empty(len(queries), k, dtype=torch.int64)
        scores = torch.empty(len(queries), k)
        is_sure = torch.empty(len(queries), dtype=torch.bool)
        table = library.ByteTable(
            *(each.data_ptr() for each in (self.bytes, self.unit, self.table)),
            *(n, width, self.error, self.length, self.table.dtype == torch.float16),
        )
        none = torch.empty(0, dtype=torch.int64)
        values = torch.empty(0) if added is None else added[2]
        pairs = [
            _pairs("removed", *removed, None),
            _pairs("added", *((none, none) if added is None else added[:2]), values),
        ]
        library.call_on_threads(
            *("m3rec_byte_best", ctypes.addressof(table), queries.data_ptr(), len(queries)),
            *(ctypes.addressof(each) for each, _ in pairs),
            *(min(candidates, max(n, k)), k),
            *(each.data_ptr() for each in (rows, scores, is_sure)),
        )
        return rows, scores, is_sure


def _pairs(
    name: str, queries: Tensor, rows: Tensor, values: Tensor | None
) -> tuple[library.Pairs, list[Tensor]]:
    """Return pairs as the library takes them, and the tensors that hold them."""
    given = [queries, rows] if values is None else [queries, rows, values]
    for column in given:
        kind = torch.float32 if column is values else torch.int64
        if column.dtype != kind or column.shape != (rows.numel(),) or not column.is_cpu:
            raise ValueError(
                f"{name}: expected [S] int64 twice and float32 on the CPU, found "
                + ", ".join(f"{list(each.shape)} {each.dtype}" for each in given)
            )
    kept = [column.contiguous() for column in given]
    addresses = [column.data_ptr() for column in kept]
    return library.Pairs(*addresses[:2], addresses[2] if kept[2:] else None, len(rows)), kept
