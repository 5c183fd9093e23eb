"""What a checkpoint knows about its run, and what is made of it again: model, data, metrics."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from logging import FileHandler, getLogger
from pathlib import Path
from typing import Any

from recbole_m3rec.config.layers import IN_PARTS, OWN_MODELS
from recbole_m3rec.config.values import EVALUATE_KEY
from recbole_m3rec.data import time_order
from recbole_m3rec.hooks import wrap
from recbole_m3rec.trainer import checkpoint_file, pretraining
from recbole_m3rec.trainer.progress import KEY as PROGRESS

# What held before a setting existed, for checkpoints that do not name it: for every model, and for
# the models of this package.
EARLIER = {time_order.KEY: "recbole", "lr_scheduler": "none", "warmup_steps": 0}
EARLIER_OF_OWN_MODELS = {
    **{"score": "dot", "repetition": False},
    **{"id_init": "normal", "softmax_items": "all", "id_updates": "dense"},
    **{"shard_softmax": False, "score_ids": "same", "low_pass": 0},
}
# What RecBole put in place of parts of `eval_args` that nothing named.
EARLIER_EVAL_ARGS = {
    "split": {"RS": [0.8, 0.1, 0.1]},
    "order": "RO",
    "group_by": "user",
    "mode": "full",
}


def earlier(model: str) -> dict[str, Any]:
    """Return what holds for a model where its settings do not say otherwise."""
    return {**EARLIER, **(EARLIER_OF_OWN_MODELS if model in OWN_MODELS else {})}


class CheckpointError(ValueError):
    """A checkpoint that cannot be read or used as asked; says which and what to do."""


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint on disk.

    ``settings`` is everything RecBole had read, from files, dict and command line, before it
    derived anything: given to RecBole again, it makes the same configuration.
    ``epoch``, the one that was saved, counts from 0; ``is_exact`` tells whether training goes on
    from it as it would have; ``launch`` is the start of torchrun that wrote it.
    """

    path: Path
    model: str
    dataset: str
    epoch: int
    settings: Mapping[str, Any]
    is_exact: bool = False
    launch: str | None = None


def no_file(path: Path) -> str:
    """Return in words what is at the path of a checkpoint where no file is."""
    if path.is_dir():
        return f"{path} is a folder, expected a checkpoint, which is a file"
    if path.is_symlink():
        return f"{path} is a link that leads nowhere, expected a checkpoint"
    if path.exists():
        return f"{path} is no regular file, expected a checkpoint"
    return f"There is no checkpoint {path}"


def read_checkpoint(path: Path) -> Checkpoint:
    """Read what a checkpoint says about its run.

    Raises:
        CheckpointError: no file, or none that RecBole's trainer wrote.
        CutCheckpointError: the file is cut off or damaged.
    """
    if not path.is_file():
        raise CheckpointError(f"{no_file(path)}. Runs write theirs into saved/.")
    try:
        checkpoint_file.warn_if_foreign(path)
        content = checkpoint_file.load(path, map_location="cpu")
        if not isinstance(content, Mapping):
            raise TypeError(f"it holds a {type(content).__name__}, no weights and configuration")
        config = content["config"]
        read = checkpoint_file.settings_of(config)
        if isinstance(read.get(IN_PARTS), Mapping):
            read[IN_PARTS] = {**EARLIER_EVAL_ARGS, **read[IN_PARTS]}
        return Checkpoint(
            path=path,
            model=config["model"],
            dataset=config["dataset"],
            epoch=content["epoch"],
            settings={**earlier(config["model"]), **read}
            | pretraining.settings_of_saved(config["model"], config["train_stage"], path),
            is_exact=PROGRESS in content,
            launch=content.get(PROGRESS, {}).get("launch"),
        )
    except checkpoint_file.CutCheckpointError:
        raise
    except (
        *(pickle.UnpicklingError, RuntimeError, EOFError, KeyError, TypeError),
        *(AttributeError, ImportError, ValueError),
    ) as error:
        raise CheckpointError(
            f"{path} is no whole checkpoint of RecBole ({type(error).__name__}: {error})."
        ) from error


def load_run(run: Checkpoint) -> tuple[Any, Any, Any, tuple[Any, Any, Any], Any]:
    """Load data and model by RecBole's ``load_data_and_model``; the command line has its say.

    Returns:
        The configuration, the model, the filtered dataset, the loaders of training, validation and
        test, and the interactions (a data frame of internal ids) as they were before the dataset
        turned them into prefixes.

    Raises:
        CheckpointError: the parameters do not fit the model that the data call for.
    """
    from recbole.config import Config
    from recbole.quick_start import load_data_and_model, quick_start

    settings = {**run.settings, EVALUATE_KEY: True}
    today = Config(model=run.model, dataset=run.dataset, config_dict=settings)
    interactions: list[Any] = []

    def create(original: Callable[..., Any], config: Any) -> Any:
        config.__dict__.update(vars(today))
        dataset = original(config)
        interactions.append(dataset.inter_feat)
        return dataset

    with around(quick_start, "create_dataset", create), misfits(run.path):
        config, model, dataset, *loaders = load_data_and_model(str(run.path))
    return config, model, dataset, (loaders[0], loaders[1], loaders[2]), interactions[0]


def metrics(
    config: Any, model: Any, loaders: tuple[Any, Any, Any], *, show_progress: bool
) -> dict[str, dict[str, float]]:
    """Compute the metrics of a loaded run on validation and test data, none where one is empty."""
    from recbole.utils import get_trainer

    trainer = get_trainer(config["MODEL_TYPE"], config["model"])(config, model)
    trainer.eval_collector.data_collect(loaders[0])
    return {
        name: trainer.evaluate(loader, load_best_model=False, show_progress=show_progress) or {}
        for name, loader in (("valid", loaders[1]), ("test", loaders[2]))
    }


def log_file() -> Path | None:
    """Return where RecBole's logger writes to in this process."""
    files = [
        handler.baseFilename for handler in getLogger().handlers if isinstance(handler, FileHandler)
    ]
    return Path(files[-1]) if files else None


@contextmanager
def noting_checkpoint() -> Iterator[list[Path]]:
    """Note where the trainers of this process save their best epochs; workers are not seen."""
    from recbole.trainer import trainer as trainers

    paths: list[Path] = []

    def save(original: Callable[..., None], trainer: Any, *args: Any, **kwargs: Any) -> None:
        original(trainer, *args, **kwargs)
        if "saved_model_file" not in kwargs:
            paths.append(Path(trainer.saved_model_file))

    with around(trainers.Trainer, "_save_checkpoint", save):
        yield paths


@contextmanager
def misfits(checkpoint: Path) -> Iterator[None]:
    """Say which checkpoint it was when parameters of other names or sizes cannot be loaded."""
    try:
        yield
    except RuntimeError as error:
        if "loading state_dict" not in str(error):
            raise
        raise CheckpointError(
            f"{checkpoint} does not fit the model that today's settings and data make: {error}. "
            "The data or the installed version changed since, or a setting on the command line "
            "changes the network's sizes."
        ) from error


@contextmanager
def around(owner: Any, name: str, function: Callable[..., Any]) -> Iterator[None]:
    """Put a function around ``owner.name`` for a while, as ``hooks.wrap`` does for good."""
    original = getattr(owner, name)
    wrap(owner, name)(function)
    try:
        yield
    finally:
        setattr(owner, name, original)
