"""RecBole's saved datasets and dataloaders, reused only where their files are today's.

They are pickles, which can run code: one that lies in ``checkpoint_dir`` is read only if it was
written by this user on this machine; one that the user names is read as asked.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from logging import getLogger
from pathlib import Path
from typing import Any

from recbole_m3rec.baselines.item_columns import reads_vectors
from recbole_m3rec.config.layers import DATASET_KEYS, OWN_MODELS
from recbole_m3rec.data.digests import DIGEST_KEYS, changed
from recbole_m3rec.support import written_here
from recbole_m3rec.support.safe_write import Sink, new_files


def install() -> None:
    """Extend what RecBole compares, and how it reads and writes its caches."""
    from recbole.data import utils
    from recbole.data.dataset import dataset as datasets

    from recbole_m3rec.hooks import Overlay, overlay

    utils.dataset_arguments = [*utils.dataset_arguments, *DATASET_KEYS]
    for module in (utils, datasets):
        module.open = open_whole
    overlay(utils, "os", path=Overlay(os.path, exists=may_be_read))
    overlay(utils, "pickle", load=load_and_compare)


# The configuration whose cache RecBole looks for, and the key by which the user may name the file.
_looking: list[tuple[Any, str]] = []


@contextmanager
def looking_for(config: Any, key: str) -> Iterator[None]:
    """Know, while RecBole looks for a cache, for which configuration it does."""
    _looking.append((config, key))
    try:
        yield
    finally:
        _looking.pop()


def may_be_read(path: str) -> bool:
    """Tell whether a cache is there and, unless the user names it, was written here."""
    if not os.path.exists(path):
        return False
    config, key = _looking[-1]
    if config[key] or written_here.is_own(Path(path)):
        return True
    getLogger().warning(
        f"{path} was not written by you on this machine and is not read, for a pickle can run code:"
        f" the data are made anew. Name it by {key} if you trust it, or remove it."
    )
    return False


def load_and_compare(file: Any) -> Any:
    """Unpickle a cache as RecBole does, and log which of its files have changed since.

    RecBole compares the digests among its own keys, and makes the cache anew where they differ.
    """
    import pickle

    content = pickle.load(file)
    config = _looking[-1][0]
    saved = (content[0][0] if isinstance(content, list) else content).config
    names = [name for key in DIGEST_KEYS for name in changed(saved[key], config[key])]
    if names:
        getLogger().info(f"{file.name} is made anew, for {', '.join(names)} changed")
    return content


@contextmanager
def open_whole(path: str, mode: str = "r", *args: Any, **kwargs: Any) -> Iterator[Any]:
    """Open like ``open``; what is written in binary appears whole, and is noted as written here."""
    if mode != "wb":
        with open(path, mode, *args, **kwargs) as file:
            yield file
        return
    with new_files(Path(path)) as [new], new.writing():
        sink = Sink(new.file)
        yield sink
        written_here.expect(Path(path), sink.sha256)
    written_here.note(Path(path), sink.sha256)


def feature_digests(config: Any) -> dict[str, str] | None:
    """Return what identifies today's features by modality; None for a model without any."""
    if config["model"] not in OWN_MODELS and not reads_vectors(config):
        return None
    if not getattr(config.model_class, "content_modalities", True):
        return None
    from recbole_m3rec.data.dataset import modality_sources
    from recbole_m3rec.features.recipes import digest

    item_file = Path(config["data_path"]) / f"{config['dataset']}.item"
    return {
        source.modality: digest(source, item_file, config["seed"])
        for source in modality_sources(config)
    }
