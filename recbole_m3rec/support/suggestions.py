""" "Did you mean": the nearest known names to an unknown one."""

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
    matches = difflib.get_close_matches(_plain(name), plain, n=count, cutoff=likeness)
    return [plain[match] for match in matches]


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return a sentence with the nearest names, or an empty text where nothing is near."""
    names = nearest(name, known)
    return f" Did you mean {' or '.join(names)}?" if names else ""


def expected_one_of(key: str, found: object, choices: Iterable[object]) -> str:
    """Return what to say of a setting that is none of its choices, the nearest of them named."""
    names = [str(choice) for choice in choices]
    message = f"{key} must be one of {', '.join(names)}, found {found!r}."
    return message + did_you_mean(str(found), names)


def _plain(name: str) -> str:
    return name.lower().replace("-", "").replace("_", "")
