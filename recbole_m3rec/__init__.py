"""M3Rec, a multi-modal sequential recommender with a shared Mamba block, as a plugin of RecBole.

Importing this package is all that is needed, before or after RecBole itself: RecBole then knows the
models ``M3Rec``, ``Mamba4Rec``, ``SASRecMM`` and ``ContentKNN`` by name, runs on today's libraries,
and reads this package's configuration. RecBole is imported and changed only when the program
imports it.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

import wrapt

if TYPE_CHECKING:
    from types import ModuleType

    from recbole_m3rec import compare
    from recbole_m3rec.compare.results import Outcome
    from recbole_m3rec.compare.runs import Run
    from recbole_m3rec.features.align import ItemFeatures, align
    from recbole_m3rec.features.feature_file import read_features, write_features
    from recbole_m3rec.features.feature_table import FeatureFileError, FeatureTable
    from recbole_m3rec.network.m3rec import M3RecNetwork
    from recbole_m3rec.network.packed import PackedSequences, pack
    from recbole_m3rec.network.released_weights import load_released_state
    from recbole_m3rec.registration import register
    from recbole_m3rec.serving.recommender import Recommender

__version__ = "0.1.0"

# What users may rely on. Every name is documented with an example that the tests run.
__all__ = [
    "FeatureFileError",
    "FeatureTable",
    "ItemFeatures",
    "M3RecNetwork",
    "Outcome",
    "PackedSequences",
    "Recommender",
    "Run",
    "__version__",
    "align",
    "compare",
    "load_released_state",
    "pack",
    "read_features",
    "register",
    "write_features",
]

# The module that each name is loaded from on first use.
_PUBLIC = {
    "FeatureFileError": "features.feature_table",
    "FeatureTable": "features.feature_table",
    "ItemFeatures": "features.align",
    "M3RecNetwork": "network.m3rec",
    "Outcome": "compare.results",
    "PackedSequences": "network.packed",
    "Recommender": "serving.recommender",
    "Run": "compare.runs",
    "align": "features.align",
    "load_released_state": "network.released_weights",
    "pack": "network.packed",
    "read_features": "features.feature_file",
    "register": "registration",
    "write_features": "features.feature_file",
}


def __getattr__(name: str) -> Any:
    if name == "compare":  # a package, which holds the function of the same name
        return importlib.import_module(f"{__name__}.compare")
    if name == "register":
        importlib.import_module("recbole")  # which registers; the other way round is a circle
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_PUBLIC[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def _on_import_of_recbole(recbole: ModuleType) -> None:
    settings = importlib.import_module(f"{__name__}.support.process_settings")
    settings.prepare_process()
    with settings.importing_much():
        importlib.import_module(f"{__name__}.registration").register()


wrapt.register_post_import_hook(_on_import_of_recbole, "recbole")
