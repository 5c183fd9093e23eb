"""One run of a comparison, identified by its configuration and data."""

from __future__ import annotations

import copy
import hashlib
import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import Enum
from functools import lru_cache
from pathlib import Path
from typing import Any

from recbole_m3rec.baselines.item_columns import (
    features_key,
    item_file,
    reads_every_column,
    reads_vectors,
)
from recbole_m3rec.baselines.requirements import GRAPH_FILES
from recbole_m3rec.config.data_checks import (
    UnknownNameError,
    has_data,
    refuse_unknown_model,
)
from recbole_m3rec.config.keys import OF_A_MACHINE, OF_PROCESSES
from recbole_m3rec.config.layers import FILES_KEY
from recbole_m3rec.config.yaml_files import ConfigurationError
from recbole_m3rec.data.dataset import modality_sources
from recbole_m3rec.data.saved.digests import feature_digests
from recbole_m3rec.features.feature_table import FeatureTable
from recbole_m3rec.features.recipes import ModalitySource, load_or_build
from recbole_m3rec.support.exit_codes import one_line, users_error
from recbole_m3rec.support.hashing import sha256_of
from recbole_m3rec.support.safe_write import CannotWriteError, open_alone

# What is meant to change no result. The contents of the files are counted apart.
NOT_COUNTED = OF_PROCESSES | OF_A_MACHINE
NOT_COUNTED |= {"data_path", "feature_path", "feature_digests", "checkpoint_format"}
NOT_COUNTED |= {"config_files", "config_file", FILES_KEY, "device", "single_spec"}


@dataclass(frozen=True)
class Run:
    """One training and test of a model.

    Attributes:
        name: what tables call it; runs of one name, dataset and protocol differ by their seed.
        model: name of the model.
        dataset: name of the dataset.
        seed: seed of every random generator.
        settings: configuration keys that win over all files.

    Example:
        >>> from recbole_m3rec import Run
        >>> run = Run("SASRec, wide", "SASRec", "ml-100k", seed=2024, settings={"n_layers": 3})
        >>> str(run)
        'SASRec, wide on ml-100k, seed 2024'
        >>> run.overrides
        {'n_layers': 3, 'seed': 2024}
    """

    name: str
    model: str
    dataset: str
    seed: int
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def overrides(self) -> dict[str, Any]:
        """The settings with the seed among them, as RecBole's ``config_dict``."""
        return copy.deepcopy({**self.settings, "seed": self.seed})  # RecBole writes into it

    def __str__(self) -> str:
        return f"{self.name} on {self.dataset}, seed {self.seed}"


