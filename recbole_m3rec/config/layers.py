"""The plugin's configuration layers, after all of RecBole's own and before the user's.

RecBole's internal layers < ``overall.yaml`` < ``model/<Model>.yaml`` < ``dataset/<dataset>.yaml`` <
the same three in ``properties/`` of the working directory < config files < dict < command line.

A value replaces the one below it whole, but for ``eval_args``: of its parts a layer replaces those
that it names. RecBole would fill the others with shares drawn at random, another protocol.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Iterator, Mapping
from logging import getLogger
from pathlib import Path
from typing import Any

from recbole_m3rec.config.known_keys import COMMAND_LINE, DICT, refuse_unknown
from recbole_m3rec.config.known_keys import OWN_MODELS as OWN_MODELS
from recbole_m3rec.config.literals import read_value
from recbole_m3rec.config.yaml_files import ConfigurationError, read_yaml
from recbole_m3rec.hooks import wrap

# RecBole's dataset keys are those that decide what a saved dataset holds; these are ours.
DATASET_KEYS = (
    *("modalities", "feature_norm", "feature_rows", "train_positions"),
    *("feature_digests", "source_digests", "time_order", "cold_items"),
)

FILES_KEY = "configuration_files"
IN_PARTS = "eval_args"


def properties_folder() -> Path:
    """Return the plugin's ``properties/``: inside an installed package, beside it in a clone."""
    package = Path(__file__).resolve().parent.parent
    for folder in (package / "properties", package.parent / "properties"):
        if (folder / "overall.yaml").is_file():
            return folder
    raise FileNotFoundError(
        f"recbole_m3rec has lost its configuration: no properties/overall.yaml in {package} or "
        "beside it. Install the package again."
    )


def layer_files(folder: Path, model: str, dataset: str) -> Iterator[Path]:
    """Yield the files of one ``properties/`` folder that exist, in rising order of precedence."""
    for name in ("overall.yaml", f"model/{model}.yaml", f"dataset/{dataset}.yaml"):
        if (folder / name).is_file():
            yield folder / name


def install() -> None:
    """Put the layers into RecBole's ``Config``."""
    from recbole.config import Config

    def load_config_files(self: Any, file_list: Any) -> dict[str, Any]:
        # RecBole's own reader takes the last of a key given twice, and names of Python objects.
        self._config_files = [str(file) for file in file_list or ()]
        values: dict[str, Any] = {}
        for file in self._config_files:
            lay(read_settings(Path(file)), over=values)
        return values

    Config._load_config_files = load_config_files

    @wrap(Config, "_update_internal_config_dict")
    def remember_internal_files(original: Callable[..., Any], self: Any, file: str) -> Any:
        self._internal_files.append(os.path.normpath(file))
        return original(self, file)

    @wrap(Config, "_load_internal_config_dict")
    def load(
        original: Callable[..., None], self: Any, model: str, model_class: type, dataset: str
    ) -> None:
        # RecBole extends this list in place, and the list is the module's own.
        self.parameters["Dataset"] = [*self.parameters["Dataset"], *DATASET_KEYS]
        self._internal_files = []
        original(self, model, model_class, dataset)
        add_layers(self, model, dataset)


