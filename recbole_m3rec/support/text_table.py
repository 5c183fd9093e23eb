"""Tables printed on a terminal."""

from __future__ import annotations

from collections.abc import Sequence


def text_table(rows: Sequence[Sequence[str]], narrowest: int = 0) -> str:
    """Return lines of aligned cells: the first column to the left, numbers to the right.

    Args:
        rows: the head and all others, as many cells each.
        narrowest: characters that the first column has at least.
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    widths[0] = max(widths[0], narrowest)
    lines = []
    for first, *others in rows:
        cells = (cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True))
        lines.append("  ".join([first.ljust(widths[0]), *cells]))
    return "\n".join(lines)
