"""Many models on many datasets: trained once, compared fairly, reported as tables and pictures.

The door is :func:`recbole_m3rec.compare.compare`, which takes a list of
:class:`recbole_m3rec.Run`:

    >>> from recbole_m3rec.compare import Run, compare
    >>> compare.__module__
    'recbole_m3rec.compare.comparison'
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from recbole_m3rec.compare.comparison import compare
    from recbole_m3rec.compare.results import Outcome
    from recbole_m3rec.compare.runs import Run

__all__ = ["Outcome", "Run", "compare"]

_PUBLIC = {"Outcome": "results", "Run": "runs", "compare": "comparison"}


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:  # loaded on first use: the functions need RecBole
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_PUBLIC[name]}"), name)
