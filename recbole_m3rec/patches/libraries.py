"""Patches for names of ray, numpy and scipy that no longer exist."""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np

from recbole_m3rec.hooks import Overlay, overlay


def stand_in_for_ray() -> None:
    """Fix quick_start/quick_start.py:20, ``from ray import tune``: absent, or too old to import.

    A ray that imports is used. RecBole's only call is ``tune.report(**metrics)``; where ray is
    missing nobody listens to it, and the stand-in says nothing. Newer releases of ray take one
    dictionary instead of keywords, which is translated for RecBole alone.
    """
    try:
        tune = importlib.import_module("ray.tune")
        report: Callable[..., Any] = tune.report
    except Exception:  # an old ray dies in many ways: missing modules, missing numpy names, …
        tune = ModuleType("ray.tune", "Stands in for ray.tune where ray cannot be imported.")
        tune.report = lambda **metrics: None  # type: ignore[attr-defined]
        parent = sys.modules.setdefault("ray", ModuleType("ray"))
        parent.tune = tune  # type: ignore[attr-defined]
        sys.modules["ray.tune"] = tune
        return
    if takes_keywords(report):
        return
    from recbole.quick_start import quick_start

    overlay(quick_start, "tune", report=lambda **metrics: report(metrics))


def takes_keywords(function: Callable[..., Any]) -> bool:
    """Tell whether a function accepts keyword arguments of any name."""
    parameters = inspect.signature(function).parameters.values()
    return any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters)


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
