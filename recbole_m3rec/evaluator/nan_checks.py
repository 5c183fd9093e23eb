"""Stops a run at NaN in its loss or scores, and says where it arose."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch


class NotANumberError(ValueError):
    """A loss or a score is NaN: names the model, the epoch and the batch."""


def install() -> None:
    """Let ``Trainer._check_nan``, which knows neither, name epoch and batch.

    Each trainer's ``_train_epoch`` checks every batch once, in order, so the checks are counted.
    """
    from recbole.trainer import trainer as trainers

    from recbole_m3rec.hooks import wrap

    def train_epoch(
        original: Callable[..., Any],
        self: Any,
        train_data: Any,
        epoch_idx: int,
        *args: Any,
        **kwargs: Any,
    ) -> Any:
        self._epoch, self._batch = epoch_idx, 0
        self.eval_collector.place = f"epoch {epoch_idx}"
        return original(self, train_data, epoch_idx, *args, **kwargs)

    for trainer in trainers_with("_train_epoch"):
        wrap(trainer, "_train_epoch")(train_epoch)

    @wrap(trainers.Trainer, "_check_nan")
    def check(original: Callable[..., None], self: Any, loss: torch.Tensor) -> None:
        batch = getattr(self, "_batch", 0)
        self._batch = batch + 1
        if torch.isnan(loss).any():
            raise NotANumberError(
                f"The training loss of {type(self.model).__name__} is NaN in epoch "
                f"{getattr(self, '_epoch', 'unknown')}, batch {batch} (both counted from 0). "
                "Training stops; the last checkpoint, if any, is from before. Usual causes: too "
                "high a learning_rate, float16 (enable_amp), non-finite input features."
            )


def trainers_with(method: str) -> list[type]:
    """Return RecBole's trainers that have a method of their own of this name."""
    from recbole.trainer import trainer as trainers

    return [
        candidate
        for candidate in vars(trainers).values()
        if inspect.isclass(candidate)
        and issubclass(candidate, trainers.AbstractTrainer)
        and method in vars(candidate)
    ]


def refuse_nan(collector: Any, scores: torch.Tensor) -> None:
    """Raise where any score is NaN; infinite ones are legal (RecBole marks seen items by -inf).

    The largest score is NaN if any is, and costs no second tensor of the scores' size.
    """
    if scores.numel() == 0 or not torch.isnan(scores.amax()):
        refuse_rows_of_nan(collector, scores.new_zeros(len(scores), dtype=torch.bool))
    else:
        refuse_rows_of_nan(collector, torch.isnan(scores).reshape(len(scores), -1).any(dim=1))


def refuse_rows_of_nan(collector: Any, is_nan: torch.Tensor) -> None:
    """Count a batch of evaluation, and raise where any of its rows holds a NaN score.

    Args:
        collector: RecBole's collector, which knows the place.
        is_nan: ``[B]`` bool.

    Raises:
        NotANumberError: names model, epoch, batch and row.
    """
    batch = getattr(collector, "batch", 0)
    collector.batch = batch + 1
    rows = is_nan.nonzero().flatten().tolist()
    if not rows:
        return
    model = getattr(collector, "model_name", collector.config["model"])
    place = getattr(collector, "place", None) or "an unknown epoch"
    raise NotANumberError(
        f"{len(rows)} of {len(is_nan)} rows of scores of {model} hold NaN, first row {rows[0]}, in "
        f"evaluation batch {batch} of {place} (counted from 0). No metric is computed from them."
    )
