"""The best items exactly, by way of scores in whole numbers of eight bits."""

from __future__ import annotations

from torch import Tensor

from recbole_m3rec.ops.cpu.byte_table import ByteTable
from recbole_m3rec.serving.scoring.exact import Edits, exact_top

# Queries at once, for more of which float32 is read from the cache as fast.
MOST_ROWS = 64


class EightBits:
    """An item table, and the same rounded to eight bits. Needs the compiled kernels.

    Args:
        table: ``[n_items, D]``.
    """

    def __init__(self, table: Tensor) -> None:
        self.table = table
        self.rounded = ByteTable(table)

    def top(self, queries: Tensor, k: int, edits: Edits) -> tuple[Tensor, Tensor]:
        """Return what :func:`recbole_m3rec.serving.scoring.exact.exact_top` does."""
        n = 4 * k + 24  # candidates
        is_special = len(edits.replaced) > 0 or any(a is not None for a in edits.allowed)
        if is_special or len(queries) > MOST_ROWS or n > len(self.table) // 8:
            return exact_top(queries, self.table, k, edits)
        added = edits.added and edits.added._replace(values=edits.added.values.float())
        items, scores, is_sure = self.rounded.best(queries, k, edits.removed, added, candidates=n)
        if not is_sure.all():
            rows = (~is_sure).nonzero().squeeze(1)
            items[rows], scores[rows] = exact_top(queries[rows], self.table, k, edits.of(rows))
        return items, scores
