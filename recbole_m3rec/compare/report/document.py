"""A report as headings, paragraphs, tables and figures, before it gets a format."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Heading:
    """A heading; level 1 is the document's title."""

    text: str
    level: int = 2


@dataclass(frozen=True)
class Paragraph:
    """Plain text."""

    text: str


@dataclass(frozen=True)
class Entry:
    """A cell of a grid: plain text, maybe bold or underlined."""

    text: str
    bold: bool = False
    underlined: bool = False


@dataclass(frozen=True)
class Grid:
    """A table.

    Attributes:
        caption: plain text above it.
        head: the names of the columns.
        rows: each as long as ``head``; the first column is text, the others are numbers.
        folded: whether a reader may have to open it first, where the format can do that.
        texts: columns, beside the first, that hold text.
    """

    caption: str
    head: Sequence[str]
    rows: Sequence[Sequence[Entry]]
    folded: bool = False
    texts: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Picture:
    """A PNG file beside the report, with a caption in plain text."""

    path: Path
    caption: str


Block = Heading | Paragraph | Grid | Picture
