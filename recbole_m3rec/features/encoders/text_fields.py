"""Joins the fields of an item to one clean text."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence

# Where text begins that no reader sees, and where it ends.
_HIDDEN = (
    (re.compile(r"<script\b", re.IGNORECASE), re.compile(r"</script\s*>", re.IGNORECASE)),
    (re.compile(r"<style\b", re.IGNORECASE), re.compile(r"</style\s*>", re.IGNORECASE)),
    (re.compile(r"<!--"), re.compile(r"-->")),
)
_TAG = re.compile(r"</?[a-z][^<>]*>", re.IGNORECASE)


def clean(text: str) -> str:
    """Remove HTML tags, decode entities and collapse white space (line breaks included)."""
    text = _without_tags(text)
    if "&" in text:
        # Shops escape whole fragments of HTML: "&lt;br&gt;" is a tag, not a text about tags.
        text = _without_tags(html.unescape(text))
    return _on_one_line(text)


def join_fields(columns: Sequence[Sequence[str]], *, keep_html: bool = False) -> list[str]:
    """Make one text per item of its fields, each on a line of its own.

    Args:
        columns: one sequence of ``n`` values per field, ``""`` where the value is missing.
        keep_html: leave tags and entities as they are, and collapse white space only.

    Returns:
        ``n`` texts; a missing value leaves no line, an item without any value has the text ``""``.
    """
    tidy = _on_one_line if keep_html else clean
    return ["\n".join(filter(None, map(tidy, values))) for values in zip(*columns, strict=True)]


def _on_one_line(text: str) -> str:
    return " ".join(text.split())


def _without_tags(text: str) -> str:
    if "<" not in text:
        return text
    for begin, end in _HIDDEN:
        text = _without_spans(text, begin, end)
    return _TAG.sub(" ", text)


def _without_spans(text: str, begin: re.Pattern[str], end: re.Pattern[str]) -> str:
    """Cut from each ``begin`` to the next ``end``, in time linear in the text.

    One pattern ``begin.*?end`` would read on to the end of the text from every ``begin``.
    """
    kept, place = [], 0
    while (first := begin.search(text, place)) and (last := end.search(text, first.end())):
        kept += [text[place : first.start()], " "]
        place = last.end()
    return "".join([*kept, text[place:]])
