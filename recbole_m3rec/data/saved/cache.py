"""RecBole's saved datasets and dataloaders, reused only where files and settings are today's.

RecBole pickles them, and a pickle can run code. Here a dataset is stored in a form without code,
and of dataloaders the three splits, from which loaders and samplers are made. A pickle of RecBole's
is read where the user names it, and nowhere else.
"""

from __future__ import annotations

import os
import pickle
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from logging import getLogger
from pathlib import Path
from typing import Any

from recbole_m3rec.config.layers import DATASET_KEYS
from recbole_m3rec.data.saved import stored
from recbole_m3rec.data.saved.digests import DIGEST_KEYS, changed
from recbole_m3rec.features.feature_table import FeatureFileError
from recbole_m3rec.hooks import Overlay, overlay, wrap, wrap_everywhere
from recbole_m3rec.support.safe_write import CannotWriteError, FileInUseError

# What RecBole's datasets read and RecBole does not compare.
MORE_KEYS = (
    *("numerical_features", "discretization", "encoding", "kg_reverse_r"),
    *("entity_kg_num_interval", "relation_kg_num_interval"),
    *("token_num_threshold", "convert_token_to_onehot"),
)
DATASET, SPLITS = "dataset_save_path", "dataloaders_save_path"  # by which users name a file


def install() -> None:
    """Replace what RecBole compares, saves and unpickles."""
    from recbole.data import utils
    from recbole.data.dataset import Dataset

    utils.dataset_arguments = [*utils.dataset_arguments, *DATASET_KEYS, *MORE_KEYS]
    overlay(utils, "os", path=Overlay(os.path, exists=may_be_unpickled))
    overlay(utils, "pickle", load=unpickle)

    @wrap(Dataset, "save")
    def save(original: Callable[..., None], self: Any) -> None:
        path = default_path(self.config, type(self).__name__)
        store({"attributes": stored.attributes_of(self)}, path, self.config, DATASET)

    @wrap_everywhere(utils, "save_split_dataloaders")
    def save_loaders(original: Callable[..., None], config: Any, dataloaders: Any) -> None:
        if not config["save_dataloaders"]:  # else save_splits has stored the splits
            original(config, dataloaders)


def saved_dataset(config: Any) -> Any:
    """Return the saved dataset of a configuration, None where there is none of today's."""
    kind = dataset_class(config)
    path = Path(config[DATASET] or default_path(config, kind.__name__))
    content = load(path, config, DATASET)
    if content is None:
        return None
    getLogger().info(f"Load filtered dataset from: [{path}]")
    dataset = kind.__new__(kind)
    vars(dataset).update(content["attributes"], config=config, logger=getLogger())
    if hasattr(kind, "load_features"):
        dataset.load_features()
    return dataset


@contextmanager
def saved_splits(config: Any, dataset: Any) -> Iterator[None]:
    """Let a dataset's ``build`` return its saved splits, where there are any of today's."""
    path = Path(config[SPLITS] or splits_path(config))
    content = load(path, config, SPLITS)
    if content is None:
        yield
        return
    getLogger().info(f"Load split dataloaders from: [{path}]")
    vars(dataset).update(content["attributes"])
    splits = [dataset.copy(part) for part in content["splits"]]
    dataset.build = lambda: splits
    try:
        yield
    finally:
        del dataset.build


def save_splits(config: Any, dataset: Any, built: Any) -> None:
    """Save the splits of a dataset if the configuration asks for it and they are new."""
    if config["save_dataloaders"] and "build" not in vars(dataset):
        splits = [split.inter_feat for split in built]
        content = {"attributes": stored.attributes_of(dataset), "splits": splits}
        store(content, splits_path(config), config, SPLITS)


def dataset_class(config: Any) -> Any:
    """Return the class that RecBole's ``create_dataset`` chooses."""
    from recbole.data import dataset as recboles
    from recbole.utils import ModelType

    kinds = {
        ModelType.SEQUENTIAL: "SequentialDataset",
        ModelType.KNOWLEDGE: "KnowledgeBasedDataset",
    }
    of_family = getattr(recboles, kinds.get(config["MODEL_TYPE"], "Dataset"))
    return getattr(recboles, f"{config['model']}Dataset", of_family)


