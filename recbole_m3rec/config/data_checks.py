"""Checks of dataset names and ``.inter`` files: one clear error each."""

from __future__ import annotations

import importlib.util
import os
import pkgutil
import re
import sys
from collections.abc import Callable, Sequence
from glob import escape
from pathlib import Path
from typing import Any

from recbole_m3rec.atomic.atomic_file import AtomicFileError, read_header, text_encoding
from recbole_m3rec.config.layers import OWN_MODELS, properties_folder
from recbole_m3rec.config.yaml_files import ConfigurationError
from recbole_m3rec.datasets.amazon.releases import command_for
from recbole_m3rec.hooks import wrap
from recbole_m3rec.support import command_names as commands
from recbole_m3rec.support.folder_names import fault_of_name, fault_of_new_name
from recbole_m3rec.support.suggestions import did_you_mean


class UnknownNameError(ValueError):
    """No model or dataset has this name."""


class InteractionFileError(AtomicFileError):
    """An ``.inter`` file from which nothing can be learned."""


MODEL_FAMILIES = (
    "general_recommender",
    "context_aware_recommender",
    "sequential_recommender",
    "knowledge_aware_recommender",
    "exlib_recommender",
)

# Words of the names under which Amazon's review data is published, by category.
AMAZON_WORDS = frozenset(
    ("amazon", "beauty", "toys", "games", "sports", "outdoors", "clothing", "shoes", "jewelry")
    + ("books", "electronics", "home", "kitchen", "office", "baby", "grocery", "automotive")
    + ("cds", "vinyl", "movies", "tools", "pet", "instruments", "garden", "health", "music")
)


def install() -> None:
    """Put the checks where RecBole looks names up and reads interactions."""
    from recbole.config import Config
    from recbole.data.dataset import Dataset

    @wrap(Config, "_get_model_and_dataset")
    def find(original: Callable[..., Any], self: Any, model: Any, dataset: Any) -> Any:
        name = model if model is not None else self.external_config_dict.get("model")
        if isinstance(name, str):
            refuse_unknown_model(name)
        name = dataset if dataset is not None else self.external_config_dict.get("dataset", "-")
        fault = fault_of_name(name)
        if fault:
            raise UnknownNameError(f"{name!r} cannot name a dataset: it {fault}.")
        return original(self, model, dataset)

    @wrap(Dataset, "_download")
    def download(original: Callable[..., None], self: Any) -> None:
        refuse_unknown_dataset(self.dataset_name, Path(self.dataset_path))
        original(self)

    @wrap(Dataset, "_load_inter_feat")
    def load(original: Callable[..., None], self: Any, token: str, dataset_path: str) -> None:
        check_interaction_files(
            token, Path(dataset_path), self.benchmark_filename_list, self.config
        )
        original(self, token, dataset_path)

    @wrap(Dataset, "_filter_by_field_value")
    def keep_values(original: Callable[..., None], self: Any) -> None:
        for field, kept in (self.config["val_interval"] or {}).items():
            if field not in self.field2type:
                raise ConfigurationError(
                    f"val_interval: no field {field!r} is loaded of `{self.dataset_name}`; there "
                    f"are {', '.join(self.field2type)}.{did_you_mean(field, self.field2type)}"
                )
            kind = self.field2type[field].value
            if kind.startswith("float") != isinstance(kept, str):
                expected = "an interval" if kind.startswith("float") else "a list of tokens"
                raise ConfigurationError(
                    f"val_interval: {field} of `{self.dataset_name}` is {kind}, expected "
                    f"{expected}, found {kept!r}."
                )
        original(self)

    @wrap(Dataset, "_data_filtering")
    def keep_some(original: Callable[..., None], self: Any) -> None:
        before = len(self.inter_feat)
        try:
            original(self)
        except ValueError as error:
            if len(self.inter_feat):
                raise
            raise InteractionFileError(
                f"None of the {before:,} interactions of `{self.dataset_name}` is left after "
                f"filtering: user_inter_num_interval {self.config['user_inter_num_interval']}, "
                f"item_inter_num_interval {self.config['item_inter_num_interval']}, val_interval "
                f"{self.config['val_interval']}. Loosen them, e.g. "
                '--user_inter_num_interval="[0,inf)" --item_inter_num_interval="[0,inf)".'
            ) from error


