"""Patches for libraries that RecBole imports whenever it is imported, and few runs use.

scikit-learn, for three metrics and two models, brings scipy.stats, and was a third of the time that
a command needs to start; ray is for one kind of search.
"""

from __future__ import annotations

import contextlib
import importlib
import inspect
import sys
from collections.abc import Callable, Iterator
from types import ModuleType, SimpleNamespace
from typing import Any

from recbole_m3rec.hooks import wrap

OF_SCIKIT_LEARN = (
    "sklearn.exceptions",
    "sklearn.linear_model",
    "sklearn.metrics",
    "sklearn.utils.extmath",
)


class StandIn(ModuleType):
    """A module whose functions import the real one when they are called."""

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name.startswith("__"):
            raise AttributeError(name)

        def imported(*args: Any, **kwargs: Any) -> Any:
            return getattr(importlib.import_module(self.__name__), name)(*args, **kwargs)

        return imported


@contextlib.contextmanager
def stand_ins(*names: str) -> Iterator[None]:
    """Let what is imported meanwhile find stand-ins for those modules that nobody imported yet."""
    absent = [name for name in names if name not in sys.modules]
    sys.modules.update({name: StandIn(name) for name in absent})
    try:
        yield
    finally:
        for name in absent:
            del sys.modules[name]


def import_scikit_learn_when_used() -> None:
    """Fix evaluator/metrics.py:29, nceplrec.py:19 and slimelastic.py:16, which import it."""
    with stand_ins(*OF_SCIKIT_LEARN):
        importlib.import_module("recbole.evaluator.metrics")
        slim: Any = importlib.import_module("recbole.model.general_recommender.slimelastic")

    @wrap(slim.SLIMElastic, "__init__")
    def init(original: Callable[..., None], *args: Any, **kwargs: Any) -> None:
        # Not called but compared, so the class itself has to be there.
        slim.ConvergenceWarning = importlib.import_module("sklearn.exceptions").ConvergenceWarning
        original(*args, **kwargs)


def report_to_any_ray() -> None:
    """Fix quick_start/quick_start.py:20, ``from ray import tune``: absent, or too old to import.

    RecBole's only call is ``tune.report(**metrics)``; where ray cannot be imported nobody listens
    to it. Newer releases of ray take one dictionary in place of keywords.
    """
    with stand_ins("ray"):
        quick_start: Any = importlib.import_module("recbole.quick_start.quick_start")

    def report(**metrics: Any) -> Any:
        try:
            report_to_ray = importlib.import_module("ray.tune").report
        except Exception:  # an old ray dies in many ways: missing modules, missing numpy names, …
            return None
        return report_to_ray(**metrics) if takes_keywords(report_to_ray) else report_to_ray(metrics)

    quick_start.tune = SimpleNamespace(report=report)


def takes_keywords(function: Callable[..., Any]) -> bool:
    """Tell whether a function accepts keyword arguments of any name."""
    parameters = inspect.signature(function).parameters.values()
    return any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters)
