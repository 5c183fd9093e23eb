"""The best rows of a table for a few queries, by way of the table in eight bits a number."""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor

from recbole_m3rec.ops.cpu import library

LARGEST = 127
TINY = torch.finfo(torch.float32).tiny


class ByteTable:
    """A table, and the same rounded to eight bits, a quarter of what float32 has to read.

    Each column has a unit of its own. Rounded scores are off by no more than a bound. Where the
    best of them, scored exactly, beat by more than that whatever was left out, they are the best.
    Needs the compiled kernels.

    Args:
        table: ``[n, D]`` float32 or float16 on the CPU.
    """

    def __init__(self, table: Tensor) -> None:
        if table.dtype not in (torch.float32, torch.float16) or not table.is_cpu:
            raise ValueError(
                "expected a table of float32 or float16 on the CPU, found "
                f"{table.dtype} on {table.device}"
            )
        values = table.float()
        unit = (values.abs().amax(0) / LARGEST).clamp_(min=TINY)
        scaled = values / unit
        rounded = scaled.round()
        self._kept = rounded.to(torch.int8).contiguous(), unit, table.contiguous()
        self._width = table.shape[1]
        self._table = library.ByteTable(
            *(tensor.data_ptr() for tensor in self._kept),
            *table.shape,
            *(float(each.norm(dim=1).max()) for each in (scaled - rounded, rounded)),
            table.dtype == torch.float16,
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
            ValueError: a shape or dtype does not fit, or a pair is not there.
            RuntimeError: the kernels are not there.
        """
        library.check("queries", queries, (len(queries), self._width))
        queries = queries.contiguous()
        rows = torch.empty(len(queries), k, dtype=torch.int64)
        scores = torch.empty(len(queries), k)
        is_sure = torch.empty(len(queries), dtype=torch.bool)
        given = _pairs("removed", *removed), _pairs("added", *added or ())
        library.call_on_threads(
            *("m3rec_byte_best", ctypes.addressof(self._table), queries.data_ptr(), len(queries)),
            *(ctypes.addressof(pairs) for pairs, _ in given),
            *(candidates, k, rows.data_ptr(), scores.data_ptr(), is_sure.data_ptr()),
        )
        return rows, scores, is_sure


def _pairs(name: str, *columns: Tensor) -> tuple[library.Pairs, list[Tensor]]:
    """Return pairs as the library takes them, and the tensors that hold them."""
    kept = [column.contiguous() for column in columns]
    kinds = torch.int64, torch.int64, torch.float32
    if any(
        column.dtype != kind or column.shape != (len(kept[0]),)
        for column, kind in zip(kept, kinds, strict=False)
    ):
        found = ", ".join(f"{list(column.shape)} {column.dtype}" for column in kept)
        raise ValueError(f"{name}: expected [S] int64 twice and float32, found {found}")
    queries, rows, values = (*(column.data_ptr() for column in kept), None, None, None)[:3]
    return library.Pairs(queries, rows, values, len(kept[0]) if kept else 0), kept
