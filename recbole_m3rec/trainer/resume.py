"""Exact resume: every training keeps its latest state beside its best epoch, and goes on from it.

RecBole's trainer stays in charge. It is followed epoch by epoch and batch by batch; trainers with
an epoch of their own (several passes, see RecVAE or KGAT) are followed by epochs. Trainers with a
``fit`` of their own (NCL, decision trees, pretraining) keep RecBole's checkpoints alone.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from logging import getLogger
from pathlib import Path
from typing import Any

from recbole_m3rec.processes.global_batch import Followed
from recbole_m3rec.support.safe_write import CannotWriteError
from recbole_m3rec.trainer import checkpoint_file
from recbole_m3rec.trainer.interruption import SIGNALS, Stopped
from recbole_m3rec.trainer.progress import (
    KEY,
    Progress,
    best_checkpoint,
    last_checkpoint,
)
from recbole_m3rec.trainer.trainer_state import take_up


class CannotResumeError(ValueError):
    """A checkpoint's run cannot go on; says what is missing."""


def progress_of(trainer: Any) -> Progress | None:
    """Return what follows a trainer's ``fit`` at this moment, None outside of it."""
    return vars(trainer).get("progress")


def fit(original: Callable[..., Any], self: Any, *args: Any, **kwargs: Any) -> Any:
    """Train from the start, or from where the checkpoint was written, and keep the latest state."""
    call = inspect.signature(original).bind(self, *args, **kwargs)
    call.apply_defaults()
    given = call.arguments
    if given["valid_data"] is not None and not given["valid_data"] and self.eval_step > 0:
        getLogger().warning(
            "No interaction validates, such as where users have few: training neither stops early"
            " nor chooses its best epoch, and the last one is tested."
        )
    progress = Progress(self, given["train_data"], given["valid_data"], given["saved"])
    # Nothing is left to train when all epochs are done, or scores have stopped rising.
    has_ended = self.start_epoch >= self.epochs or self.cur_step > self.stopping_step
    if progress.resumed is not None and has_ended:
        getLogger().info(
            f"Training ended with epoch {self.start_epoch - 1}; the run goes on with its test"
        )
        self.eval_collector.data_collect(given["train_data"])
        progress.restore_random()
        return self.best_valid_score, self.best_valid_result
    callback = given["callback_fn"]

    def after_validation(epoch: int, score: float) -> None:
        if callback:
            callback(epoch, score)
        progress.end_epoch(epoch)

    given["callback_fn"] = after_validation
    self.progress = progress
    SIGNALS.deferring = not progress.alone
    try:
        result = original(*call.args, **call.kwargs)
        progress.end_epoch(progress.epoch)
        self.best_in_memory = progress.unsaved_weights()
        return result
    except Stopped as stopped:
        SIGNALS.deferring = False
        if progress.alone:  # several have agreed on it before they stop
            progress.save_trained()
        last = last_checkpoint(self.saved_model_file)
        stopped.saved = str(last) if last.is_file() else None
        raise
    finally:
        SIGNALS.deferring = False
        self.progress = None


def train_epoch(
    original: Callable[..., Any],
    self: Any,
    train_data: Any,
    epoch_idx: int,
    loss_func: Any = None,
    **kwargs: Any,
) -> Any:
    """Train an epoch, followed batch by batch."""
    progress = progress_of(self)
    if progress is None or progress.in_epoch:
        return original(self, train_data, epoch_idx, loss_func=loss_func, **kwargs)
    from recbole.trainer import Trainer

    resumed = progress.resumed is not None
    progress.begin_epoch(epoch_idx)
    progress.in_epoch = True
    try:
        if type(self)._train_epoch is not Trainer._train_epoch:
            return original(self, train_data, epoch_idx, loss_func=loss_func, **kwargs)
        loss = original(
            self,
            Followed(train_data, progress.batches),
            epoch_idx,
            loss_func=progress.follow(loss_func or self.model.calculate_loss),
            **kwargs,
        )
    finally:
        progress.in_epoch = False
    return loss if progress.alone and not resumed else progress.loss


def save_checkpoint(
    original: Callable[..., None], self: Any, epoch: int, *args: Any, **kwargs: Any
) -> None:
    """Save as RecBole does, with the training's whole state beside RecBole's entries."""
    state = vars(self).pop("state_to_save", None)
    progress = progress_of(self)
    if state is None and progress is not None:  # RecBole saves an epoch that is the best so far
        result = progress.latest_result or self.best_valid_result
        state = {**progress.state(epoch), "best_valid_result": result}
    with checkpoint_file.adding({KEY: state} if state is not None else {}) as contents:
        try:
            original(self, epoch, *args, **kwargs)
        except CannotWriteError as error:
            if progress is None or not contents or "saved_model_file" in kwargs:
                raise
            progress.keep_best(contents[0], error)
        else:
            if progress is not None and "saved_model_file" not in kwargs:
                progress.best_was_saved()


def resume_checkpoint(original: Callable[..., None], self: Any, resume_file: Any) -> None:
    """Resume as RecBole does, from either checkpoint of a run, and exactly where it can be."""
    path = Path(resume_file)
    content = checkpoint_file.load(path, map_location="cpu")
    saved = content.get(KEY) if isinstance(content, Mapping) else None
    for name in (saved or {}).get("optimizer_is", ()):
        self.optimizer = getattr(self, name)
    original(self, resume_file)
    best = best_checkpoint(path, self.config)
    self.saved_model_file = str(best)
    if saved is None:
        getLogger().warning(
            f"{path} carries weights and optimiser alone, no random states and no position: "
            "training goes on from it, but not as it would have."
        )
        return
    take_up(self, saved)
    if saved["best_valid_result"] is not None and not best.is_file():
        raise CannotResumeError(
            f"{best} is missing, the best epoch of the run that {path} goes on with. Put it back, "
            "or start the run anew."
        )
