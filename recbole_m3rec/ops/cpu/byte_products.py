"""Products of a table of bytes and queries of 16-bit numbers, in whole numbers."""

from __future__ import annotations

import torch
from torch import Tensor

from recbole_m3rec.ops.cpu import library


def byte_products(queries: Tensor, table: Tensor) -> Tensor:
    """Return ``queries @ table.T`` exactly.

    Args:
        queries: ``[B, D]`` int16 on the CPU; no sum of magnitudes may go beyond 32 bits.
        table: ``[n, D]`` int8 on the CPU.

    Returns:
        ``[B, n]`` int32.

    Raises:
        ValueError: a shape or dtype does not fit.
        RuntimeError: the kernels are not there.
    """
    n, depth = table.shape
    if table.dtype != torch.int8 or queries.dtype != torch.int16 or queries.shape[1] != depth:
        raise ValueError(
            "expected queries [B, D] of int16 and a table [n, D] of int8, found "
            f"{list(queries.shape)} {queries.dtype} and {list(table.shape)} {table.dtype}"
        )
    queries, table = queries.contiguous(), table.contiguous()
    y = torch.empty(len(queries), n, dtype=torch.int32)
    for query, row in zip(queries, y, strict=True):
        library.call_on_threads(
            *("m3rec_byte_products", table.data_ptr(), n, depth),
            *(query.data_ptr(), row.data_ptr()),
        )
    return y