@dataclass(frozen=True)
class Identity:
    """What a result depends on.

    Attributes:
        config: every counted key of the final configuration, as JSON knows it.
        data: SHA-256 by name of each file that is read.
    """

    config: Mapping[str, Any]
    data: Mapping[str, str]

    @property
    def hash(self) -> str:
        """SHA-256 of both, 64 hex digits."""
        text = json.dumps([self.config, self.data], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()


@contextmanager
def no_command_line() -> Iterator[None]:
    """Hide the arguments of this process, which RecBole would take for settings."""
    arguments = sys.argv
    sys.argv = arguments[:1] or [""]
    try:
        yield
    finally:
        sys.argv = arguments


def configuration(run: Run, with_seed: bool = True) -> Any:
    """Return RecBole's final ``Config`` of a run, without its own seed if so asked.

    Raises:
        UnknownNameError: no such model.
        ConfigurationError: an invalid key or value, or a model that cannot be loaded.
    """
    from recbole.config import Config

    overrides = run.overrides if with_seed else copy.deepcopy(dict(run.settings))
    try:
        refuse_unknown_model(run.model)
        with no_command_line():
            return Config(model=run.model, dataset=run.dataset, config_dict=overrides)
    except (UnknownNameError, ConfigurationError):
        raise
    except Exception as error:
        said = users_error(error) or f"{type(error).__name__}: {one_line(str(error))}"
        raise ConfigurationError(f"{run.model} on {run.dataset}: {said}") from error


def first_seed(model: str, dataset: str, settings: Mapping[str, Any]) -> int:
    """Return the seed that settings and files ask for."""
    return int(configuration(Run(model, model, dataset, 0, settings), with_seed=False)["seed"])


@contextmanager
def locked(output: Path) -> Iterator[None]:
    """Keep other comparisons out of a folder, which is made if need be.

    Raises:
        CannotWriteError: it is no folder that can be written.
        FileInUseError: another comparison is at work there.
    """
    try:
        output.mkdir(parents=True, exist_ok=True)
        lock = open_alone(output / ".lock", output)
    except OSError as error:
        raise CannotWriteError(
            f"--output {output} is no folder that can be written ({error.strerror}). Name another."
        ) from error
    with lock:
        yield


def prepare(config: Any) -> None:
    """See to it that a dataset's files and the features made of them are there.

    Done once before any run, so that no two runs make the same file at once.

    Raises:
        UnknownNameError: there is no such dataset, and none to download.
    """
    from recbole.data import create_dataset

    if not has_data(config):
        with no_command_line():
            create_dataset(config)  # downloads
    if content_digests(config):
        for source in modality_sources(config):
            if source.recipe is not None and source.path is not None:
                feature_table(config, source)


def feature_table(config: Any, source: ModalitySource) -> FeatureTable:
    """Return the features of a modality, made first where its recipe says so."""
    return load_or_build(source, item_file(config))


def identify(config: Any) -> Identity:
    """Return what a run of this configuration depends on; its files must be there."""
    counted = {
        key: plain(value)
        for key, value in config.final_config_dict.items()
        if key not in NOT_COUNTED
    }
    data = {path.name: file_digest(path, *times_of(path)) for path in data_files(config)}
    features = content_digests(config)
    return Identity(counted, {**data, **{f"features of {m}": d for m, d in features.items()}})


def content_digests(config: Any) -> dict[str, str]:
    """Return what identifies the features of each modality that the model reads."""
    if reads_vectors(config) and not config["modalities"]:
        return {}
    return feature_digests(config) or {}


def data_files(config: Any) -> list[Path]:
    """Return the files that RecBole reads under a configuration: atomic ones, and checkpoints."""
    folder, name = Path(config["data_path"]), config["dataset"]
    columns = config["load_col"]
    suffixes = {"inter", *(config["additional_feat_suffix"] or ())}
    suffixes |= set(columns) if columns else {"user", "item", "net", "kg", "link", "ent"}
    if features_key(config) is not None:  # columns are chosen when the dataset is made
        suffixes |= {"item"}
    if reads_every_column(config):
        suffixes |= {"item", "user"}
    if config["model"] == "GRU4RecKG":  # loads them likewise
        suffixes |= set(GRAPH_FILES)
    parts = config["benchmark_filename"] or []
    names = [f"{name}.{suffix}" for suffix in sorted(suffixes)]
    names += [f"{name}.{part}.inter" for part in parts]
    files = [folder / file for file in names]
    files += [  # such as pre_model_path, a checkpoint to begin with
        Path(value)
        for key, value in config.final_config_dict.items()
        if key.endswith("_path") and isinstance(value, str)
    ]
    return [file for file in files if file.is_file()]


@lru_cache(maxsize=256)
def file_digest(path: Path, written: int, changed: int) -> str:
    """Return a file's SHA-256, read again only where one of its times (ns) is another."""
    return sha256_of(path)


def times_of(path: Path) -> tuple[int, int]:
    """Return when a file was written, which a restored backup keeps, and when that was set."""
    state = path.stat()
    return state.st_mtime_ns, state.st_ctime_ns


def plain(value: Any) -> Any:
    """Return a configuration value as JSON would give it back."""
    if isinstance(value, Enum):
        return value.name
    if isinstance(value, Mapping):
        return {str(key): plain(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(each) for each in value]
    if isinstance(value, (set, frozenset)):
        return sorted(str(each) for each in value)
    return value if value is None or isinstance(value, (bool, int, float, str)) else str(value)
