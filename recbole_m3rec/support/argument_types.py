"""Numbers on command lines, as argparse's ``type``."""

from __future__ import annotations

import argparse
import math


def positive(text: str) -> int:
    """Return an argument that is a whole number from 1 on."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number from 1 on, found {text!r}")
    return int(text)


def above_zero(text: str) -> float:
    """Return an argument that is a number above 0."""
    number = not_negative(text)
    if number == 0:
        raise argparse.ArgumentTypeError(f"expected a number above 0, found {text!r}")
    return number


def not_negative(text: str) -> float:
    """Return an argument that is a number from 0 on."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 <= number < math.inf:
        raise argparse.ArgumentTypeError(f"expected a number from 0 on, found {text!r}")
    return number
