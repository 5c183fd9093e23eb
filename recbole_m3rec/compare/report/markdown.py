"""A report as Markdown."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from recbole_m3rec.compare.report.document import Block, Entry, Grid, Heading, Paragraph, Picture

ENTITIES = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}


def escape(text: str) -> str:
    """Return plain text as Markdown on one line that shows it as it is."""
    line = re.sub(r"\s+", " ", text)
    line = re.sub(r"[\\`*_{}\[\]#|~$!]", r"\\\g<0>", line)
    return re.sub(r"[&<>]", lambda found: ENTITIES[found[0]], line)


def render(blocks: Sequence[Block]) -> str:
    """Return a document as Markdown with tables, ``<ins>`` for what is underlined."""
    return "\n\n".join(_block(block) for block in blocks) + "\n"


def _block(block: Block) -> str:
    if isinstance(block, Heading):
        return f"{'#' * block.level} {escape(block.text)}"
    if isinstance(block, Paragraph):
        return escape(block.text)
    if isinstance(block, Picture):
        place = "/".join(block.path.parts)
        return f"![{escape(block.caption)}]({place})\n\n{escape(block.caption)}"
    return _grid(block)


def _grid(grid: Grid) -> str:
    aligned = (
        ":--" if column == 0 or column in grid.texts else "--:" for column in range(len(grid.head))
    )
    lines = [
        _line(escape(name) for name in grid.head),
        _line(aligned),
        *(_line(_entry(entry) for entry in row) for row in grid.rows),
    ]
    return escape(grid.caption) + "\n\n" + "\n".join(lines)


def _line(entries: Iterable[str]) -> str:
    return f"| {' | '.join(entries)} |"


def _entry(entry: Entry) -> str:
    text = escape(entry.text)
    if entry.bold:
        return f"**{text}**"
    return f"<ins>{text}</ins>" if entry.underlined else text
