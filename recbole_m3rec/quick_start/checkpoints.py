"""What a checkpoint knows about its run, and how a later run resumes it."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from logging import FileHandler, getLogger
from pathlib import Path
from typing import Any

import torch.distributed as dist

from recbole_m3rec.config.layers import OWN_MODELS
from recbole_m3rec.config.values import EVALUATE_KEY
from recbole_m3rec.data import time_order
from recbole_m3rec.data.digests import DIGEST_KEYS, warn_of_changes
from recbole_m3rec.hooks import wrap
from recbole_m3rec.processes import distributed, launch
from recbole_m3rec.support import written_here
from recbole_m3rec.trainer import checkpoint_file, pretraining, safe_format
from recbole_m3rec.trainer.interruption import SIGNALS
from recbole_m3rec.trainer.progress import KEY as PROGRESS

# Key of a ``config_dict``, taken out again before training starts: the checkpoint to resume from.
RESUME_KEY = "resume"

# Settings that may differ between a run and the command that resumes it.
CHANGEABLE = checkpoint_file.NOT_SETTINGS | {
    *("epochs", "stopping_step", "checkpoint_minutes", "show_progress", "state", "worker"),
}

# What the command that names a checkpoint to resume may change of its run. Anything else would make
# one run of two: a best score by one metric or split, the rest by another.
CHANGEABLE_IN_A_RUN = CHANGEABLE | {
    *("learning_rate", "weight_decay", "eval_batch_size", "metric_decimal_place", "scan_backend"),
    *("data_path", "feature_path", "download", "gpu_id", "use_gpu", "verbose"),
    *("log_wandb", "wandb_project"),
}

# What held before a setting existed, for checkpoints that do not name it: for every model, and for
# the models of this package.
EARLIER = {time_order.KEY: "recbole", "lr_scheduler": "none", "warmup_steps": 0}
EARLIER_OF_OWN_MODELS = {
    **{"score": "dot", "repetition": False},
    **{"id_init": "normal", "softmax_items": "all", "id_updates": "dense"},
    **{"shard_softmax": False, "score_ids": "same", "low_pass": 0},
}


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


def read_checkpoint(path: Path) -> Checkpoint:
    """Read what a checkpoint says about its run.

    Raises:
        CheckpointError: no file, or none that RecBole's trainer wrote.
    """
    if not path.is_file():
        raise CheckpointError(f"There is no checkpoint {path}. Runs write theirs into saved/.")
    try:
        checkpoint_file.warn_if_foreign(path)
        content = checkpoint_file.load(path, map_location="cpu")
        if not isinstance(content, Mapping):
            raise TypeError(f"it holds a {type(content).__name__}, no weights and configuration")
        config = content["config"]
        return Checkpoint(
            path=path,
            model=config["model"],
            dataset=config["dataset"],
            epoch=content["epoch"],
            settings={
                **EARLIER,
                **(EARLIER_OF_OWN_MODELS if config["model"] in OWN_MODELS else {}),
                **checkpoint_file.settings_of(config),
            }
            | pretraining.settings_of_saved(config["model"], config["train_stage"], path),
            is_exact=PROGRESS in content,
            launch=content.get(PROGRESS, {}).get("launch"),
        )
    except (
        *(pickle.UnpicklingError, RuntimeError, EOFError, KeyError, TypeError),
        *(AttributeError, ImportError, ValueError),
    ) as error:
        raise CheckpointError(
            f"{path} is no whole checkpoint of RecBole ({type(error).__name__}: {error})."
        ) from error


def newest_run(config: Any, of_launch: str | None = None) -> Checkpoint:
    """Return the newest run of a configuration, by its latest state.

    Args:
        config: RecBole's; of it, model, dataset and what files and command line say have to agree.
        of_launch: only runs of this start of torchrun, if one is given.

    Raises:
        CheckpointError: there is none.
    """
    folder = Path(config["checkpoint_dir"])
    settings = {k: v for k, v in config.external_config_dict.items() if k not in CHANGEABLE}
    reasons = []
    for path in sorted(
        folder.glob(f"{config['model']}-*-last.ckpt"),
        key=lambda path: (path.stat().st_mtime_ns, path.name),
        reverse=True,
    ):
        if not safe_format.is_safe_file(path) and not written_here.is_own(path):
            reasons.append(f"{path} was not written by you on this machine")
            continue
        run = read_checkpoint(path)
        differing = [key for key, value in settings.items() if run.settings.get(key) != value]
        if run.dataset != config["dataset"]:
            reasons.append(f"{path} is of dataset {run.dataset}")
        elif of_launch not in (None, run.launch):
            reasons.append(f"{path} is of another start of torchrun")
        elif differing:
            reasons.append(f"{path} has another {', '.join(differing)}")
        else:
            return run
    raise CheckpointError(
        f"No run of {config['model']} on {config['dataset']} with these settings is in {folder}: "
        f"{'; '.join(reasons[:3]) or 'it has none of this model'}. Name a checkpoint, or start the "
        "run without --resume."
    )


def resumed_configuration(run: Checkpoint) -> Any:
    """Return RecBole's configuration of a resumed run: its own, and what the command line changes.

    Raises:
        CheckpointError: it changes a setting that is none of ``CHANGEABLE_IN_A_RUN``.
    """
    from recbole.config import Config

    config = Config(run.model, run.dataset, config_dict=dict(run.settings))
    for key in config.cmd_config_dict.keys() - CHANGEABLE_IN_A_RUN:
        given, before = config.external_config_dict[key], run.settings.get(key)
        if given != before:
            raise CheckpointError(
                f"{run.path} was trained with {key}: {before}, which a resumed run keeps, but the "
                f"command line says {given}. Leave --{key} out, or train from the start. What can "
                f"be changed: {', '.join(sorted(CHANGEABLE_IN_A_RUN - checkpoint_file.NOT_SETTINGS))}."
            )
    return config


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
    """Compute the metrics of a loaded run on validation and test data."""
    from recbole.utils import get_trainer

    trainer = get_trainer(config["MODEL_TYPE"], config["model"])(config, model)
    trainer.eval_collector.data_collect(loaders[0])
    return {
        name: trainer.evaluate(loader, load_best_model=False, show_progress=show_progress)
        for name, loader in (("valid", loaders[1]), ("test", loaders[2]))
    }


def install_resuming() -> None:
    """Let a run whose configuration names a checkpoint under ``resume`` continue from it.

    Spawned workers do the same. Calling this again does nothing.
    """
    from recbole.quick_start import quick_start

    if quick_start.run_recboles is run_resuming_worker:
        return
    quick_start.run_recboles = run_resuming_worker

    @wrap(quick_start, "get_trainer")
    def get_trainer(original: Callable[..., Any], *names: Any) -> Callable[..., Any]:
        trainer_class = original(*names)

        def build(config: Any, model: Any) -> Any:
            asked = config.final_config_dict.pop(RESUME_KEY, None)
            checkpoint = before_restart(config) or asked
            trainer = trainer_class(config, model)
            if checkpoint is not None:
                resume(trainer, Path(checkpoint))
            return trainer

        return build


def before_restart(config: Any) -> Path | None:
    """Return the latest state of a run that torchrun has restarted; the first process chooses."""
    started = launch.torchrun()
    if started is None or started.restarts == 0:
        return None
    chosen: list[Path | None] = [None]
    if started.rank == 0:
        with suppress(CheckpointError):
            chosen = [newest_run(config, launch.own_launch()).path]
    if started.world_size > 1:
        dist.broadcast_object_list(chosen, src=0)
    if chosen[0] is not None and not chosen[0].is_file():
        raise CheckpointError(
            f"{chosen[0]}, from which the first machine goes on, is missing here. Let all machines "
            "share checkpoint_dir."
        )
    getLogger().info(f"torchrun restart {started.restarts}: from {chosen[0] or 'the start'}")
    return chosen[0]


def run_resuming_worker(rank: int, *arguments: Any) -> None:
    """Run one process of a training that may resume a checkpoint.

    The result that goes back to the parent says where checkpoint and log went, too.
    """
    from recbole_m3rec.quick_start.screen import calm_screen

    install_resuming()
    options = arguments[-1]
    with SIGNALS.caught(), noting_checkpoint() as checkpoints, calm_screen():
        queue = _ResultQueue(options["queue"], checkpoints)
        distributed.run_worker(rank, *arguments[:-1], {**options, "queue": queue})


class _ResultQueue:
    """The parent's queue, which gets RecBole's result and the places of its files."""

    def __init__(self, queue: Any, checkpoints: list[Path]) -> None:
        self.queue = queue
        self.checkpoints = checkpoints

    def put(self, result: dict[str, Any]) -> None:
        places = {"checkpoint": self.checkpoints[-1:], "log": log_file()}
        self.queue.put({**result, **places})


def log_file() -> Path | None:
    """Return where RecBole's logger writes to in this process."""
    files = [
        handler.baseFilename for handler in getLogger().handlers if isinstance(handler, FileHandler)
    ]
    return Path(files[-1]) if files else None


def resume(trainer: Any, checkpoint: Path) -> None:
    """Bring a new trainer to where a checkpoint was written.

    RecBole restores the optimiser whole, step size included; where today's configuration says
    another than the checkpoint's, it decides.
    """
    with misfits(checkpoint):
        trainer.resume_checkpoint(checkpoint)
    before = checkpoint_file.load(checkpoint, map_location="cpu")["config"]
    for key, name in (("learning_rate", "lr"), ("weight_decay", "weight_decay")):
        if before[key] != trainer.config[key]:
            for group in trainer.optimizer.param_groups:
                group[name] = trainer.config[key]
    digests = {key: before[key] for key in DIGEST_KEYS}
    warn_of_changes(checkpoint, digests, trainer.config)


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