def model_names() -> dict[str, set[str]]:
    """Return by module name in small letters what each of RecBole's model modules may be called."""
    names: dict[str, set[str]] = {name.lower(): {name} for name in OWN_MODELS}
    for family in MODEL_FAMILIES:
        spec = importlib.util.find_spec(f"recbole.model.{family}")
        classes = vars(sys.modules.get(f"recbole.model.{family}", object))
        folders = (spec.submodule_search_locations if spec else None) or []
        for module in pkgutil.iter_modules(folders):
            exported = {name for name in classes if name.lower() == module.name}
            exported -= {module.name} if len(exported) > 1 else set()
            names.setdefault(module.name, set()).update(exported or {module.name})
    return names


def refuse_unknown_model(name: str) -> None:
    """Raise where RecBole would not find a model of this name, capitals included."""
    try:
        from recbole.utils import get_model

        get_model(name)
    except (ValueError, AttributeError, ModuleNotFoundError) as error:
        known = model_names()
        if isinstance(error, ModuleNotFoundError) and name in known.get(name.lower(), ()):
            raise  # a model that needs a library which is not installed
        candidates = known.get(name.lower()) or {each for names in known.values() for each in names}
        raise UnknownNameError(
            f"There is no model `{name}`.{did_you_mean(name, candidates)} Models are named as "
            "their classes, capitals included; all of RecBole's are available, and "
            f"{', '.join(OWN_MODELS)}."
        ) from error


def refuse_unknown_dataset(name: str, path: Path) -> None:
    """Raise for a dataset that lies nowhere and that RecBole cannot download.

    Args:
        path: the folder where RecBole expects its files.
    """
    downloadable = known_downloads()
    if name in downloadable:
        return
    folder = path.parent
    present = [file.parent.name for file in folder.glob("*/*.inter")]
    prepared = [file.stem for file in (properties_folder() / "dataset").glob("*.yaml")]
    suggestion = did_you_mean(name, {*present, *prepared, *downloadable} - {name})
    fault = fault_of_new_name(name)
    if fault is not None:
        raise UnknownNameError(
            f"There is no dataset {name!r}, and this cannot name a dataset: {fault}.{suggestion}"
        )
    expected = path / f"{name}.inter"
    message = f"There is no dataset `{name}`: {expected} does not exist."
    command = command_for(name)
    if command is not None:
        message += f" If it is one of Amazon's, prepare it once: `{command}`."
    elif AMAZON_WORDS & set(re.split(r"[^a-z]+", name.lower())):
        message += (
            f" If it is one of Amazon's, `{commands.command('prepare amazon --help')}` shows the"
            " names of its categories."
        )
    raise UnknownNameError(
        f"{message}{suggestion} For data of your own, `{commands.command('prepare tables')} --name "
        f"{name} --log FILE` makes it of a log of purchases; or write {expected} with the columns "
        "`user_id:token`, `item_id:token` and `timestamp:float`, separated by tabs, or name "
        "another place for the folders of datasets by --data_path."
    )


def check_files(config: Any) -> None:
    """Check the files of a dataset before anything else, such as its features, is asked of it."""
    folder = Path(config["data_path"])
    if config["dataset_save_path"]:
        return
    if folder.is_dir():
        check_interaction_files(config["dataset"], folder, config["benchmark_filename"], config)
    else:
        has_data(config)


