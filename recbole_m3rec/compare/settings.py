"""Settings given for all models, divided among the models that know them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from recbole_m3rec.baselines.item_columns import reads_vectors
from recbole_m3rec.compare.runs import Run, configuration
from recbole_m3rec.config.known_keys import CONTENT_KEYS, LAUNCHER_KEYS
from recbole_m3rec.config.layers import DATASET_KEYS
from recbole_m3rec.config.yaml_files import ConfigurationError
from recbole_m3rec.support.suggestions import did_you_mean

# A comparison decides these itself.
TAKEN = {
    "model": "--models",
    "dataset": "--datasets",
    "checkpoint_dir": "--output",
    "nproc": "--jobs",
    "resume": "the same command again, which goes on where it was",
}


def settable_keys(model: str, dataset: str) -> set[str]:
    """Return the keys that a model, or RecBole for it, reads."""
    config = configuration(Run(model, model, dataset, seed=0))
    known = {key for keys in config.parameters.values() for key in keys} - set(DATASET_KEYS)
    known |= set(config.internal_config_dict) | {"encoding"}  # which stands in no file
    known -= LAUNCHER_KEYS
    return known | CONTENT_KEYS if reads_vectors(config) else known


def divide(
    settings: Mapping[str, Any], models: Iterable[str], dataset: str
) -> dict[str, dict[str, Any]]:
    """Return for each model the settings that it knows.

    So ``--n_layers=3`` is for SASRec and no slip of ``num_layers`` for M3Rec beside it, and a
    result does not depend on settings of other models.

    Raises:
        ConfigurationError: a key that none of the models knows, or that a comparison sets itself.
    """
    for key in settings:
        if key in TAKEN:
            raise ConfigurationError(f"`{key}` is no setting of a comparison; use {TAKEN[key]}.")
    known = {model: settable_keys(model, dataset) for model in models}
    every = set().union(*known.values()) if known else set()
    for key in settings:
        if key not in every:
            raise ConfigurationError(
                f"None of {', '.join(known)} knows the configuration key `{key}`."
                f"{did_you_mean(key, every)}"
            )
    return {
        model: {key: value for key, value in settings.items() if key in keys}
        for model, keys in known.items()
    }
