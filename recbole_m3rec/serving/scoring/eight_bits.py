"""The best items exactly, by way of scores in eight bits (see ``ByteTable``)."""

from __future__ import annotations

from torch import Tensor

from recbole_m3rec.ops.cpu import library
from recbole_m3rec.ops.cpu.byte_table import ByteTable
from recbole_m3rec.serving.scoring.exact import Edits, exact_top

# Queries at once and candidates of each, for more of which float32 is as fast; the second number
# of queries is of kernels for any processor.
MOST_ROWS, MOST_ROWS_OF_GENERIC, MOST_CANDIDATES = 64, 16, 256


class EightBits:
    """An item table, and the same rounded to eight bits. Needs the compiled kernels.

    Args:
        table: ``[n_items, D]``.
    """

    def __init__(self, table: Tensor) -> None:
        self.table = table
        self.rounded = ByteTable(table)
        is_generic = library.available()[1].startswith("generic")
        self.most_rows = MOST_ROWS_OF_GENERIC if is_generic else MOST_ROWS

    def top(self, queries: Tensor, k: int, edits: Edits) -> tuple[Tensor, Tensor]:
        """Return what :func:`recbole_m3rec.serving.scoring.exact.exact_top` does."""
        n = 4 * k + 24  # candidates
        is_special = len(edits.replaced) > 0 or any(a is not None for a in edits.allowed)
        is_many = len(queries) > self.most_rows or n > min(MOST_CANDIDATES, len(self.table) // 8)
        if is_special or is_many:
            return exact_top(queries, self.table, k, edits)
        added = edits.added and edits.added._replace(values=edits.added.values.float())
        items, scores, is_sure = self.rounded.best(queries, k, edits.removed, added, candidates=n)
        if not is_sure.all():
            rows = (~is_sure).nonzero().squeeze(1)
            items[rows], scores[rows] = exact_top(queries[rows], self.table, k, edits.of(rows))
        return items, scores