def add_layers(config: Any, model: str, dataset: str) -> None:
    """Lay the plugin's and the working directory's files over RecBole's internal configuration."""
    values = config.internal_config_dict
    recboles = copy.deepcopy(values)
    own = properties_folder()
    files = list(layer_files(own, model, dataset))
    for file in files:
        lay(read_yaml(file), over=values)
    restore_required_keys(values, recboles, files[0])

    local = Path.cwd() / "properties"
    users_files: list[Path] = []
    if local.is_dir() and not local.samefile(own):
        users_files = list(layer_files(local, model, dataset))
    users_layers = {str(file): read_yaml(file) for file in users_files}
    config._unread_keys = refuse_unknown(
        config,
        {
            **users_layers,
            ", ".join(config._config_files): config.file_config_dict,
            DICT: config.variable_config_dict,
            COMMAND_LINE: config.cmd_config_dict,
        },
    )

    external = config.external_config_dict
    chosen: dict[str, Any] = {}
    for layer in (*users_layers.values(), external):
        chosen.update(layer)
    config._named_keys = frozenset(chosen)
    for layer in users_layers.values():
        lay(layer, over=values)
    if IN_PARTS in external:
        whole = {IN_PARTS: values.get(IN_PARTS)}
        for layer in (config.file_config_dict, config.variable_config_dict, config.cmd_config_dict):
            lay(layer, over=whole)
        external[IN_PARTS] = whole[IN_PARTS]
    if "train_neg_sample_args" not in chosen:
        values["train_neg_sample_args"] = negative_sampling(recboles, {**values, **chosen})
    values[FILES_KEY] = [
        *config._internal_files,
        *map(str, [*files, *users_files]),
        *config._config_files,
    ]


def lay(layer: Mapping[str, Any], over: dict[str, Any]) -> None:
    """Put a layer's values, literals of the command line as text, over those below it."""
    below, parts = over.get(IN_PARTS), layer.get(IN_PARTS)
    over.update(layer)
    if isinstance(parts, str):
        parts = read_value(parts)
    if parts and isinstance(parts, dict) and isinstance(below, dict):
        over[IN_PARTS] = {**below, **parts}


def restore_required_keys(values: dict[str, Any], recboles: dict[str, Any], overall: Path) -> None:
    """Give back what ``overall.yaml`` took from models that cannot run without.

    Context-aware and decision-tree models classify labelled interactions and rank nothing: their
    evaluation stays RecBole's. A model that reads user, item or graph columns keeps them, and
    those of the interactions, beside the protocol's.
    """
    from recbole.utils import ModelType

    protocol = read_yaml(overall)
    labelled = values["MODEL_TYPE"] in (ModelType.CONTEXT, ModelType.DECISIONTREE)
    if labelled:
        for key in ("eval_args", "metrics", "valid_metric"):
            if values.get(key) == protocol.get(key):
                values[key] = recboles[key]
    needed = recboles.get("load_col") or {}
    columns = values.get("load_col")
    reads_more = labelled or bool(set(needed) - {"inter"})
    if reads_more and isinstance(columns, dict) and columns == protocol.get("load_col"):
        values["load_col"] = {
            suffix: list(dict.fromkeys([*columns.get(suffix, ()), *needed.get(suffix, ())]))
            for suffix in {**columns, **needed}
        }


def negative_sampling(
    recboles: Mapping[str, Any], values: Mapping[str, Any]
) -> dict[str, Any] | None:
    """Return the ``train_neg_sample_args`` that the model's loss needs.

    A sequential model with a softmax over all items takes none and fails with any. Every other gets
    RecBole's: one uniform negative, or none for models that learn from labels.
    """
    from recbole.utils import ModelType

    if values["MODEL_TYPE"] == ModelType.SEQUENTIAL and values.get("loss_type") == "CE":
        return None
    return copy.deepcopy(recboles.get("train_neg_sample_args"))


def read_settings(path: Path) -> dict[str, Any]:
    """Read a file that the user has named for its settings.

    Raises:
        ConfigurationError: it cannot be read as YAML, or has none.
    """
    values = read_yaml(path)
    if not values:
        raise ConfigurationError(f"{path} holds no settings: expected lines of `key: value`.")
    return values


def announce(config: Any) -> None:
    """Log which files made this configuration, and which keys of the user nothing reads."""
    logger = getLogger()
    files = config[FILES_KEY] or []
    logger.info(
        "Configuration files, each over those before it:\n  " + "\n  ".join(files),
        extra={"file_only": True},  # see quick_start/screen.py
    )
    unread = getattr(config, "_unread_keys", [])
    if unread:
        logger.warning(f"Configuration keys that nothing reads: {', '.join(unread)}")
