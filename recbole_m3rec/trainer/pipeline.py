"""Training as one pipeline, from RecBole's trainer to its checkpoints.

RecBole's trainers stay in charge. What this package adds stands here once, in the order in which it
happens:

    build       the processes watch each other and have the same settings, versions and data; one
                name of the checkpoint for all; leftovers of killed runs are removed
    fit         the learning rate follows its schedule, and the state is kept from which a run
                resumes exactly
    epoch       NaN names its epoch; losses of several processes count by their share of the batch;
                the position inside the epoch is known
    validate    its result goes into the checkpoint
    save        RecBole's entries and the whole state, by rank 0 for all
    load        either checkpoint of a run, exactly where it can be
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from logging import getLogger
from pathlib import Path
from typing import Any

import torch
from recbole.trainer import Trainer

from recbole_m3rec.config.keys import OF_A_MACHINE
from recbole_m3rec.data.saved.digests import DIGEST_KEYS
from recbole_m3rec.evaluator.nan_checks import begin_epoch, refuse_nan_loss, trainers_with
from recbole_m3rec.hooks import overlay, wrap
from recbole_m3rec.ops.dropout import where_masks_are_drawn
from recbole_m3rec.processes import global_batch, watch
from recbole_m3rec.processes.agreement import agree
from recbole_m3rec.support.safe_write import clear_leftovers
from recbole_m3rec.support.versions import versions_of_training
from recbole_m3rec.trainer import checkpoint_file, resume, sparse_updates
from recbole_m3rec.trainer.checkpoint_file import save_once, share_name
from recbole_m3rec.trainer.learning_rate import scheduled
from recbole_m3rec.trainer.trainer_state import plain_attributes


class M3RecTrainer(Trainer):  # type: ignore[misc]
    """RecBole's trainer for the models of this package; RecBole finds it by its name."""

    def _build_optimizer(self, **kwargs: Any) -> Any:
        return sparse_updates.build_optimizer(partial(self._build_dense, **kwargs), self)

    def _build_dense(self, **kwargs: Any) -> Any:
        """Return RecBole's optimiser; AdamW makes its step in one kernel."""
        optimizer = super()._build_optimizer(**kwargs)
        if isinstance(optimizer, torch.optim.AdamW):
            for group in optimizer.param_groups:
                group["fused"] = True
        return optimizer

    def sync_grad_loss(self) -> Any:
        """Give every parameter a gradient, as RecBole does, but leave sparse ones sparse."""
        sparse = {id(table) for table in sparse_updates.sparse_parameters(self.model)}
        return sum(p.sum() * 0 for p in self.model.parameters() if id(p) not in sparse)

    def fit(self, *args: Any, **kwargs: Any) -> Any:
        """Train as RecBole does; the log says where random masks are drawn."""
        getLogger().info(f"Random masks of dropout: {where_masks_are_drawn(self.device)}")
        return super().fit(*args, **kwargs)


def install() -> None:
    """Put the steps under RecBole's trainers."""
    from recbole.trainer import trainer as trainers

    wrap(Trainer, "__init__")(build)
    wrap(Trainer, "fit")(fit)
    for trainer in trainers_with("_train_epoch"):
        wrap(trainer, "_train_epoch")(train_epoch)
    wrap(Trainer, "_check_nan")(lambda original, self, loss: refuse_nan_loss(self, loss))
    wrap(Trainer, "_valid_epoch")(validate)
    wrap(Trainer, "_save_checkpoint")(save_checkpoint)
    wrap(Trainer, "resume_checkpoint")(resume.resume_checkpoint)
    overlay(trainers, "torch", save=checkpoint_file.save)


def build(original: Callable[..., None], self: Any, config: Any, model: Any) -> None:
    """Around ``Trainer.__init__``."""
    if not config["single_spec"]:
        same = {**settings_said(config), **versions_of_training()}
        agree(same, files_said(config))  # waits for those that read more slowly
    watch.start(config)
    sparse_updates.refuse_dense_parameters(config["learner"], model)
    original(self, config, model)
    share_name(self)
    self.model_as_built = plain_attributes(self.model)
    if config["checkpoint_format"] == "safe":
        path = Path(self.saved_model_file)
        self.saved_model_file = str(path.with_suffix(checkpoint_file.SAFE))
    clear_leftovers(Path(self.checkpoint_dir))


def settings_said(config: Any) -> dict[str, str]:
    """Return the settings that all processes have in common; equal numbers are written alike."""
    local = OF_A_MACHINE | {"scan_backend"}
    local |= {"data_path", "feature_path"}  # the files are compared
    return {
        key: repr(int(value) if type(value) is float and value.is_integer() else value)
        for key, value in checkpoint_file.settings_of(config).items()
        if key not in local
    }


def files_said(config: Any) -> dict[str, str]:
    """Return what identifies the files of data and features that this process has."""
    digests = {name: each for key in DIGEST_KEYS for name, each in (config[key] or {}).items()}
    return {name: f"SHA-256 {digest[:12]}…" for name, digest in digests.items()}


def fit(original: Callable[..., Any], self: Any, train_data: Any, *args: Any, **kwargs: Any) -> Any:
    """Around ``Trainer.fit``."""
    if not self.config["single_spec"]:
        state = f"at epoch {self.start_epoch} with a best score of {self.best_valid_score}"
        agree({"where training begins": state})
    with scheduled(self, train_data):
        return resume.fit(original, self, train_data, *args, **kwargs)


def train_epoch(
    original: Callable[..., Any],
    self: Any,
    train_data: Any,
    epoch_idx: int,
    *args: Any,
    **kwargs: Any,
) -> Any:
    """Around ``_train_epoch`` of every trainer; those of a subclass call RecBole's."""
    begin_epoch(self, epoch_idx)
    epoch = partial(resume.train_epoch, original)
    if original.__qualname__ == "Trainer._train_epoch":  # once, wherever a subclass calls it
        epoch = partial(global_batch.train_epoch, epoch)
    return epoch(self, train_data, epoch_idx, *args, **kwargs)


def validate(original: Callable[..., Any], self: Any, *args: Any, **kwargs: Any) -> Any:
    """Around ``Trainer._valid_epoch``."""
    score, result = original(self, *args, **kwargs)
    progress = resume.progress_of(self)
    if progress is not None:
        progress.latest_result = result
    return score, result


def save_checkpoint(original: Callable[..., None], self: Any, *args: Any, **kwargs: Any) -> None:
    """Around ``Trainer._save_checkpoint``."""
    resume.save_checkpoint(partial(save_once, original), self, *args, **kwargs)