def has_data(config: Any) -> bool:
    """Tell whether a dataset's files are there.

    Raises:
        UnknownNameError: they are not, and nothing says where they come from.
    """
    name, folder = config["dataset"], Path(config["data_path"])
    if any(folder.glob(f"{escape(name)}*.inter")):
        return True
    if not (config["source"] and is_absent(config)):
        refuse_unknown_dataset(name, folder)
    return False


def is_absent(config: Any) -> bool:
    """Tell whether nothing of a dataset is there; what a user has put there is left alone."""
    name, folder = config["dataset"], Path(config["data_path"])
    return not any(folder.glob(f"{escape(name)}*.inter")) and not (folder / f"{name}.item").exists()


def known_downloads() -> set[str]:
    """Return the names of the datasets that RecBole downloads, the shipped ``ml-100k`` included."""
    import recbole
    import yaml

    file = Path(recbole.__file__).parent / "properties" / "dataset" / "url.yaml"
    return {*yaml.safe_load(file.read_text(encoding="utf-8")), "ml-100k"}


def check_interaction_files(
    name: str, folder: Path, parts: Sequence[str] | None, config: Any
) -> None:
    """Check the ``.inter`` file of a dataset, or those of its ready-made splits."""
    for part in [f".{each}" for each in parts or ()] or [""]:
        check_interaction_file(folder / f"{name}{part}.inter", config)


def check_interaction_file(path: Path, config: Any) -> None:
    """Read the header of an ``.inter`` file, and whether there are rows.

    Raises:
        InteractionFileError: no file, an empty one, one without columns or rows.
        AtomicFileError: line 1 is no header.
    """
    separator = config["field_separator"]
    fields = [config["USER_ID_FIELD"], config["ITEM_ID_FIELD"]]
    expected = separator.join(
        [*(f"{field}:token" for field in fields if field), f"{config['TIME_FIELD']}:float"]
    )
    if not path.is_file():
        raise InteractionFileError(
            f"{path} does not exist. The folder of a dataset holds a file of that name, whose "
            f"first line is {expected!r}."
        )
    encoding = config["encoding"]
    codec = text_encoding(encoding)
    with open(path, encoding=codec, errors="replace") as file:
        header = file.readline()
        has_rows = any(line.strip() for line in file)
    if not header.strip():
        what = "is empty" if os.path.getsize(path) == 0 else "begins with an empty line"
        raise InteractionFileError(f"{path} {what}. Its first line must be {expected!r}.")
    present = read_header(path, separator, encoding)
    missing = [field for field in fields if field and field not in present]
    if missing:
        raise InteractionFileError(
            f"{path} has no column {' and no column '.join(missing)}; it has {', '.join(present)}. "
            "Rename a column, or name yours by USER_ID_FIELD and ITEM_ID_FIELD."
        )
    if not has_rows:
        raise InteractionFileError(f"{path} holds a header and no interaction.")
    check_column_names(path, list(present), config)


def check_column_names(path: Path, present: Sequence[str], config: Any) -> None:
    """Raise for settings that name columns of interactions that are not there.

    RecBole leaves out a column of ``load_col`` that no file has, and says nothing.
    """
    named = (config["load_col"] or {}).get("inter") or ()
    columns = [name for name in named if name != "*"] if isinstance(named, (list, tuple)) else []
    # RecBole's own settings name these, whether or not a file has them; a missing time column has a
    # message of its own, and other files may hold an alias.
    optional = [config[key] for key in ("TIME_FIELD", "RATING_FIELD", "LABEL_FIELD")]
    wrong = {"load_col": [n for n in columns if n not in (*present, *optional)]}
    elsewhere = {name for names in (config["load_col"] or {}).values() for name in names or ()}
    for key in ("alias_of_user_id", "alias_of_item_id"):
        wrong[key] = [n for n in config[key] or () if n not in (*present, *elsewhere)]
    for key, names in wrong.items():
        if names:
            raise InteractionFileError(
                f"{key}: {path} has no column {' and no column '.join(names)}; it has "
                f"{', '.join(present)}.{did_you_mean(names[0], present)}"
            )
