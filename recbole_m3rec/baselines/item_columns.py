"""Item features for RecBole's models that read ``.item`` columns or feature files.

GRU4RecF, SASRecF and FDSA embed the columns that `selected_features` names, S3Rec predicts the one
that `item_attribute` names, DIN and DIEN read every column that is loaded. RecBole's defaults are
columns of ml-100k. Where a dataset has none of that name, and the user named none, columns are
chosen by what is in them.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from recbole_m3rec.atomic.item_columns import shared_columns
from recbole_m3rec.atomic.item_file import ItemFile
from recbole_m3rec.baselines.item_vectors import is_vector_field, vector_field
from recbole_m3rec.config.yaml_files import ConfigurationError
from recbole_m3rec.support.suggestions import did_you_mean

# Words of a chosen column that are read of each row: the models embed every one of them for every
# item of every history.
WORDS_READ = 32

# By configuration key: how many columns its models take.
KEYS = {"selected_features": "several", "item_attribute": "one"}


def features_key(config: Any) -> str | None:
    """Return the key by which a model of RecBole names its item columns, None if it names none."""
    return next((key for key in KEYS if key in config.internal_config_dict), None)


def reads_vectors(config: Any) -> bool:
    """Tell whether a model of RecBole can be given the vectors of feature files."""
    return features_key(config) == "selected_features"


def reads_every_column(config: Any) -> bool:
    """Tell whether a sequential model embeds all columns of items and users: DIN and DIEN do."""
    from recbole.model.layers import ContextSeqEmbLayer

    program = vars(sys.modules[config.model_class.__module__])
    return ContextSeqEmbLayer in program.values()


def choose_features(config: Any, named: Iterable[str]) -> list[str]:
    """Choose the item features of a model and have their columns loaded.

    Args:
        config: RecBole's configuration; chosen columns and vectors are written into it.
        named: the keys that the user gave a value.

    Returns:
        What the model reads, a phrase each; [] for a model that reads no item features.

    Raises:
        ConfigurationError: a named column is not there, or there is none to choose.
    """
    key, named = features_key(config), set(named)
    if key is not None:
        modalities = choose_modalities(config) if key == "selected_features" else []
        columns = chosen_columns(config, key, key in named, bool(modalities))
        load_columns(config, "item", config["ITEM_ID_FIELD"], columns)
        chosen = [*columns, *map(vector_field, modalities)]
        set_value(config, key, chosen if key == "selected_features" else chosen[0])
        phrases = [f"{key}: {', '.join(columns)} of the .item file"] if columns else []
        return phrases + [f"vectors of {modality}" for modality in modalities]
    if reads_every_column(config):
        loaded = config["load_col"]
        if isinstance(loaded, dict) and not {"item", "user"} & set(loaded):
            return choose_every_column(config)
        if not isinstance(loaded, dict):
            return ["every column of the .item and .user files"]
        return [
            f"{', '.join(loaded[suffix])} of the .{suffix} file"
            for suffix in ("item", "user")
            if suffix in loaded
        ]
    return []


def choose_modalities(config: Any) -> list[str]:
    """Return the modalities that a model of RecBole is to read, and settle what they need."""
    from recbole_m3rec.data.dataset import modality_sources

    for key, default in (("modalities", []), ("features", {}), ("feature_norm", "none")):
        if config[key] is None:
            set_value(config, key, default)
    if not config["modalities"]:
        return []
    return [source.modality for source in modality_sources(config)]


def chosen_columns(config: Any, key: str, is_named: bool, has_vectors: bool) -> list[str]:
    """Return the columns of the ``.item`` file that a model is to read.

    Args:
        is_named: whether the user gave it a value; if not, RecBole's default is one to begin with.
        has_vectors: whether the model reads vectors, beside which only named columns are taken.

    Raises:
        ConfigurationError: a named column is not there, or there is none to choose.
    """
    value = config[key]
    columns = [value] if isinstance(value, str) else list(value or ())
    columns = [column for column in columns if not is_vector_field(column)]
    path = atomic_file(config, "item")
    types = item_file(config).types() if path.is_file() else {}
    missing = [column for column in columns if column not in types]
    if is_named and missing:
        available = [column for column in types if column != config["ITEM_ID_FIELD"]]
        raise ConfigurationError(
            f"{key}: {missing[0]} is no column of {path}. There is "
            f"{', '.join(available) or 'none'}." + did_you_mean(missing[0], available)
        )
    if has_vectors:
        return columns if is_named else []
    if columns and not missing:
        return columns
    candidates = columns_of(config, "item", config["ITEM_ID_FIELD"])
    if not candidates:
        other = ", or vectors by --modalities=NAME" if key == "selected_features" else ""
        raise ConfigurationError(
            f"{config['model']} learns from item features, but "
            + (f"no column of {path} has values" if types else f"there is no {path} with values")
            + f" that items share: name columns by {key}{other}."
        )
    if KEYS[key] == "one":
        return [min(candidates, key=lambda name: candidates[name])]
    return list(candidates)


def choose_every_column(config: Any) -> list[str]:
    """Load the columns of items and users that rows share; there may be none."""
    phrases = []
    for suffix, field in (("item", config["ITEM_ID_FIELD"]), ("user", config["USER_ID_FIELD"])):
        columns = list(columns_of(config, suffix, field))
        if columns:
            load_columns(config, suffix, field, columns)
            phrases.append(f"{', '.join(columns)} of the .{suffix} file")
    return phrases or ["no columns but the ids, for there are none with values that rows share"]


def columns_of(config: Any, suffix: str, id_field: str) -> Mapping[str, int]:
    """Choose the columns that tell what rows have in common; long rows are to be read in part.

    Returns:
        The number of different values by column.
    """
    file = replace(item_file(config), path=atomic_file(config, suffix), id_field=id_field)
    columns = shared_columns(file, config["seq_separator"])
    long = {column.name: WORDS_READ for column in columns if column.longest > WORDS_READ}
    if long:
        set_value(config, "seq_len", {**long, **(config["seq_len"] or {})})
    return {column.name: column.n_values for column in columns}


def atomic_file(config: Any, suffix: str) -> Path:
    """Return where a file of the dataset is expected."""
    return Path(config["data_path"]) / f"{config['dataset']}.{suffix}"


def item_file(config: Any) -> ItemFile:
    """Return the ``.item`` file of a dataset, which may not be there."""
    form = (config[key] for key in ("ITEM_ID_FIELD", "field_separator", "encoding"))
    return ItemFile(atomic_file(config, "item"), *form)


def load_columns(config: Any, suffix: str, id_field: str, columns: Iterable[str]) -> None:
    """Add columns to those that RecBole loads; where it loads all, they are among them."""
    loaded = config["load_col"]
    columns = list(columns)
    if not isinstance(loaded, dict) or not columns:
        return
    before = loaded.get(suffix) or ()
    if before == "*":
        return
    set_value(
        config,
        "load_col",
        {**loaded, suffix: list(dict.fromkeys([id_field, *before, *columns]))},
    )


def set_value(config: Any, key: str, value: Any) -> None:
    """Set a value for this run, and for those that a checkpoint of it starts."""
    config[key] = config.internal_config_dict[key] = value
    if key in config.external_config_dict:
        config.external_config_dict[key] = value
