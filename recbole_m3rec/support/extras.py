"""Libraries that only extras bring, and what is said where one is missing."""

from __future__ import annotations


class NotInstalledError(ImportError):
    """A library of an extra is missing; says how it is installed."""


def no_pictures() -> str | None:
    """Return why there can be no pictures, None where there can."""
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError as error:
        return f"a picture needs matplotlib ({error}): pip install 'recbole_m3rec[plots]'"
    return None
