"""Names that become folders, such as a dataset's."""

from __future__ import annotations

import re


def fault_of_name(text: object) -> str | None:
    """Return why a text cannot name a folder, in words that follow it; None if it can."""
    if not isinstance(text, str):
        return "is no string"
    if not text.strip():
        return "is empty"
    if text.startswith("."):
        return "begins with a dot"
    if "/" in text or "\\" in text:
        return "is a path; name the folder alone, and the folder around it as the data path"
    if not text.isprintable():
        return "holds a character that is not printable"
    return None


def fault_of_new_name(text: str) -> str | None:
    """Return what is expected of a new dataset's name, which can be typed without quotes.

    None if the text is such a name.
    """
    if re.fullmatch(r"[^\W_][\w.-]*", text):
        return None
    return "expected letters, digits, dots, _ and -, with a letter or digit first"
