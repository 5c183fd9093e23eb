"""What a user sees while a model trains: a few lines, one progress bar; the log file has it all."""

from __future__ import annotations

import logging
import os
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from time import perf_counter
from typing import Any

import recbole
from tqdm import tqdm

from recbole_m3rec.quick_start.checkpoints import around

_RECBOLE = str(Path(recbole.__file__).parent) + os.sep

_logger = logging.getLogger(__name__)


@contextmanager
def calm_screen() -> Iterator[None]:
    """Show one progress bar for the run inside, and no INFO lines of RecBole's.

    ``verbose: true`` in the configuration leaves the screen to RecBole. Log files are the same.
    """
    from recbole.quick_start import quick_start
    from recbole.trainer import trainer as trainers

    progress = _Progress()
    with ExitStack() as stack:
        for owner, name, function in (
            (quick_start, "init_logger", quieten),
            (quick_start, "data_preparation", _tell_size),
            (trainers, "tqdm", progress.steps),
            (trainers.Trainer, "fit", progress.fit),
            (trainers.Trainer, "_generate_train_loss_output", progress.trained),
            (trainers.Trainer, "_valid_epoch", progress.validated),
        ):
            stack.enter_context(around(owner, name, function))
        yield


def quieten(original: Callable[..., None], config: Any) -> None:
    """Set RecBole's logger up; its handler for the screen shows what is ours, and every warning."""
    original(config)
    if config["verbose"]:
        return
    for handler in logging.getLogger().handlers:
        if type(handler) is logging.StreamHandler:  # no subclass, such as that of files
            handler.addFilter(_is_for_the_screen)
            handler.setFormatter(logging.Formatter("%(message)s"))


def _is_for_the_screen(record: logging.LogRecord) -> bool:
    if record.levelno >= logging.WARNING:
        return True
    return not record.pathname.startswith(_RECBOLE) and not getattr(record, "file_only", False)


def _tell_size(original: Callable[..., Any], config: Any, dataset: Any) -> Any:
    _logger.info(
        f"{dataset.dataset_name}: {dataset.user_num - 1:,} users, {dataset.item_num - 1:,} items, "
        f"{dataset.inter_num:,} interactions"
    )
    return original(config, dataset)


class _Progress:
    """One bar over all epochs of a training; a line each validation where there is no terminal."""

    def __init__(self) -> None:
        self.bar: Any = None  # while a training is shown
        self.loss = 0.0
        self.best = ""
        self.started = 0.0

    def fit(
        self, original: Callable[..., Any], trainer: Any, data: Any, *args: Any, **kwargs: Any
    ) -> Any:
        if not kwargs.get("show_progress") or trainer.config["verbose"] or self.bar is not None:
            return original(trainer, data, *args, **kwargs)
        size = sum(p.numel() for p in trainer.model.parameters() if p.requires_grad)
        _logger.info(f"{trainer.config['model']}: {size:,} parameters, on {trainer.device}")
        self.best, self.started = "", perf_counter()
        with tqdm(
            total=trainer.epochs * len(data),
            initial=trainer.start_epoch * len(data),
            disable=None,  # on terminals alone
            leave=False,
            ncols=shutil.get_terminal_size((100, 24)).columns - 1,  # some tell no size
            smoothing=0,  # validations in between count
            bar_format="{desc} {percentage:3.0f}% |{bar}| {elapsed}, at most {remaining} left",
        ) as self.bar:
            try:
                return original(trainer, data, *args, **kwargs)
            finally:
                self.bar = None

    def steps(
        self, original: Callable[..., Any], data: Iterable[Any], *args: Any, **kwargs: Any
    ) -> Any:
        """Stand in for RecBole's bar of one epoch or evaluation."""
        if self.bar is None:
            return original(data, *args, **kwargs)
        return _Steps(self.bar, data, counts="Train" in kwargs.get("desc", ""))

    def trained(
        self, original: Callable[..., Any], trainer: Any, epoch: int, start: float, end: float,
        losses: Any,
    ) -> Any:  # fmt: skip
        if self.bar is not None:
            total = sum(losses) if isinstance(losses, tuple) else losses
            steps = max(1, self.bar.total // max(1, trainer.epochs))
            self.loss = float(total or 0.0) / steps
            self.show(trainer, epoch)
        return original(trainer, epoch, start, end, losses)

    def validated(
        self, original: Callable[..., Any], trainer: Any, *args: Any, **kwargs: Any
    ) -> Any:
        score, result = original(trainer, *args, **kwargs)
        if self.bar is not None:
            epoch = max(trainer.train_loss_dict, default=0)
            before = trainer.best_valid_score
            better = score > before if trainer.valid_metric_bigger else score < before
            if better or not self.best:
                best = score if better else before
                self.best = f", best {trainer.valid_metric} {best:.4f}"
                self.best += f" (epoch {epoch + 1})" if better else ""
            self.show(trainer, epoch)
            if self.bar.disable:
                seconds = perf_counter() - self.started
                print(
                    f"{self.told(trainer, epoch)}, now {score:.4f}, after {seconds:.0f} s",
                    file=sys.stderr,
                )
        return score, result

    def told(self, trainer: Any, epoch: int) -> str:
        return f"epoch {epoch + 1}/{trainer.epochs}, loss {self.loss:.4f}{self.best}"

    def show(self, trainer: Any, epoch: int) -> None:
        self.bar.set_description_str(self.told(trainer, epoch))


class _Steps:
    """The batches of an epoch, each of which moves the bar of the whole training."""

    def __init__(self, bar: Any, data: Iterable[Any], counts: bool) -> None:
        self.bar, self.data, self.counts = bar, data, counts

    def __iter__(self) -> Iterator[Any]:
        for batch in self.data:
            yield batch
            if self.counts:
                self.bar.update()

    def set_postfix_str(self, text: str) -> None:
        """Take what RecBole would show beside its bar, the GPU's memory."""
