"""The nearest known names to one that is not known."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def nearest(name: str, known: Iterable[str], count: int = 3, likeness: float = 0.6) -> list[str]:
    """Return at most ``count`` known names at least this alike (0 to 1), the nearest first.

    Capital letters, hyphens and underscores make no difference.
    """
    plain: dict[str, str] = {}
    for candidate in known:
        plain.setdefault(_plain(candidate), candidate)
    found = difflib.get_close_matches(_plain(name), plain, n=count, cutoff=likeness)
    return [plain[match] for match in found]


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return a sentence with the nearest names, or an empty text where nothing is near."""
    names = nearest(name, known)
    return f" Did you mean {' or '.join(names)}?" if names else ""


def _plain(name: str) -> str:
    return name.lower().replace("-", "").replace("_", "")
