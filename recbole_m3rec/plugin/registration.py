"""Make RecBole know M3Rec, Mamba4Rec and SASRecMM by name."""

from __future__ import annotations

import importlib
import sys

from recbole_m3rec.plugin import mends
from recbole_m3rec.plugin.configuration import OWN_MODELS

# RecBole finds a model in the module `recbole.model.<family>.<name in small letters>`.
MODELS = {name: f"recbole_m3rec.model.{name.lower()}" for name in OWN_MODELS}
FAMILY = "recbole.model.sequential_recommender"

_registered = False


def register() -> None:
    """Mend RecBole and register models, dataset, configuration, caches, processes and guards.

    Importing ``recbole_m3rec`` does this; a second call does nothing.
    """
    global _registered
    if _registered:
        return
    _registered = True
    mends.apply()

    from recbole_m3rec.plugin import (
        caches,
        configuration,
        evaluation,
        guards,
        inputs,
        needs,
        protocol,
        spawning,
        stages,
    )

    register_models()
    register_dataset()
    configuration.install()
    caches.install()
    spawning.install()
    guards.install()
    evaluation.install()  # after the guards, which look at RecBole's scores
    needs.install()
    stages.install()
    protocol.install()  # after evaluation in blocks, which takes histories from it
    inputs.install()


def register_models() -> None:
    """Put each model's module, and the class, where RecBole looks for its own."""
    family = importlib.import_module(FAMILY)
    for name, module_name in MODELS.items():
        module = importlib.import_module(module_name)
        sys.modules[f"{FAMILY}.{name.lower()}"] = module
        setattr(family, name, getattr(module, name))


def register_dataset() -> None:
    """Put the dataset class where RecBole looks for ``<Model>Dataset``."""
    from recbole.data import dataset as recboles

    from recbole_m3rec.data.dataset import M3RecDataset

    for name in MODELS:
        setattr(recboles, f"{name}Dataset", M3RecDataset)
