"""M3Rec, a multi-modal sequential recommender with a shared Mamba block, as a plugin of RecBole.

Importing this package is all that is needed: RecBole then knows the models ``M3Rec`` and
``Mamba4Rec`` by name, runs on today's libraries, and reads this package's configuration.
"""

from __future__ import annotations

from recbole_m3rec.plugin.registration import register

__version__ = "0.1.0"

__all__ = ["M3RecNetwork", "__version__", "load_released_state", "register"]

register()

# RecBole must be mended before the model, which builds on it, can be imported.
from recbole_m3rec.model.network import M3RecNetwork  # noqa: E402
from recbole_m3rec.model.released import load_released_state  # noqa: E402
