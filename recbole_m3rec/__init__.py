"""M3Rec, a multi-modal sequential recommender with a shared Mamba block, as a plugin of RecBole.

Importing this package is all that is needed: RecBole then knows the models ``M3Rec`` and
``Mamba4Rec`` by name, runs on today's libraries, and reads this package's configuration.
"""

from __future__ import annotations

from typing import Any

from recbole_m3rec.plugin.registration import register

__version__ = "0.1.0"

__all__ = ["M3RecNetwork", "__version__", "load_released_state", "register"]

register()


def __getattr__(name: str) -> Any:
    if name == "M3RecNetwork":
        from recbole_m3rec.model.network import M3RecNetwork

        return M3RecNetwork
    if name == "load_released_state":
        from recbole_m3rec.model.released import load_released_state

        return load_released_state
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
