"""How a run is resumed: which one it is, what may differ, and where its training goes on."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from logging import getLogger
from pathlib import Path
from typing import Any

import torch.distributed as dist

from recbole_m3rec.config.keys import OF_A_MACHINE
from recbole_m3rec.data.saved.digests import DIGEST_KEYS, warn_of_changes
from recbole_m3rec.hooks import wrap
from recbole_m3rec.processes import distributed, launch
from recbole_m3rec.quick_start.checkpoints import (
    Checkpoint,
    CheckpointError,
    earlier,
    log_file,
    misfits,
    noting_checkpoint,
    read_checkpoint,
)
from recbole_m3rec.support import written_here
from recbole_m3rec.trainer import checkpoint_file, safe_format
from recbole_m3rec.trainer.interruption import SIGNALS, Stopped

# Key of a ``config_dict``, taken out again before training starts: the checkpoint to resume from.
RESUME_KEY = "resume"

# Settings that may differ between a run and the command that resumes it.
CHANGEABLE = checkpoint_file.NOT_SETTINGS | OF_A_MACHINE
CHANGEABLE |= {"scan_backend", "epochs", "stopping_step", "eval_batch_size", "metric_decimal_place"}

# A checkpoint of the last stage says its own; a run of all stages begins with the first.
OF_A_STAGE = {"train_stage", "pre_model_path"}

# What the command that names a checkpoint to resume may change of its run. Anything else would make
# one run of two: a best score by one metric or split, the rest by another.
CHANGEABLE_IN_A_RUN = CHANGEABLE | {"learning_rate", "weight_decay", "data_path", "feature_path"}


def newest_run(config: Any, of_launch: str | None = None) -> Checkpoint:
    """Return the newest run of a configuration, by its latest state.

    Args:
        config: RecBole's; all of its settings but ``CHANGEABLE`` have to be those of the run.
        of_launch: only runs of this start of torchrun, if one is given.

    Raises:
        CheckpointError: there is none.
    """
    folder = Path(config["checkpoint_dir"])
    today = {**earlier(config["model"]), **checkpoint_file.settings_of(config)}
    reasons = []
    for path in sorted(
        folder.glob(f"{config['model']}-*{checkpoint_file.LAST}"),
        key=lambda path: (path.stat().st_mtime_ns, path.name),
        reverse=True,
    ):
        if not safe_format.is_safe_file(path) and not written_here.is_own(path):
            reasons.append(f"{path} was not written by you on this machine")
            continue
        run = read_checkpoint(path)
        before = {**config.internal_config_dict, **run.settings}  # which may be older than a key
        differing = [
            f"{key} ({before.get(key)}, now {today.get(key)})"
            for key in sorted({*before, *today} - CHANGEABLE - OF_A_STAGE)
            if not same(before.get(key), today.get(key))
        ]
        if run.dataset != config["dataset"]:
            reasons.append(f"{path} is of dataset {run.dataset}")
        elif of_launch not in (None, run.launch):
            reasons.append(f"{path} is of another start of torchrun")
        elif differing:
            reasons.append(f"{path} has another {', '.join(differing)}")
        else:
            return run
    reasons += [
        f"{path} is not the latest state of a run, whose name ends in {checkpoint_file.LAST}"
        for path in sorted(folder.glob(f"{config['model']}-*"))
        if not path.name.endswith(checkpoint_file.LAST)
    ]
    raise CheckpointError(
        f"No run of {config['model']} on {config['dataset']} with these settings is in {folder}: "
        f"{'; '.join(reasons[:3]) or 'it has none of this model'}. Name a checkpoint, or start the "
        "run without --resume."
    )


def same(one: Any, other: Any) -> bool:
    """Tell whether two values of a setting say the same, such as ``text`` and ``[text]``."""
    one, other = (list(each) if isinstance(each, tuple) else each for each in (one, other))
    return bool(one == other or [one] == other or one == [other])


def resumed_configuration(run: Checkpoint) -> Any:
    """Return RecBole's configuration of a resumed run: its own, and what the command line changes.

    Raises:
        CheckpointError: it changes a setting that is none of ``CHANGEABLE_IN_A_RUN``.
    """
    from recbole.config import Config

    config = Config(run.model, run.dataset, config_dict=dict(run.settings))
    settings = {**config.internal_config_dict, **run.settings}  # which may be older than a key
    for key in config.cmd_config_dict.keys() - CHANGEABLE_IN_A_RUN:
        given, before = config.external_config_dict[key], settings.get(key)
        if not same(given, before):
            changeable = sorted(CHANGEABLE_IN_A_RUN - checkpoint_file.NOT_SETTINGS)
            raise CheckpointError(
                f"{run.path} was trained with {key}: {before}, which a resumed run keeps, but the "
                f"command line says {given}. Leave --{key} out, or train from the start. What can "
                f"be changed: {', '.join(changeable)}."
            )
    return config


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

    The result that goes back to the parent says where checkpoint and log went, too, or, of a
    training that a signal stopped, the signal and the checkpoint: torch takes a worker's
    KeyboardInterrupt for a good end.
    """
    from recbole_m3rec.quick_start.screen import calm_screen

    install_resuming()
    options = arguments[-1]
    with SIGNALS.caught(), noting_checkpoint() as checkpoints, calm_screen():
        queue = _ResultQueue(options["queue"], checkpoints)
        try:
            distributed.run_worker(rank, *arguments[:-1], {**options, "queue": queue})
        except Stopped as stopped:
            options["queue"].put({"stopped": stopped.number, "saved": stopped.saved})


class _ResultQueue:
    """The parent's queue, which gets RecBole's result and the places of its files."""

    def __init__(self, queue: Any, checkpoints: list[Path]) -> None:
        self.queue = queue
        self.checkpoints = checkpoints

    def put(self, result: dict[str, Any]) -> None:
        places = {"checkpoint": self.checkpoints[-1:], "log": log_file()}
        self.queue.put({**result, **places})


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
