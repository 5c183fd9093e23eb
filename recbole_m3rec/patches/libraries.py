"""Patches for names of numpy and scipy that no longer exist."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np

from recbole_m3rec.hooks import Overlay, overlay

NUMPY_NAMES = {
    "bool": np.bool_,
    "int": np.int_,
    "float": np.float64,
    "complex": np.complex128,
    "object": np.object_,
    "str": np.str_,
    "long": np.int_,
    "unicode": np.str_,
}


def name_numpy_scalars() -> None:
    """Fix config/configurator.py:630–635, which reads ``np.float_`` and others that are gone.

    The names are set at once as well: whoever loads a checkpoint in a new process never builds a
    ``Config``, and RecBole's datasets and metrics use ``np.float`` all the same.
    """
    if all(hasattr(np, name) for name in ("float_", "complex_", "unicode_")):
        return
    from recbole.config import Config

    Config.compatibility_settings = lambda self: _set_numpy_names()
    _set_numpy_names()


def _set_numpy_names() -> None:
    for name, scalar in NUMPY_NAMES.items():
        setattr(np, name, scalar)


def restore_dok_update() -> None:
    """Fix lightgcn.py:111 and six other models, which fill a ``dok_matrix`` by ``_update``."""
    from scipy.sparse import dok_matrix

    if hasattr(dok_matrix, "_update"):
        return

    def _update(self: Any, entries: dict[tuple[int, int], Any]) -> None:
        # A dok_matrix was a dictionary once; since scipy 1.13 it keeps one.
        dict.update(getattr(self, "_dict", self), entries)

    dok_matrix._update = _update


def draw_by_generator() -> None:
    """Fix trainer/hyper_tuning.py:117, which draws by numpy's ``RandomState``.

    Since 0.2.6 hyperopt draws by a ``Generator``. hyperopt is optional and is asked only when a
    search begins.
    """
    from recbole.trainer import hyper_tuning

    overlay(hyper_tuning, "np", random=Overlay(np.random, RandomState=random_source))


def random_source(seed: int) -> Any:
    """Return the kind of random source that the installed hyperopt draws by."""
    stochastic = importlib.import_module("hyperopt.pyll.stochastic")
    try:
        stochastic.randint(2, rng=np.random.RandomState(seed))
    except AttributeError:
        return np.random.default_rng(seed)
    return np.random.RandomState(seed)
