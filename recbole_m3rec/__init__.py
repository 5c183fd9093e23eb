"""M3Rec, a multi-modal sequential recommender with a shared Mamba block, as a plugin of RecBole.

Importing this package is all that is needed, before or after RecBole itself: RecBole then knows the
models ``M3Rec``, ``Mamba4Rec`` and ``SASRecMM`` by name, runs on today's libraries, and reads this
package's configuration. RecBole is imported and changed only when the program imports it.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

import wrapt

if TYPE_CHECKING:
    from types import ModuleType

    from recbole_m3rec.network.m3rec import M3RecNetwork
    from recbole_m3rec.network.released_weights import load_released_state
    from recbole_m3rec.registration import register

__version__ = "0.1.0"

__all__ = ["M3RecNetwork", "__version__", "load_released_state", "register"]

_PUBLIC = {
    "M3RecNetwork": "network.m3rec",
    "load_released_state": "network.released_weights",
    "register": "registration",
}


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_PUBLIC[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def _on_import_of_recbole(recbole: ModuleType) -> None:
    importlib.import_module(f"{__name__}.registration").register()


wrapt.register_post_import_hook(_on_import_of_recbole, "recbole")
