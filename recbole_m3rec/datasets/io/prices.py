"""Prices as people write them, to plain digits."""

from __future__ import annotations

import math
import re
from typing import NamedTuple

# A number with whatever may stand between its digits, the power of ten behind it, and letters that
# make thousands or millions of it. The point of `Rs.500` or `S/.25` is not its own.
_NUMBER = re.compile(r"([-−]?)[$€£¥]?([0-9][0-9.,'’ ]*|(?<![\w/])[.,][0-9]+)([eE][-+]?[0-9]+)?")
_DASH = re.compile("[-−–—]")
_MULTIPLE = re.compile(r"\s?(?:k|m|mio|thousand|million)\b", re.IGNORECASE)
_WHOLE = "[1-9][0-9]{0,2}(?:['’ ][0-9]{3})+|[0-9]*"
_POINT = re.compile(rf"({_WHOLE}|[1-9][0-9]?[0-9]?(,[0-9]{{2,3}})*,[0-9]{{3}})(\.[0-9]+)?")
_COMMA = re.compile(rf"({_WHOLE}|[1-9][0-9]?[0-9]?(\.[0-9]{{3}})+)(,[0-9]+)?")


class _Number(NamedTuple):
    """The first number of a text, and which marks may be its decimal one."""

    sign: str
    digits: str
    power: str
    marks: str


def price(text: str, decimal: str = ".") -> str:
    """Return the first number in a text in plain digits, ``""`` if there is none to be sure of.

    Args:
        text: with or without currency.
        decimal: the mark before decimals where the text leaves it open, as ``1.299`` and ``1,299``
            do: by the point they are 1.299 and 1299, by the comma 1299 and 1.299.
    """
    number = _number(text)
    if number is None:
        return ""
    if len(number.marks) == 1:
        decimal = number.marks
    digits = number.digits
    whole, mark, rest = digits.rpartition(decimal) if decimal in digits else (digits, "", "")
    plain = (
        number.sign.replace("−", "-")
        + (re.sub("[.,'’ ]", "", whole) or "0")
        + mark.replace(",", ".")
        + rest
    )
    value = float(plain + number.power)
    if not math.isfinite(value):
        return ""
    return f"{value:.15g}" if number.power else plain


def decimal_mark(text: str) -> str:
    """Return the decimal mark that a price shows, ``""`` where it may be either or none."""
    number = _number(text)
    return number.marks if number is not None and len(number.marks) == 1 else ""


def _number(text: str) -> _Number | None:
    match = _NUMBER.search(text)
    if not match or _MULTIPLE.match(text, match.end()):
        return None
    digits = match.group(2).rstrip(".,'’ ")
    closed = match.group(2)[-1] if _DASH.match(text, match.end()) else ""  # of `1.299,-`
    marks = "." * bool(_POINT.fullmatch(digits) and closed != ",")
    marks += "," * bool(_COMMA.fullmatch(digits) and closed != ".")
    return _Number(match.group(1), digits, match.group(3) or "", marks) if marks else None