def default_path(config: Any, class_name: str) -> Path:
    """Where a dataset is saved; RecBole's name but for the suffix."""
    return Path(config["checkpoint_dir"]) / f"{config['dataset']}-{class_name}.npz"


def splits_path(config: Any) -> Path:
    """Where the splits of a dataset are saved; RecBole's name but for the suffix."""
    name = f"{config['dataset']}-for-{config['model']}-dataloader.npz"
    return Path(config["checkpoint_dir"]) / name


def made_of(config: Any, key: str) -> dict[str, Any]:
    """Return the settings and digests that decide what is in a dataset or its splits."""
    from recbole.data import utils

    keys = [*utils.dataset_arguments, "seed", "repeatable", "model" if key == SPLITS else "dataset"]
    decided = {name: config[name] for name in keys}
    # Interactions are put in order before they are saved; other eval_args matter to splits alone.
    order = (config["eval_args"] or {}).get("order")
    return {**decided, "eval_args": config["eval_args"] if key == SPLITS else order}


def store(content: Mapping[str, Any], path: Path, config: Any, key: str) -> None:
    """Write a cache from the first process, or say why not: a run can go on without."""
    if config["local_rank"] not in (None, 0):
        return
    getLogger().info(f"Saving {'split dataloaders' if key == SPLITS else 'dataset'} into [{path}]")
    try:
        stored.write({**content, "made_of": made_of(config, key)}, path)
    except (stored.CannotStoreError, CannotWriteError, FileInUseError) as error:
        getLogger().warning(f"{path} is not saved, and the run goes on: {error}")


def load(path: Path, config: Any, key: str) -> dict[str, Any] | None:
    """Return what is stored in a file; None, with a line that says why, where it is not today's."""
    if config[key] and not path.exists():
        getLogger().warning(f"{key}: {path} does not exist, and the data are made from their files")
    if not path.is_file() or (config[key] and not zipfile.is_zipfile(path)):
        return None
    try:
        content = stored.read(path)
        before, now = content["made_of"], made_of(config, key)
    except (FeatureFileError, KeyError) as error:
        getLogger().warning(f"{path} is not read, and the data are made from their files: {error}")
        return None
    names = [name for name in now if name not in DIGEST_KEYS and before.get(name) != now[name]]
    names += [name for digests in DIGEST_KEYS for name in changed(before[digests], now[digests])]
    if names or any(before[digests] != now[digests] for digests in DIGEST_KEYS):
        changes = ", ".join(names) or "what is known of its files"
        getLogger().info(f"{path} is made anew, for {changes} changed")
        return None
    return content


# The configuration for which RecBole looks for a pickle, and the key by which users name one.
_looking: list[tuple[Any, str]] = []


@contextmanager
def pickle_named_by(config: Any, key: str) -> Iterator[None]:
    """Know, while RecBole looks for a pickle, for which configuration it does."""
    _looking.append((config, key))
    try:
        yield
    finally:
        _looking.pop()


def may_be_unpickled(path: str) -> bool:
    """Tell whether a pickle is there and the user names it."""
    if not _looking or not os.path.isfile(path) or zipfile.is_zipfile(path):
        return False
    config, key = _looking[-1]
    if config[key]:
        getLogger().warning(
            f"{key}: {path} is a pickle, and reading it can run code of whoever made it: go on only"
            " if you trust its source."
        )
        return True
    getLogger().warning(
        f"{path} is a pickle, which can run code, and is not read: the data are made anew. Name it"
        f" by {key} if you trust it, or remove it."
    )
    return False


def unpickle(file: Any) -> Any:
    """Unpickle what the user names.

    RecBole compares settings with today's. What RecBole itself does not know of is taken for equal.
    """
    content = pickle.load(file)
    config, key = _looking[-1]
    parts = [loader for loader, _ in content] if key == SPLITS else [content]
    for part in parts:
        absent = [name for name in (*DATASET_KEYS, *MORE_KEYS) if part.config[name] is None]
        for name in absent:
            part.config[name] = config[name]
    if "source_digests" in absent:
        getLogger().warning(
            f"{key}: {file.name} does not say which files it was made of: its interactions and"
            " their order are taken as they are."
        )
    return content
